"""JPEGs decoded straight into an array, by libjpeg-turbo without the copies that Pillow makes.

Whatever is not quite in order (a warning of the decoder, four colors, no package) is left to
Pillow, which decides what it is. What is decoded here equals Pillow's pixels, bit for bit, as both
take the exact transform and the smooth upsampling; a test holds them to it.
"""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maekit.data.quick_resize import resizer

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = b"\xff\xd8\xff"
_COLORS = {1: "GRAY", 3: "RGB"}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
# What may stand before a frame's header and change nothing in a picture: JFIF and other programs'
# notes, color profiles, Adobe's and Photoshop's, tables, comments. Not EXIF, which may turn it,
# nor a list of further pictures.
_PLAIN = frozenset({*range(0xE0, 0xF0), 0xDB, 0xC4, 0xDD, 0xFE})
_TELLING = ((0xE1, b"Exif"), (0xE2, b"MPF"))
_XMP, _TURNS = 0xE1, b"tiff:Orientation"  # XMP may turn a picture, too, which Pillow follows


class Size(NamedTuple):
    """What a JPEG's header says."""

    height: int
    width: int
    channels: int  # 1 or 3


def plain_size(data: bytes) -> Size | None:
    """Return the size of a JPEG that is only that: 8 bits, gray or color, upright, one picture.

    Returns:
        None where anything else may be the case, or the header is broken: Pillow has to look.
    """
    if _decoder() is None:
        return None
    place, end = 2, len(data) - 10
    while place < end:
        kind, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if data[place] != 0xFF or length < 2:
            return None
        if kind in _FRAMES:
            height = data[place + 5] << 8 | data[place + 6]
            width = data[place + 7] << 8 | data[place + 8]
            known = data[place + 4] == 8 and data[place + 9] in _COLORS and height and width
            return Size(height, width, data[place + 9]) if known else None
        telling = any(kind == at and data.startswith(what, place + 4) for at, what in _TELLING)
        telling |= kind == _XMP and data.find(_TURNS, place, place + 2 + length) >= 0
        if kind not in _PLAIN or telling:
            return None
        place += 2 + length
    return None


def decode(data: bytes, height: int, width: int, channels: int) -> np.ndarray | None:
    """Decode a picture, uint8 ``[height, width, channels]``, as it lies in the file.

    Returns:
        None where Pillow has to look at it: damage, other colors, another size than its header's.
    """
    found, color = _decoder(), _COLORS.get(channels)
    if found is None or color is None:
        return None
    try:
        pixels: np.ndarray = found(data, color, fastdct=False, fastupsample=False, strict=True)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels if pixels.shape == (height, width, channels) else None


@functools.cache
def _decoder() -> Callable[..., Any] | None:
    try:
        from simplejpeg import decode_jpeg  # type: ignore[import-untyped]
    except ImportError:  # no wheel for this machine: Pillow takes its place
        return None
    found: Callable[..., Any] = decode_jpeg
    return found


def decoders() -> dict[str, str]:
    """Name what makes pixels of files on this machine, and its version."""
    pillow = f"Pillow {version('pillow')}"
    quick = None if _decoder() is None else f"simplejpeg {version('simplejpeg')}"
    return {
        "JPEGs": quick or pillow,
        "other pictures": pillow,
        "videos": f"PyAV {version('av')}",
        "crops": resizer(),
    }
