"""Files as datasets name them: regular files on this machine, or URLs that fsspec opens."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from maekit.errors import DataError

_NO_NAMES = {errno.ELOOP, errno.ENAMETOOLONG}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOCAL = frozenset({"file", "local"})
# What an address may be of: this machine, archives, web servers and object stores.
SCHEMES = (
    _LOCAL
    | {"memory", "tar", "zip", "http", "https"}
    | {"abfs", "abfss", "adl", "az", "gcs", "gs", "hdfs", "oci", "r2", "s3", "s3a"}
)
MOST_BYTES = 768 << 20  # of a picture's file, which is read whole; also of its pixels
MOST_CLIP_BYTES = 2 << 30  # of the frames of one sample, and of a video that is read whole


def is_url(path: str) -> bool:
    """Return whether a path is ``scheme://...``, which fsspec opens."""
    return _URL.match(path) is not None


def is_name(text: str) -> bool:
    """Return whether text can be a name on this machine: what JSON may hold need not be."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def check_regular(path: str) -> tuple[int, int]:
    """Return size in bytes and time of change of a regular file that is not empty.

    It is not opened: to open a named pipe would be to wait for someone to write.

    Raises:
        DataError: it is missing, empty, or something else than a regular file.
        OSError: the system cannot tell.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - for each sample: a Path takes thrice the time
    except FileNotFoundError as error:
        linked = Path(path).is_symlink()
        what = "is a link to a file that does not exist" if linked else "does not exist"
        raise DataError(what, where=path) from error
    except OSError as error:
        if error.errno not in _NO_NAMES:
            raise
        what = f"cannot be a file's name: {error.strerror}"
        raise DataError(what, where=path) from error
    if not stat.S_ISREG(status.st_mode):
        what = "is not a regular file"
        raise DataError(what, where=path)
    if status.st_size == 0:
        raise DataError(_EMPTY, where=path)
    return status.st_size, status.st_mtime_ns


def read_bytes(path: str, *, most: int = MOST_BYTES) -> bytes:
    """Read a regular file or an fsspec URL.

    Args:
        path: a file, or an address of one of SCHEMES.
        most: bytes; a larger file is not read.

    Raises:
        DataError: it is missing, empty, too large, or something else than a regular file; or its
            address is of a kind that is not opened.
        OSError: the system cannot read it.
    """
    check_scheme(path)
    local = local_path(path)
    if local is None:
        data = _read_url(path, most)
    else:
        check_regular(local)
        with open(local, "rb") as file:  # noqa: PTH123 - likewise
            size = os.fstat(file.fileno()).st_size
            _check_size(size, most, path)
            data = file.read(size + 1)  # a read of ``most`` would take that much memory first
            if len(data) > size:  # it has grown
                data += file.read(most)
            _check_size(len(data), most, path)
    if not data:
        raise DataError(_EMPTY, where=path)
    return data


_EMPTY = "is empty (0 bytes)"


def local_path(path: str) -> str | None:
    """Return the path on this machine that a path or URL means; None where it means none."""
    scheme, _, rest = path.partition("://")
    if not is_url(path):
        return path
    return rest if scheme.lower() in _LOCAL else None


def check_scheme(path: str) -> None:
    """Raise DataError where a path is a URL of a kind that is not opened.

    A list may come from anywhere: it opens no connection that a reader of it would not expect.
    """
    if not is_url(path):
        return
    schemes = [each.partition("://")[0].lower() for each in path.split("::") if is_url(each)]
    if schemes[0] in _LOCAL:  # a file's name may hold "::"
        return
    strange = [scheme for scheme in schemes if scheme not in SCHEMES]
    if strange:
        what = f"{strange[0]}:// addresses are not opened"
        hint = f"copy the file to this machine; opened are {', '.join(sorted(SCHEMES))}"
        raise DataError(what, where=path, hint=hint)


def _check_size(size: int, most: int, path: str) -> None:
    if size > most:
        what = f"has {size:,} bytes, more than the limit of {most:,}"
        raise DataError(what, where=path, hint="cut it into smaller files")


def _read_url(path: str, most: int) -> bytes:
    archive = local_path(path.rpartition("::")[2])
    if archive is not None:
        check_regular(archive)
    try:
        import fsspec  # type: ignore[import-untyped]

        with fsspec.open(path, "rb") as file:
            data: bytes = file.read(most + 1)
    except Exception as error:  # each file system has its own errors, and may lack its package
        what = f"cannot be read: {type(error).__name__}: {error}"
        raise DataError(what, where=path) from error
    _check_size(len(data), most, path)
    return data


def cache_folder() -> Path:
    """Return ``maekit`` in XDG_CACHE_HOME, or in ~/.cache; it is not created."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification).
    base = base if base.is_absolute() else Path("~/.cache").expanduser()
    return base / "maekit"
