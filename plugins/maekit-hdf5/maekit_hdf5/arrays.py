"""Data set ``hdf5``: pictures, stacks and clips of any number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
from pydantic import Field, field_validator

from maekit.contracts import DataError, Source, SourceInfo
from maekit_hdf5.rows import Rows, RowsOptions

_AXES = "NTHWC"
_PLAIN = ("uint8", "uint16", "float32")  # as the contract has them


class Arrays(Rows):
    """Rows of an array with the axes of ``layout``: N samples, T frames, H, W, C channels.

    uint8, uint16 and float32 are given as they are; other floats and whole numbers as float32.
    """

    class Options(RowsOptions):
        layout: str = Field(
            "NHWC",
            description="the array's axes in their order: N (first), H and W, and where there are "
            "such, T frames (or slices of a stack) and C channels",
        )
        fps: float | None = Field(None, gt=0, description="frames a second, of arrays with T")

        @field_validator("layout")
        @classmethod
        def _known_axes(cls, layout: str) -> str:
            letters = layout.upper()
            if len(set(letters)) != len(letters) or not {"N", "H", "W"} <= set(letters):
                raise ValueError("needs each of N, H and W once, T and C at most once")
            if not set(letters) <= set(_AXES) or letters[0] != "N":
                raise ValueError(f"takes the letters {_AXES}, N first")
            return letters

    def __init__(self, options: Options) -> None:
        self._layout = options.layout
        self._fps = options.fps
        super().__init__(options, len(options.layout))

    def open(self, index: int) -> Source:
        """Look at a row; raises DataError that names it."""
        array, _, name = self.row(index)
        sizes = dict(zip(self._layout, array.shape, strict=True))
        if array.dtype.kind not in "uif":
            hint = "write it as uint8, uint16 or float32"
            raise DataError(f"{array.dtype} are no pixels", where=name, hint=hint)
        frames = sizes.get("T", 1)
        info = SourceInfo(
            id=name,
            height=sizes["H"],
            width=sizes["W"],
            channels=sizes.get("C", 1),
            dtype=str(array.dtype) if str(array.dtype) in _PLAIN else "float32",
            frames=frames,
            fps=self._fps if "T" in sizes else None,
            label=self.label_of(index),
        )

        def read(frame_ids: Sequence[int]) -> np.ndarray:
            return self._read(index, frame_ids, info.dtype)

        return Source(info, read)

    def _read(self, index: int, frame_ids: Sequence[int], dtype: str) -> np.ndarray:
        """Return frames ``[T, H, W, C]`` in the order of their ids; only these are read."""
        array, row, _ = self.row(index)
        axes = self._layout[1:]
        ids = np.asarray(frame_ids, dtype=np.int64)
        if "T" in axes:
            # HDF5 takes increasing indices only, each once.
            wanted, where = np.unique(ids, return_inverse=True)
            value = _slice(array, row, axes.index("T"), wanted)
        else:
            where, value = ids, _slice(array, row, None, None)
        order = [axes.index(axis) for axis in "THWC" if axis in axes]
        value = value.transpose(order)
        if "T" not in axes:
            value = value[None]
        if "C" not in axes:
            value = value[..., None]
        return np.ascontiguousarray(value[where], dtype=dtype)


def _slice(
    array: h5py.Dataset, row: int, axis: int | None, wanted: np.ndarray | None
) -> np.ndarray:
    """Read a row, of which along one axis only what is wanted."""
    if axis is None or wanted is None:
        whole: np.ndarray = array[row]
        return whole
    index = (row, *(slice(None) for _ in range(axis)), wanted)
    part: np.ndarray = array[index]
    return part
