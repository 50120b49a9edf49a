"""Write files and folders so that a reader, or a crash, sees the old or the new, never half.

Everything is drafted next to its place under a name that starts with ``PARTIAL``, flushed to the
disk, and then renamed. ``sweep`` removes the drafts that killed processes left.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

PARTIAL = ".partial-"
# What file systems answer that cannot flush: what is written there is as durable as it gets.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# ... and where a folder cannot be opened, or only not for that.
_NO_FOLDER_SYNC = _NO_SYNC | {errno.EACCES, errno.EBADF, errno.EISDIR, errno.EPERM}

T = TypeVar("T")


def write_atomically(path: Path, write: Callable[[Path], T]) -> T:
    """Write a file under a temporary name in the same folder, flush it, and rename it.

    Args:
        path: where the file appears; what was there is replaced.
        write: writes the file at the path that it is given, where an empty file already is.

    Returns:
        What ``write`` returns.

    Raises:
        OSError: the disk is full or not writable; ``path`` is then untouched. Whatever ``write``
            raises is passed on, likewise.
    """
    draft = _draft_of(path)
    try:
        draft.touch(exist_ok=False)
        mode = draft.stat().st_mode
        result = write(draft)
        if draft.stat().st_mode != mode:
            # Some writers (safetensors) replace the file by one that only its owner may read.
            with suppress(OSError):  # a file system without modes: nothing is lost
                draft.chmod(mode)
        _sync_file(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return result


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically."""
    write_atomically(path, lambda draft: draft.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, as UTF-8 and with the line ends that ``text`` has."""
    write_bytes(path, text.encode())


def make_folder_atomically(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder under a temporary name next to its place, flush its files, and rename it.

    Args:
        path: where the folder appears; its parents are made.
        fill: fills the empty folder that it is given.

    Raises:
        OSError: the disk is full or not writable, or a folder with files in it is at ``path``; that
            one is untouched. Whatever ``fill`` raises is passed on, likewise.
    """
    draft = _draft_of(path)
    try:
        draft.mkdir(parents=True)
        fill(draft)
        for inner in draft.rglob("*"):
            if inner.is_dir():
                _sync_folder(inner)
            else:
                _sync_file(inner)
        _sync_folder(draft)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, or whatever is in its place; a crash leaves it whole, or a draft.

    Raises:
        OSError: it cannot be renamed. What then cannot be removed stays as a draft, for ``sweep``.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    draft = _draft_of(path)
    path.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)


def sweep(folder: Path, name: str = "*", *, older_than: float = 0.0) -> None:
    """Remove the drafts in a folder that were left by processes that were killed.

    Args:
        folder: where to look; its subfolders are left alone.
        name: pattern of the file's or folder's own name.
        older_than: seconds; a draft that was changed since may still be written.
    """
    for draft in folder.glob(f"{PARTIAL}{name}"):
        try:
            age = time.time() - draft.stat().st_mtime
        except FileNotFoundError:  # its process has just finished
            continue
        if age < older_than:
            continue
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _draft_of(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{path.name}-{secrets.token_hex(6)}")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file, _unless(_NO_SYNC):
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where the system can (POSIX, not every FUSE or SMB)."""
    if os.name != "posix":
        return
    with _unless(_NO_FOLDER_SYNC):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _unless(numbers: Collection[int]) -> Iterator[None]:
    """Go on where the system answers with one of these numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
