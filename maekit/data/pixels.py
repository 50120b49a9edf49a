"""Pixels as arrays: cutting and resizing, channels, ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from maekit.errors import DataError

if TYPE_CHECKING:
    from maekit.data.plan import Box

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# ITU-R 601-2 luma in 1/65536ths, the numbers of Pillow's convert("L").
_LUMA = (19595, 38470, 7471)
DTYPES = ("uint8", "uint16", "float32")


def cut(
    frame: np.ndarray,
    box: Box,
    size: tuple[int, int],
    edge: Literal["crop", "context"],
    interpolation: Literal["bicubic", "bilinear"],
) -> np.ndarray:
    """Cut ``box`` out of a frame and resize it with Pillow's antialiased filters.

    Args:
        frame: ``[H, W, C]`` uint8, uint16 or float32.
        box: within the frame.
        size: height and width of the result.
        edge: whether the filter may look over the box's edge, see ``Plan``.
        interpolation: the filter.

    Returns:
        ``[h, w, C]`` of the frame's dtype; uint16 is rounded and kept in range,
        float32 within what it had.
    """
    top, left, height, width = box
    if edge == "crop":
        rows, columns = round(top), round(left)
        frame = frame[rows : rows + round(height), columns : columns + round(width)]
        area = (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))
    else:
        right, bottom = min(left + width, frame.shape[1]), min(top + height, frame.shape[0])
        area = (left, top, right, bottom)
    # Pillow resizes 8-bit RGB at once; two and four channels it would take for alpha.
    if frame.dtype == np.uint8 and frame.shape[2] == 3:
        return _resize(frame, area, size, interpolation)
    planes = [_resize(frame[..., c], area, size, interpolation) for c in range(frame.shape[2])]
    return np.stack(planes, axis=-1)


def _resize(
    plane: np.ndarray,
    area: tuple[float, float, float, float],
    size: tuple[int, int],
    interpolation: Literal["bicubic", "bilinear"],
) -> np.ndarray:
    depth = plane.dtype
    if depth != np.uint8:
        plane = plane.astype(np.float32)
    image = Image.fromarray(np.ascontiguousarray(plane))
    resized: np.ndarray = np.asarray(
        image.resize((size[1], size[0]), _FILTERS[interpolation], box=area)
    )
    if depth == np.uint16:
        resized = np.clip(np.rint(resized), 0, 65535).astype(np.uint16)
    elif depth == np.float32 and interpolation == "bicubic":
        # Beside edges a bicubic curve leaves the range; integers are cut off at the ends of theirs.
        resized = resized.clip(np.fmin.reduce(plane, axis=None), np.fmax.reduce(plane, axis=None))
    return resized


def to_channels(pixels: np.ndarray, channels: int, where: str) -> np.ndarray:
    """``[..., C]`` to ``[..., channels]``: gray and color become each other, nothing else does.

    Raises:
        DataError: the counts differ otherwise.
    """
    have = pixels.shape[-1]
    if not convertible(have, channels):
        what = f"has {have} channel{'s' if have > 1 else ''}, data.channels is {channels}"
        raise DataError(what, where=where, hint=f"set data.channels to {have}")
    if have == channels:
        return pixels
    return np.repeat(pixels, 3, axis=-1) if have == 1 else _luma(pixels)


def convertible(have: int, channels: int) -> bool:
    """Whether ``to_channels`` makes the one of the other."""
    return have == channels or {have, channels} == {1, 3}


def _luma(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.float32:
        weights = np.array([[w / 65536] for w in _LUMA], dtype=np.float32)
        gray: np.ndarray = np.matmul(pixels, weights)
        return gray
    total: np.ndarray = np.matmul(
        pixels.astype(np.uint32), np.array([[w] for w in _LUMA], dtype=np.uint32)
    )
    rounded: np.ndarray = (total + 0x8000) >> 16
    return rounded.astype(pixels.dtype)


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """The common range, float32: uint8 / 255, uint16 / 65535, float as read."""
    if pixels.dtype == np.float32:
        return pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
