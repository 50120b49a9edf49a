"""One process at a time in a folder: a lock that goes with the process, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from maekit.errors import StorageError

LOCK = "lock"  # the file's name
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
# The system keeps locks by process: what this one holds, its other threads would get as well.
_held: set[Path] = set()
_guard = threading.Lock()


@contextmanager
def held_lock(path: Path, *, locks: bool = True) -> Iterator[None]:
    """Hold a lock while the context lasts.

    Args:
        path: the file that is locked; it is made, and stays: removing one that others may have
            opened would let two of them in.
        locks: False: only other threads of this process are kept out.

    Raises:
        StorageError: someone else holds it, it cannot be written, or the file system has no locks.
    """
    name = path.absolute()
    with _guard:
        if name in _held:
            raise _in_use(path, "this process")
        _held.add(name)
    try:
        file = _locked(path) if locks else None
        try:
            yield
        finally:
            if file is not None:
                file.close()
    finally:
        _held.discard(name)


def in_use(path: Path) -> bool:
    """Return whether anyone holds this lock now, without taking it.

    A file system without locks holds none.
    """
    if path.absolute() in _held:  # asking the system about a lock of this process would free it
        return True
    if not path.is_file():  # to open a named pipe would be to wait
        return False
    try:
        file = path.open("r+" if sys.platform == "win32" else "r", encoding="utf-8")
    except OSError:
        return False
    with file:
        try:
            _lock(file, shared=True)
        except OSError as error:
            return error.errno in _TAKEN
    return False


def _locked(path: Path) -> IO[str]:
    made = not path.exists()
    if not made and not path.is_file():
        raise StorageError(
            "this is not a file", where=str(path), hint="remove it, or another --out"
        )
    try:
        file = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        msg = f"cannot write here: {error}"
        raise StorageError(msg, where=str(path.parent), hint="choose another --out") from error
    try:
        _lock(file)
    except OSError as error:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        file.close()
        if error.errno in _TAKEN:
            raise _in_use(path, holder) from error
        if made:  # the same call with --no-lock finds the folder as it was
            path.unlink(missing_ok=True)
        msg = f"this file system has no locks ({error.strerror})"
        hint = "--no-lock, if no other process writes into this folder"
        raise StorageError(msg, where=str(path.parent), hint=hint) from error
    file.truncate(0)
    file.write(f"{socket.gethostname()} pid {os.getpid()}\n")
    file.flush()
    return file


def _in_use(path: Path, holder: str) -> StorageError:
    msg = f"this run is in use by {holder}"
    return StorageError(msg, where=str(path.parent), hint="wait for it, or stop it")


def _lock(file: IO[str], *, shared: bool = False) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
