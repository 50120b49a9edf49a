"""A command's processes, found in /proc: who they are, what memory they have, who is left."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

SHARED = "/dev/shm/"


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


def shared_files(processes: list[int]) -> set[str]:
    """Return the files of shared memory that processes have mapped or open."""
    found = set()
    for each in processes:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/maps").read_text().splitlines():
                found.add(line.partition(SHARED)[2].strip())
        with contextlib.suppress(OSError):
            for opened in Path(f"/proc/{each}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(str(opened.readlink()).partition(SHARED)[2].strip())
    return {f"{SHARED}{name}" for name in found if name}


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whoever adopts it may not have looked yet


def nobody_is_left(processes: list[int], shared: set[str]) -> None:
    """Check that all processes of a command end soon, and that nothing of theirs stays."""
    until = time.monotonic() + 60
    while left := [each for each in processes if lives(each)]:
        words = [Path(f"/proc/{each}/cmdline").read_bytes() for each in left if lives(each)]
        assert time.monotonic() < until, words
        time.sleep(0.05)
    assert not [name for name in shared if Path(name).exists()]
