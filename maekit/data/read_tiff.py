"""TIFFs beyond Pillow: any number of channels, 16-bit color, float color. Needs tifffile."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from maekit.data.read_image import Header, known_dtype, oriented, valid_orientation
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

_ORIENTATION = 274
# What tifffile logs of a broken file, the file's own error says.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def open_tiff(data: bytes, name: str) -> tuple[Header, Callable[[], np.ndarray]]:
    """Read the header of the first page; its channels may be interleaved or in planes.

    Raises:
        DataError: the page is not a picture of [H, W] or of channels.
        Exception: whatever tifffile meets in a broken file.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        axes, shape, dtype = page.axes, page.shape, page.dtype
        tag = page.tags.get(_ORIENTATION)
        complete = _complete(page, len(data))
    if axes not in ("YX", "YXS", "SYX") or dtype is None:
        what = f"has a page of axes {axes} and shape {shape}; read are YX, YXS and SYX"
        raise DataError(what, where=name)
    if not complete:
        what = "is truncated: some of its pixels lie behind the end of the file"
        raise DataError(what, where=name)
    if axes == "SYX":
        shape = (*shape[1:], shape[0])
    height, width, channels = (*shape, 1)[:3]
    depth = known_dtype(dtype, name)
    orientation = valid_orientation(tag.value if tag else None)

    def raw() -> np.ndarray:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pixels = file.pages.first.asarray()
        if axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        return np.asarray(pixels).astype(depth).reshape(height, width, channels)

    return Header(*oriented(height, width, orientation), channels, depth, "tiff", orientation), raw


def _complete(page: tifffile.TiffPage | tifffile.TiffFrame, size: int) -> bool:
    """Whether every strip or tile lies within the file; tifffile fills missing ones with zeros."""
    spans = zip(page.dataoffsets, page.databytecounts, strict=True)
    return all(count > 0 and offset + count <= size for offset, count in spans)
