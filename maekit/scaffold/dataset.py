"""``my-part``: a folder of numpy's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from maekit.contracts import DataError, Dataset, PartOptions, Source, SourceInfo


class MyPart(Dataset):
    """Reads every ``.npy`` file of a folder, uint8, uint16 or float32 ``[T, H, W, C]``."""

    class Options(PartOptions):
        """Options of ``my-part``."""

        path: Path = Field(description="a folder of .npy files, each [T, H, W, C]")

    def __init__(self, options: Options) -> None:
        self.files = sorted(str(file) for file in options.path.glob("*.npy"))
        if not self.files:
            what = f"no .npy files in {options.path}"
            raise DataError(what, hint="np.save(file, array), one for each sample")

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Return the file."""
        return self.files[index]

    def open(self, index: int) -> Source:
        """Read the header; pixels are read when they are asked for."""
        file = self.name(index)
        try:
            array = np.load(file, mmap_mode="r")
        except ValueError as error:
            raise DataError(f"is no .npy file: {error}", where=file) from error
        if array.ndim != 4:
            raise DataError(f"has the shape {array.shape}, not [T, H, W, C]", where=file)
        frames, height, width, channels = array.shape

        def read(frame_ids: Sequence[int]) -> np.ndarray:
            return np.array(array[list(frame_ids)])

        return Source(
            SourceInfo(file, height, width, channels, str(array.dtype), frames, label=None), read
        )
