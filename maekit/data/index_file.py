"""The index of a large set in one file of a machine, which all of its processes read and none has.

Names of files, labels and other numbers of each sample would else be in the memory of every rank,
and be sent to every worker. The file lies in the user's cache, called by a digest of what it holds
or was made of: a set that is opened again finds it. Where it cannot be written, all stays in
memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from maekit.atomic import write_atomically
from maekit.data.files import cache_folder
from maekit.progress import counted
from maekit.stop import check

VERSION = 1  # raise it with every change of how lists are read
LARGE = 2**20  # bytes: what is smaller stays in memory
_UNUSED = 30 * 86400.0  # seconds after which an index that nobody opened is removed
_MAGIC = b"maekit-index-1\n"
_CHUNK = 2**24
_ALIGNED = 64


class ArrayFile:
    """Arrays in one file; another process is sent the file's path.

    Args:
        path: a file that ``write`` wrote.

    Attributes:
        plain: what was kept beside the arrays.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if file.readline() != _MAGIC:
                raise ValueError(f"{path} is no index")
            header = json.loads(file.readline())
        self._arrays: dict[str, dict[str, Any]] = header["arrays"]
        self.plain: dict[str, Any] = header["plain"]
        if path.stat().st_size != header["size"]:
            raise ValueError(f"{path} is damaged")
        self._file: int | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __len__(self) -> int:
        return len(self._arrays)

    def array(self, name: str) -> np.ndarray:
        """Map an array, read-only: processes share its pages."""
        about = self._arrays[name]
        shape = tuple(about["shape"])
        return np.asarray(np.memmap(self.path, about["dtype"], "r", about["offset"], shape))

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Read a part of an array of one axis: nothing of it stays in memory, unlike mapped pages.

        Raises:
            OSError: it cannot be read.
        """
        about = self._arrays[name]
        kind = np.dtype(about["dtype"])
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        count, first = (stop - start) * kind.itemsize, about["offset"] + start * kind.itemsize
        if hasattr(os, "pread"):
            data = os.pread(self._file, count, first)
        else:  # Windows
            os.lseek(self._file, first, os.SEEK_SET)
            data = os.read(self._file, count)
        if len(data) != count:
            raise OSError(errno.EIO, "the index of a data set has changed", str(self.path))
        return np.frombuffer(data, kind)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            with suppress(OSError):
                os.close(self._file)  # type: ignore[arg-type]


def recall(key: str) -> ArrayFile | None:
    """Return the index of this digest, if there is one, whole."""
    path = _folder() / f"{key}.idx"
    try:
        found = ArrayFile(path)
        os.utime(path)
    except (OSError, RuntimeError, ValueError, KeyError):
        return None
    return found


def keep(key: str, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> ArrayFile | None:
    """Write an index; None where that is not possible, so that the arrays stay in memory."""
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unused(folder)
        path = folder / f"{key}.idx"
        write_atomically(path, lambda draft: _write(draft, arrays, plain))
        return ArrayFile(path)
    except (OSError, RuntimeError, ValueError):
        return None


def _write(draft: Path, arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> None:
    about: dict[str, dict[str, Any]] = {}
    place = 2**16
    while True:  # until the header fits before the first array
        about, end = _laid_out(arrays, place)
        header = json.dumps({"arrays": about, "plain": dict(plain), "size": end}).encode()
        if len(_MAGIC) + len(header) + 1 <= place:
            break
        place *= 2
    with draft.open("wb") as file:
        file.write(_MAGIC + header + b"\n")
        for name, array in arrays.items():
            file.seek(about[name]["offset"])
            flat = np.ascontiguousarray(array).data.cast("B")
            for first in range(0, len(flat), _CHUNK):
                file.write(flat[first : first + _CHUNK])
        file.truncate(end)


def _laid_out(
    arrays: Mapping[str, np.ndarray], place: int
) -> tuple[dict[str, dict[str, Any]], int]:
    about = {}
    for name, array in arrays.items():
        about[name] = {"dtype": array.dtype.str, "shape": array.shape, "offset": place}
        place += -(-array.nbytes // _ALIGNED) * _ALIGNED
    return about, place


def _remove_unused(folder: Path) -> None:
    for path in folder.glob("*.idx"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED:
                path.unlink()


def _folder() -> Path:
    return cache_folder() / "indices"


def key_of_file(path: Path, *about: object) -> str | None:
    """Return a digest of a file's content and of what else an index of it depends on.

    None for a file whose index stays in memory, as it is small.

    Raises:
        OSError: it cannot be read.
        Interrupted: a signal has come.
    """
    size = path.stat().st_size
    if size < LARGE:
        return None
    found = hashlib.sha256(repr((VERSION, *about)).encode())
    with path.open("rb") as file, counted(f"looking at {path.name}", size, "bytes") as count:
        done = 0
        while chunk := file.read(_CHUNK):
            check()
            found.update(chunk)
            done += len(chunk)
            count(done)
    return found.hexdigest()


def key_of_arrays(arrays: Mapping[str, np.ndarray], plain: Mapping[str, Any]) -> str:
    """Return a digest of what an index holds."""
    found = hashlib.sha256(json.dumps(dict(plain), sort_keys=True).encode())
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data.cast("B"))
    return found.hexdigest()


class Indexed:
    """Base of what has large arrays as attributes, which may lie in an ``ArrayFile``.

    Its pickle has the path of the file in place of them.
    """

    _index: ArrayFile | None = None
    _in_index: tuple[str, ...] = ()  # attributes that are mapped from it

    def _keep_arrays(
        self, names: tuple[str, ...], key: str | None = None, **more: np.ndarray
    ) -> ArrayFile | None:
        """Move attributes that are arrays into a file, if they are large.

        Args:
            names: of the attributes; those that are None stay so.
            key: of the file; default: the digest of what it holds.
            more: further arrays that go into it.
        """
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        arrays = {**own, **more}
        if sum(array.nbytes for array in arrays.values()) < LARGE:
            return None
        plain = self._beside_arrays()
        key = key or key_of_arrays(arrays, plain)
        made = recall(key) or keep(key, arrays, plain)
        if made is not None:
            self._map(made, tuple(own))
        return made

    def _beside_arrays(self) -> dict[str, Any]:
        """Return what else of this object the file is to hold; plain data."""
        return {}

    def _map(self, index: ArrayFile, names: tuple[str, ...]) -> None:
        self._index, self._in_index = index, names
        for name in names:
            setattr(self, name, index.array(name))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._in_index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._index is not None:
            self._map(self._index, self._in_index)
