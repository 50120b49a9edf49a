"""What a picture's header says: size, channels, depth, orientation; and what no picture may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from maekit.data.files import MOST_BYTES
from maekit.errors import DataError

_MIRRORED_OR_TURNED = range(2, 9)
_SIDEWAYS = range(5, 9)


@dataclass(frozen=True)
class Header:
    """Facts of a picture before it is decoded; height and width are upright."""

    height: int
    width: int
    channels: int
    dtype: str  # "uint8", "uint16" or "float32"
    mode: str  # Pillow's mode, "tiff" or "npy"
    orientation: int = 1  # EXIF, 1 to 8
    stored: str = ""  # the dtype in the file, where it is another one
    further: int = 0  # pages or frames behind the first


def check_pixels(shape: tuple[int, ...], dtype: str, name: str, *, most: int = MOST_BYTES) -> None:
    """Raise DataError where an array would take more memory than any picture may.

    A small file may hold a large array of zeros, and a lying header any.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > most:
        of = " x ".join(map(str, shape))
        what = f"has {of} values of {dtype}, {size:,} bytes, more than the limit of {most:,}"
        raise DataError(what, where=name, hint="cut it into smaller ones, or reduce it")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8: ``[H, W, C]`` to ``[H, W, C]`` or ``[W, H, C]``."""
    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def oriented(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return height and width once upright."""
    return (width, height) if orientation in _SIDEWAYS else (height, width)


def valid_orientation(value: object) -> int:
    """Return an EXIF orientation, or 1 where the value is none."""
    return value if isinstance(value, int) and value in _MIRRORED_OR_TURNED else 1


def known_dtype(dtype: np.dtype[np.generic], name: str) -> str:
    """Return the depth at which an array is read; raise DataError where it holds no pixels.

    Black and white is 8-bit; integers that are signed, or wider than 16 bits, are float32 as they
    stand, as their range is not that of their type.
    """
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("=").name
    if dtype.kind in "fiu":
        return "float32"
    what = f"has pixels of type {dtype.name}"
    raise DataError(what, where=name, hint="save it as uint8, uint16 or float32")


def at_depth(pixels: np.ndarray, depth: str) -> np.ndarray:
    """Convert an array as it is stored to the depth at which it is read: False and True to 0, 255.

    float32 holds integers up to 2^24 exactly.
    """
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    return pixels.astype(depth, copy=False)
