"""TIFFs: by Pillow where it reads them as they are, else by tifffile, at their full depth.

A TIFF is a chain of pages; those that only repeat another one, smaller, or mask it, do not count.
"""

from __future__ import annotations

import io
import logging
import lzma
import math
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from maekit.data.files import MOST_BYTES
from maekit.data.header import Header, at_depth, known_dtype, oriented, valid_orientation
from maekit.data.pages import tiff_pages
from maekit.data.pillow_pages import ORIENTATION, Alpha, PillowPages
from maekit.errors import DataError

if TYPE_CHECKING:
    import tifffile

_BITS_PER_SAMPLE, _COMPRESSION, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 259, 338, 339
# What Pillow's own libtiff unpacks: none, CCITT, LZW, JPEG, deflate, PackBits, LZMA, zstd.
_PILLOWS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})

# What tifffile logs of a broken file, the file's own error says.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class TiffPages:
    """The pages of a TIFF.

    Args:
        data: the whole file.
        name: the file, for errors.
        alpha: what becomes of transparency, see ``open_image``.
    """

    def __init__(self, data: bytes, name: str, alpha: Alpha) -> None:
        self._data, self._name = data, name
        self._pillow: PillowPages | None = None
        with suppress(Exception):  # tifffile says what is wrong
            self._pillow = PillowPages(data, alpha, ["TIFF"])

    @cached_property
    def _places(self) -> list[int]:
        """Where in the chain the pages are."""
        return tiff_pages(io.BytesIO(self._data))

    @property
    def count(self) -> int:
        """Number of pages."""
        return len(self._places)

    def at(self, page: int) -> tuple[Header, Callable[[], np.ndarray]]:
        """Return a page's header, and what decodes it as it lies in the file, ``[h, w, C]``.

        Raises:
            DataError: there is no such page, or it is not a picture of [H, W] or of channels.
            Exception: whatever Pillow or tifffile meet in a broken file.
        """
        if page and not 0 < page < self.count:
            what = f"has {self.count} pages, none of number {page}"
            raise DataError(what, where=self._name)
        place = self._places[page] if page else 0
        big_endian = self._data.startswith(b"MM")
        if self._pillow and _pillow_reads(self._pillow, place, big_endian=big_endian):
            return self._pillow.at(place)
        return open_tiff(self._data, self._name, place)


def _pillow_reads(pages: PillowPages, place: int, *, big_endian: bool) -> bool:
    """Return whether Pillow reads a page as it is.

    It refuses, or would narrow, 16-bit color and a fourth plain band; takes signed bytes for
    unsigned ones; and swaps the bytes of what libtiff unpacked in this machine's order already.
    """
    try:
        image: Image.Image = pages.turn_to(place)
    except Exception:  # noqa: BLE001 - tifffile says what is wrong
        return False
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, extra = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_EXTRA_SAMPLES, ())
    signed, packing = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2, tags.get(_COMPRESSION, 1)
    swapped = big_endian and packing != 1 and (bits[0] > 16 or signed)
    # An extra sample of kind 0 is not alpha, but a band of its own.
    plain = 0 not in extra and (len(bits) == 1 or max(bits) <= 8)
    return plain and not swapped and not (signed and bits[0] <= 8) and packing in _PILLOWS


def open_tiff(data: bytes, name: str, place: int = 0) -> tuple[Header, Callable[[], np.ndarray]]:
    """Read the header of a page by tifffile; its channels may be interleaved or in planes.

    Raises:
        DataError: the page is not a picture of [H, W] or of channels.
        Exception: whatever tifffile meets in a broken file.
    """
    import tifffile  # optional: maekit[tiff]

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[place]
        axes, shape, dtype = page.axes, page.shape, page.dtype
        tag = page.tags.get(ORIENTATION) if isinstance(page, tifffile.TiffPage) else None
        complete = _complete(page, len(data))
        chunk = math.prod(page.chunks)
    if axes not in ("YX", "YXS", "SYX") or dtype is None:
        what = f"has a page of axes {axes} and shape {shape}; read are YX, YXS and SYX"
        raise DataError(what, where=name)
    if not complete:
        what = "is truncated: some of its pixels lie behind the end of the file"
        raise DataError(what, where=name)
    if chunk * dtype.itemsize > MOST_BYTES:
        what = f"has strips or tiles of {chunk:,} values, more than the limit of {MOST_BYTES:,} B"
        raise DataError(what, where=name)
    if axes == "SYX":
        shape = (*shape[1:], shape[0])
    height, width, channels = (*shape, 1)[:3]
    depth = known_dtype(dtype, name)
    orientation = valid_orientation(tag.value if tag else None)

    def raw() -> np.ndarray:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            _check_packed(file.pages[place], data)
            pixels = _decoded(file.pages[place])
        if axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        return at_depth(np.asarray(pixels), depth).reshape(height, width, channels)

    upright_size = oriented(height, width, orientation)
    return Header(*upright_size, channels, depth, "tiff", orientation, dtype.name), raw


def _decoded(page: tifffile.TiffPage | tifffile.TiffFrame) -> np.ndarray:
    import tifffile

    try:
        return page.asarray()
    except ValueError as error:  # how tifffile says that a codec is missing
        if "'imagecodecs'" not in str(error):
            raise
        what = f"{tifffile.COMPRESSION(page.compression).name} compression"
        raise ModuleNotFoundError(what, name="imagecodecs") from error


def _complete(page: tifffile.TiffPage | tifffile.TiffFrame, size: int) -> bool:
    """Return whether every strip or tile lies within the file.

    tifffile fills missing ones with zeros.
    """
    spans = zip(page.dataoffsets, page.databytecounts, strict=True)
    return all(count > 0 and offset + count <= size for offset, count in spans)


class _Unpacker(Protocol):
    """What zlib's and lzma's decompressors share."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_UNPACKERS: dict[int, Callable[[], _Unpacker]] = {
    8: zlib.decompressobj,  # "Adobe deflate"
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
_CHUNK = 1 << 24
_MOST_DEFLATED = 1032  # bytes that may come of one (RFC 1951)


def _check_packed(page: tifffile.TiffPage | tifffile.TiffFrame, data: bytes) -> None:
    """Raise ValueError where a strip or tile unpacks to more than any picture may have.

    tifffile unpacks each in one go, however much comes of it.
    """
    unpacker = _UNPACKERS.get(int(page.compression))
    if unpacker is None:
        return
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count * _MOST_DEFLATED <= MOST_BYTES and unpacker is zlib.decompressobj:
            continue
        unpacked, left, size = unpacker(), data[offset : offset + count], 0
        while not unpacked.eof and (part := unpacked.decompress(left, _CHUNK)):
            size += len(part)
            left = getattr(unpacked, "unconsumed_tail", b"")
            if size > MOST_BYTES:
                what = f"a strip or tile unpacks to more than the limit of {MOST_BYTES:,} bytes"
                raise ValueError(what)
