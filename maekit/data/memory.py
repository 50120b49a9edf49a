"""Memory that processes share, and how much of it is left. Imports only the standard library."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import sys
import tempfile
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")  # version 2: the container's own
_CACHES = ("inactive_file", "active_file")  # of a container's memory, what can be given back


class Memory:
    """Anonymous memory that spawned processes share; it goes with the last of them.

    It has no name, so that nothing can be left behind, or be removed by others, and on Linux it
    does not come out of /dev/shm, of which containers have little. Pickled while a process is being
    started, it is the same memory there.

    Args:
        size: bytes.
        handle: of memory that another process made; None to make it.

    Raises:
        OSError: there is none left.
    """

    def __init__(self, size: int, handle: int | str | None = None) -> None:
        self.size = size
        self._handle: int | str
        if sys.platform == "win32":
            self._handle = str(handle or f"maekit-{secrets.token_hex(8)}")
            self.map = mmap.mmap(-1, size, tagname=self._handle)
            return
        self._handle = _new_file(size) if handle is None else int(handle)
        self.map = mmap.mmap(self._handle, size)

    def __reduce__(self) -> tuple[object, ...]:
        handle = self._handle if isinstance(self._handle, str) else DupFd(self._handle)
        return _attached, (self.size, handle)

    def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(BufferError):  # an array still looks at it, and holds it
            self.map.close()
        if isinstance(self._handle, int) and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _attached(size: int, handle: Any) -> Memory:  # noqa: ANN401 - DupFd's class is private
    return Memory(size, handle if isinstance(handle, str) else handle.detach())


def _new_file(size: int) -> int:
    """Return the descriptor of a file without a name: in memory on Linux, else on the disk."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("maekit-slots")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def free_memory() -> int | None:
    """Return the bytes that this machine, or this container, has left; None where nobody says."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        cache = sum(int(x.split()[1]) for x in stat if x.split()[0] in _CACHES)
        found.append(limit - used + cache)
    return max(0, min(found)) if found else None
