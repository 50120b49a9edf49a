"""How many pictures a file holds behind its first: pages of a TIFF, frames of an animation.

Counted from the file's own structure, without decoding a pixel. Smaller copies of a page (the
overviews of a GeoTIFF, the levels of a slide) and its masks are no pages of their own, and neither
are the depth maps and previews that telephones put behind a JPEG.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

_SUBFILE = 254  # NewSubfileType; bit 0: a reduced copy, bit 2: a transparency mask
_COPY_OR_MASK = 0b101
_MOST = 1 << 16  # pages that are counted
_WIDTHS = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of a TIFF value, by type


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
    """Count the pages of a TIFF or BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset, number = ("Q", "Q") if big else ("I", "H")
    entry, inline = (20, 12) if big else (12, 8)
    (place,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    seen: set[int] = set()
    pages = 0
    while place and place not in seen and len(seen) < _MOST:
        seen.add(place)
        (entries,) = struct.unpack_from(order + number, data, place)
        first = place + struct.calcsize(number)
        kind = 0
        for start in range(first, first + min(entries, 4096) * entry, entry):
            tag, width = struct.unpack_from(order + "HH", data, start)
            if tag == _SUBFILE:
                raw = data[start + inline : start + inline + _WIDTHS.get(width, 4)]
                kind = int.from_bytes(raw, "little" if order == "<" else "big")
        pages += not kind & _COPY_OR_MASK
        (place,) = struct.unpack_from(order + offset, data, first + entries * entry)
    return pages


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
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"GIF8", _gif),
    (b"\x89PNG", _png),
    (b"RIFF", _webp),
)
