"""Rows of arrays in HDF5 files: which there are, how they are named, their labels.

A row is one index of the first axis of an array. Files are opened in the process that reads them
and stay open there; a pickled copy has none open.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from pydantic import Field

from maekit.contracts import DataError, Dataset, PartOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".h5", ".hdf5", ".he5", ".hdf")
_MOST_OPEN = 32  # files at a time


class RowsOptions(PartOptions):
    """Where the rows are, and their labels."""

    path: Path = Field(description="an HDF5 file, or a folder of them, at any depth")
    key: str = Field("data", min_length=1, description="the array in each file, as `group/data`")
    labels: str | None = Field(
        None,
        description="an array of one whole number (or text) a row, in the same files; unset: none",
    )


class Rows(Dataset):
    """Rows of one array in each of the files, in the order of the files' names.

    Raises:
        DataError: there are no files, or one has no such array, or arrays do not fit each other.
    """

    def __init__(self, options: RowsOptions, axes: int) -> None:
        self._key = options.key
        path = Path(os.path.expanduser(options.path))  # noqa: PTH111 - pathlib raises on no user
        self._files = [str(file) for file in _files(path)]
        self._open: dict[str, h5py.File] = {}
        self._process = os.getpid()
        starts, labels = [0], []
        for file in self._files:
            array = self._array(file, options.key)
            if array.ndim != axes:
                what = f"'{options.key}' has {array.ndim} axes {array.shape}, and {axes} are read"
                raise DataError(what, where=file, hint="set layout to the array's axes")
            starts.append(starts[-1] + len(array))
            if options.labels is not None:
                labels.append(self._labels(file, options.labels, len(array)))
        self._starts = starts
        if not len(self):
            raise DataError(f"'{options.key}' has no rows", where=str(path), hint="check the key")
        if labels:
            names, numbers = np.unique(np.concatenate(labels), return_inverse=True)
            self.classes = [str(name) for name in names]
            self.labels = numbers.astype(np.int64)

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, index: int) -> str:
        """Return the file and the row."""
        file, row = self._place(index)
        return f"{file}#{row}"

    def sources(self, by: str) -> list[str]:
        """Return where rows come from: ``file`` keeps the rows of a file together."""
        if by == "file":
            return [self._place(index)[0] for index in range(len(self))]
        return list(super().sources(by))

    @classmethod
    def reads(cls, path: str) -> bool:
        """Return whether this is an HDF5 file, or a folder that holds some."""
        return next(_found(Path(path)), None) is not None

    def row(self, index: int) -> tuple[h5py.Dataset, int, str]:
        """Return the array, the row in it, and the sample's name."""
        file, row = self._place(index)
        return self._array(file, self._key), row, f"{file}#{row}"

    def label_of(self, index: int) -> int | None:
        """Return a row's label."""
        return None if self.labels is None else int(self.labels[index])  # type: ignore[arg-type]

    def _place(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            msg = f"row {index} of {len(self)}"
            raise IndexError(msg)
        file = bisect_right(self._starts, index) - 1
        return self._files[file], index - self._starts[file]

    def _labels(self, file: str, key: str, rows: int) -> np.ndarray:
        array = self._array(file, key)
        if array.shape != (rows,):
            what = f"labels '{key}' have the shape {array.shape}, and there are {rows} rows"
            raise DataError(what, where=file, hint="one label a row")
        values: np.ndarray
        if h5py.check_string_dtype(array.dtype) is not None:
            try:
                values = array.asstr("utf-8")[:]
            except UnicodeDecodeError as error:
                what = f"labels '{key}' are no UTF-8: {error}"
                raise DataError(what, where=file, hint="write them as UTF-8, or numbers") from error
            return values.astype(str)
        values = array[:]
        if values.dtype.kind not in "iu":
            what = f"labels '{key}' are {values.dtype}"
            raise DataError(what, where=file, hint="give whole numbers, or text")
        return values

    def _array(self, path: str, key: str) -> h5py.Dataset:
        found = self._handle(path).get(key)
        if isinstance(found, h5py.Dataset):
            return found
        there: list[str] = []
        self._handle(path).visititems(
            lambda name, item: there.append(name) if isinstance(item, h5py.Dataset) else None
        )
        names = ", ".join(there[:20]) or "none"
        raise DataError(f"there is no array '{key}'", where=path, hint=f"it has {names}")

    def _handle(self, path: str) -> h5py.File:
        """Return an open file; handles of a parent process are not used after a fork."""
        if self._process != os.getpid():
            self._open, self._process = {}, os.getpid()
        if path not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            try:
                self._open[path] = h5py.File(path, "r")
            except OSError as error:
                hint = "copy it again; h5ls shows what a whole file holds"
                raise DataError(
                    f"cannot be read as HDF5: {error}", where=path, hint=hint
                ) from error
        return self._open[path]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), hint="check the path")
    found = sorted(_found(path))
    if not found:
        what = f"no HDF5 files; looked for {' '.join(SUFFIXES)}"
        raise DataError(what, where=str(path), hint="a file, or a folder of them")
    return found


def _found(path: Path) -> Iterator[Path]:
    """Yield the HDF5 files below a path; hidden ones are skipped."""
    if path.is_file():
        if path.suffix.lower() in SUFFIXES and h5py.is_hdf5(path):
            yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(folder, name)
