"""Files as datasets name them: regular files on this machine, or URLs that fsspec opens."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from maekit.errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(path: str) -> bool:
    """Return whether a path is ``scheme://...``, which fsspec opens."""
    return _URL.match(path) is not None


def check_regular(path: str) -> tuple[int, int]:
    """Return size in bytes and time of change of a regular file that is not empty.

    It is not opened: to open a named pipe would be to wait for someone to write.

    Raises:
        DataError: it is missing, empty, or something else than a regular file.
        OSError: the system cannot tell.
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        linked = Path(path).is_symlink()
        what = "is a link to a file that does not exist" if linked else "does not exist"
        raise DataError(what, where=path) from error
    if not stat.S_ISREG(status.st_mode):
        what = "is not a regular file"
        raise DataError(what, where=path)
    if status.st_size == 0:
        raise DataError(_EMPTY, where=path)
    return status.st_size, status.st_mtime_ns


def read_bytes(path: str) -> bytes:
    """Read a regular file or an fsspec URL.

    Raises:
        DataError: it is missing, empty, or something else than a regular file.
        OSError: the system cannot read it.
    """
    if is_url(path):
        data = _read_url(path)
    else:
        check_regular(path)
        data = Path(path).read_bytes()
    if not data:
        raise DataError(_EMPTY, where=path)
    return data


_EMPTY = "is empty (0 bytes)"


def _read_url(path: str) -> bytes:
    try:
        import fsspec  # type: ignore[import-untyped]

        with fsspec.open(path, "rb") as file:
            data: bytes = file.read()
    except Exception as error:  # each file system has its own errors, and may lack its package
        what = f"cannot be read: {type(error).__name__}: {error}"
        raise DataError(what, where=path) from error
    return data


def cache_folder() -> Path:
    """Return ``maekit`` in XDG_CACHE_HOME, or in ~/.cache; it is not created."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification).
    base = base if base.is_absolute() else Path("~/.cache").expanduser()
    return base / "maekit"
