"""Feed readers with damaged input: each answers, or refuses with an error of maekit's own.

    python tests/faults/fuzz.py recipe|lists|weights|report|checkpoints --cases N [--seed S]

A case that ends with another error, takes longer than LIMIT seconds, or more than 1 GB above the
start, is a fault: it is named by its number, which makes it again (--seed S --first NUMBER).
"""

from __future__ import annotations

import argparse
import importlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from maekit.errors import MaekitError

LIMIT = 120.0  # seconds a case; generous, as other processes may want the CPU
MEMORY = 1 << 20  # kB above the start
READERS = ("recipe", "lists", "weights", "report", "checkpoints")
Case = Callable[[random.Random, Path], None]


class Found(NamedTuple):
    """What came of a number of cases."""

    cases: int
    refused: int
    faults: list[str]
    memory: float  # GB above the start
    seconds: float


def fuzz(reader: str, cases: int, *, seed: int = 0, first: int = 0) -> Found:
    """Run cases ``first`` to ``first + cases``; each depends on nothing but seed and number."""
    case: Case = importlib.import_module(f"fuzz_{reader}").case
    with tempfile.TemporaryDirectory() as folder, suppress(MaekitError):
        case(random.Random(0), Path(folder))  # imports, and what is kept
    start, begun, refused = _memory(), time.monotonic(), 0
    faults: list[str] = []
    previous = signal.signal(signal.SIGALRM, _late)
    try:
        for number in range(first, first + cases):
            with tempfile.TemporaryDirectory() as folder:
                signal.setitimer(signal.ITIMER_REAL, LIMIT)
                try:
                    case(random.Random(f"{seed}/{number}"), Path(folder))
                except MaekitError:
                    refused += 1
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    kind = f"{type(error).__name__}: {str(error)[:150]!a}"
                    faults.append(f"case {number}: {kind} ({where.filename}:{where.lineno})")
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            if _memory() - start > MEMORY:
                faults.append(f"case {number}: {(_memory() - start) / MEMORY:.1f} GB")
                break
    finally:
        signal.signal(signal.SIGALRM, previous)
    memory = (_memory() - start) / MEMORY
    return Found(cases, refused, faults, memory, time.monotonic() - begun)


def _late(*_: object) -> None:
    raise TimeoutError(f"no answer within {LIMIT:g} s")


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Change some bytes: flip, cut, double, insert, repeat."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(out) + 1)
        length = rng.choice((1, 1, 2, 8, 100))
        match rng.randrange(6):
            case 0 if place < len(out):
                out[place] ^= 1 << rng.randrange(8)
            case 1:
                del out[place:]
            case 2:
                del out[place : place + length]
            case 3:
                out[place:place] = out[place : place + length]
            case 4:
                out[place:place] = rng.randbytes(length)
            case _:
                out[place:place] = rng.choice(ODD)
    return bytes(out)


ODD = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"-1", b"1e400",
    b"NaN", b"\"", b"\n", b"\r", b"\x1b[2J", b"null", b"~", b"'", b",", b"\t", b" ", b"&a", b"*a",
    b"0x" + b"f" * 5000, b"\xe2\x80\xae", b"\xef\xbb\xbf", b"x" * 5000,
)  # fmt: skip


def odd_value(rng: random.Random, depth: int = 0) -> object:
    """Return a JSON value that is seldom expected."""
    values: tuple[object, ...] = (
        None, True, False, 0, -1, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e308, -1e308, 1e-320,
        float("nan"), float("inf"), "", "x", "\ud800", "\udce9", "\x1b[2J", "9" * 5000, "a" * 5000,
        [], {}, "six", "NaN", "../../x", "\0",
    )  # fmt: skip
    kind = rng.randrange(12)
    if kind == 0 and depth < 3:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 1 and depth < 3:
        return {str(odd_value(rng, 9))[:20]: odd_value(rng, depth + 1) for _ in range(3)}
    return rng.choice(values)


def odd_record(rng: random.Random, record: object) -> object:
    """Change one or two values somewhere in a JSON value."""
    if isinstance(record, dict) and record and rng.random() < 0.9:
        changed = dict(record)
        key = rng.choice(list(changed))
        if rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = odd_record(rng, changed[key])
        return changed
    if isinstance(record, list) and record and rng.random() < 0.7:
        items = list(record)
        place = rng.randrange(len(items))
        items[place] = odd_record(rng, items[place])
        return items
    return odd_value(rng)


def main() -> int:
    """Run a reader's cases and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1]))  # of small_recipes
    found = fuzz(asked.reader, asked.cases, seed=asked.seed, first=asked.first)
    print(  # noqa: T201
        f"{asked.reader}: {found.cases:,} cases, {found.refused:,} refused, "
        f"{len(found.faults)} faults, {found.memory:.2f} GB, {found.seconds:.0f} s"
    )
    print("\n".join(found.faults[:50]))  # noqa: T201
    return bool(found.faults)


if __name__ == "__main__":
    sys.exit(main())
