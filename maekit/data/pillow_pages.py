"""Pictures as Pillow reads them, page by page."""

from __future__ import annotations

import io
import logging
import struct
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from maekit.data.header import Header, oriented, valid_orientation
from maekit.data.sniff import HEAD, is_heif

if TYPE_CHECKING:
    from collections.abc import Iterator

Alpha = Literal["drop", "keep"]

# Pillow logs each TIFF of many channels that it cannot read; tifffile reads them.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

# Named one by one: Pillow would also open EPS, which runs Ghostscript, and many curiosities.
_FORMATS = [
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PNG",
    "PPM",
    "TGA",
    "TIFF",
    "WEBP",
]
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
# Pillow refuses more than a megabyte of unpacked text, which deflate may make of 1,016 bytes.
_MOST_TEXT = 1000
ORIENTATION = 0x0112
_SAMPLE_FORMAT, _BITS_PER_SAMPLE = 339, 258
# What stands in 32 bits of Pillow's mode I: the format and the bits of a TIFF's samples.
_INTEGERS = {(2, 16): "int16", (1, 32): "uint32", (2, 32): "int32"}


class PillowPages:
    """The pages of a file of any format but arrays; of most there is one.

    Args:
        data: the whole file.
        alpha: what becomes of transparency, see ``open_image``.
        formats: Pillow's names of those that it may be of; None: all that are read here.

    Raises:
        UnidentifiedImageError: it is of none of them.
    """

    count = 1

    def __init__(self, data: bytes, alpha: Alpha, formats: list[str] | None = None) -> None:
        if data.startswith(_PNG_MAGIC):
            data = _without_large_text(data)
        self._data, self._alpha = data, alpha
        formats = formats or ([*_FORMATS, _heif_format()] if is_heif(data[:HEAD]) else _FORMATS)
        self.image = Image.open(io.BytesIO(data), formats=formats)

    def turn_to(self, page: int) -> Image.Image:
        """Return the picture of a page, not yet decoded unless it was asked for before."""
        if self.image.tell() != page:
            self.image.seek(page)
        return self.image

    def at(self, page: int) -> tuple[Header, Callable[[], np.ndarray]]:
        """Return a page's header, and what decodes it as it lies in the file, ``[h, w, C]``."""
        image = self.turn_to(page)
        mode, channels, dtype, stored = _layout(image, self._alpha)
        orientation = _orientation(image, self._data)
        height, width = oriented(image.height, image.width, orientation)

        def raw() -> np.ndarray:
            image = self.turn_to(page)
            picture = image if image.mode == mode else image.convert(mode)
            pixels = np.asarray(picture)
            if stored:
                pixels = pixels.view(np.uint32) if stored == "uint32" else pixels
                pixels = pixels.astype(dtype)
            elif dtype == "uint16":
                # Mode I is 32 bits wide; 16-bit PGM comes in it, and so do other things.
                if pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max:
                    what = f"has integers from {pixels.min()} to {pixels.max()}, beyond 16 bits"
                    raise ValueError(what)
                pixels = pixels.astype(np.uint16)
            return pixels.reshape(image.height, image.width, channels)

        return Header(height, width, channels, dtype, image.mode, orientation, stored), raw


class _Lifted:
    """Pillow's limit of pixels is lifted while anyone reads: ours are in bytes, and of memory.

    It is a global of Pillow's, which belongs to whoever imports it too.
    """

    lock = threading.Lock()
    readers: ClassVar[int] = 0
    limit: ClassVar[int | None] = None


@contextmanager
def limit_lifted() -> Iterator[None]:
    """Let Pillow open pictures of any size: what is too large is known from the header."""
    with _Lifted.lock:
        if _Lifted.readers == 0:
            _Lifted.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _Lifted.readers += 1
    try:
        yield
    finally:
        with _Lifted.lock:
            _Lifted.readers -= 1
            if _Lifted.readers == 0:
                Image.MAX_IMAGE_PIXELS = _Lifted.limit


def _heif_format() -> str:
    """Teach Pillow to read HEIC.

    libheif turns pictures upright, as the file's own boxes say; EXIF's orientation, which may say
    the same once more, is not to be followed, and pillow-heif sets it to 1.
    """
    import pillow_heif  # optional: maekit[heif]

    if "HEIF" not in Image.OPEN:
        pillow_heif.options.DECODE_THREADS = 1  # a worker has one core
        pillow_heif.register_heif_opener()
    return "HEIF"


def _layout(image: Image.Image, alpha: Alpha) -> tuple[str, int, str, str]:
    """Return the mode to convert to, its channels and dtype, and the stored one if that differs."""
    if image.mode == "I" and image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        form, bits = tags.get(_SAMPLE_FORMAT, (1,))[0], tags.get(_BITS_PER_SAMPLE, (1,))[0]
        return "I", 1, "float32", _INTEGERS.get((form, bits), "int32")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.mode, 1, "uint16", ""
    if image.mode == "F":
        return "F", 1, "float32", ""
    transparent = alpha == "keep" and image.has_transparency_data
    if image.mode in ("1", "L", "LA", "La"):
        return ("LA", 2, "uint8", "") if transparent else ("L", 1, "uint8", "")
    return ("RGBA", 4, "uint8", "") if transparent else ("RGB", 3, "uint8", "")


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation; broken EXIF does not make a good picture bad."""
    if image.format == "TIFF":
        return 1  # Pillow turns these upright itself
    try:
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow would decode all pixels to look for a chunk behind them.
            exif = Image.Exif()
            exif.load(_png_exif(data))
        else:
            exif = image.getexif()
        return valid_orientation(exif.get(ORIENTATION))
    except Exception:  # noqa: BLE001 - EXIF is foreign bytes, its parser raises anything
        return 1


def _png_exif(data: bytes) -> bytes:
    """Return a PNG's eXIf chunk, wherever it stands; empty without one."""
    exif = next((span for kind, span in _png_chunks(data) if kind == b"eXIf"), None)
    return b"" if exif is None else data[exif.start + 8 : exif.stop - 4]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, range]]:
    """Yield the kind of each chunk of a PNG, and the bytes that it takes up."""
    place = len(_PNG_MAGIC)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, range(place, place + length + 12)
        place += length + 12


def _without_large_text(data: bytes) -> bytes:
    """Return a PNG without its text, where that is more than Pillow unpacks of it.

    Tools write whole workflows and color tables there; none of it changes a pixel.
    """
    text = [span for kind, span in _png_chunks(data) if kind in _PNG_TEXT]
    if sum(map(len, text)) <= _MOST_TEXT:
        return data
    starts = [len(_PNG_MAGIC), *(span.stop for span in text)]
    stops = [*(span.start for span in text), len(data)]
    parts = (data[start:stop] for start, stop in zip(starts, stops, strict=True))
    return b"".join([_PNG_MAGIC, *parts])
