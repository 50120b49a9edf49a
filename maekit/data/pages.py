"""How many pictures a file holds behind its first: pages of a TIFF, frames of an animation.

Counted from the file's own structure, without decoding a pixel. Smaller copies of a page (the
overviews of a GeoTIFF, the levels of a slide) and its masks are no pages of their own, and neither
are the depth maps and previews that telephones put behind a JPEG.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE = 254  # NewSubfileType; bit 0: a reduced copy, bit 2: a transparency mask
_COPY_OR_MASK = 0b101
_MOST = 1 << 16  # pages that are counted
_MOST_ENTRIES = 1 << 21  # of all of them


def further_pictures(data: bytes) -> int:
    """Count the pictures behind the first; 0 where the file is broken or of one picture.

    What is broken shows on reading the first one, or does not matter.
    """
    for mark, count in _COUNTS:
        if data.startswith(mark):
            try:
                return max(0, count(data) - 1)
            except (struct.error, IndexError, ValueError):
                return 0
    return 0


def _tiff(data: bytes) -> int:
    return len(tiff_pages(io.BytesIO(data)))


def tiff_pages(file: BinaryIO) -> list[int]:
    """Walk the chain of a TIFF's pages; return the places of those that are pictures of their own.

    The first one counts in any case. A chain that is broken ends there.
    """
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    large = b"+" in head[2:4]
    count, entry, link = ("Q", "HHQ8s", "Q") if large else ("H", "HHI4s", "I")
    pages, seen, place, left = [], set[int](), 0, _MOST_ENTRIES
    try:
        (at,) = struct.unpack_from(order + link, head, 8 if large else 4)
        while at and at not in seen and place < _MOST:
            seen.add(at)
            file.seek(at)
            (entries,) = _unpack(file, order + count)
            left -= entries
            if left < 0:
                break
            kinds = [_unpack(file, order + entry) for _ in range(entries)]
            if not place or not any(_repeats(kind, order) for kind in kinds):
                pages.append(place)
            (at,) = _unpack(file, order + link)
            place += 1
    except (struct.error, OverflowError, ValueError):
        pass
    return pages or [0]


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _repeats(entry: tuple[Any, ...], order: str) -> bool:
    tag, kind, count, value = entry
    if tag != _SUBFILE or count != 1:
        return False
    (flags,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)
    return bool(flags & _COPY_OR_MASK)


def _gif(data: bytes) -> int:
    """Count the frames of a GIF: its image descriptors."""
    place = 13 + _color_table(data[10])
    frames = 0
    while data[place] != 0x3B:
        if data[place] == 0x2C:
            frames += 1
            place += 10 + _color_table(data[place + 9]) + 1
        elif data[place] == 0x21:
            place += 2
        else:
            break
        while data[place]:
            place += data[place] + 1
        place += 1
        if place >= len(data):
            break
    return frames


def _color_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png(data: bytes) -> int:
    """Return the frames that an APNG declares, and its still picture where that is none of them."""
    place, frames, first = 8, 1, 0
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, place + 8)
            first = 1
        if kind == b"fcTL":
            first = 0
        if kind == b"IDAT":
            return int(frames) + first
        place += length + 12
    return 1


def _webp(data: bytes) -> int:
    """Count the frames of an animated WebP; 0 where it does not move."""
    place, frames = 12, 0
    while data[8:12] == b"WEBP" and place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        frames += kind == b"ANMF"
        place += 8 + length + (length & 1)
    return frames


_COUNTS: tuple[tuple[bytes, Callable[[bytes], int]], ...] = (
    *((mark, _tiff) for mark in TIFF_MAGIC),
    (b"GIF8", _gif),
    (b"\x89PNG", _png),
    (b"RIFF", _webp),
)
