"""A command's processes, found in /proc: who they are, what memory they have, who is left."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

SHARED = Path("/dev/shm")


def family(parent: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(process.name))
    found = [parent]
    for each in found:
        found += children.get(each, [])
    return found


def memory(processes: list[int]) -> int:
    """Return bytes that processes have together, what they share counted once."""
    total = 0
    for each in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def shared_names() -> set[str]:
    """Return what is in shared memory under a name."""
    return {each.name for each in SHARED.iterdir()}


def _in_use() -> set[str]:
    """Return the names there that some process has mapped or open."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                lines = (process / "maps").read_text().splitlines()
                found |= {Path(line.split()[-1]).name for line in lines if str(SHARED) in line}
            with contextlib.suppress(OSError):
                for opened in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        found.add(opened.readlink().name)
    return found


def orphans(before: set[str]) -> set[str]:
    """Return the names in shared memory that are new, and that no process has: they are left."""
    found = shared_names() - before
    for _ in range(5):  # one may be new, and not yet mapped by whoever made it
        found = (found & shared_names()) - _in_use() if found else found
        if found:
            time.sleep(0.2)
    return found


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whoever adopts it may not have looked yet


def nobody_is_left(processes: list[int], before: set[str]) -> None:
    """Check that all processes of a command end soon, and that nothing of theirs stays.

    Args:
        processes: of the command.
        before: names in shared memory before it began.
    """
    until = time.monotonic() + 60
    while left := [each for each in processes if lives(each)]:
        words = [Path(f"/proc/{each}/cmdline").read_bytes() for each in left if lives(each)]
        assert time.monotonic() < until, words
        time.sleep(0.05)
    assert not orphans(before)
