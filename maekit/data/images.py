"""Pictures as arrays: upright, at their own depth, whole or not at all.

``open_image`` knows a picture's size, channels and depth without decoding it. 8-bit pictures are
uint8, 16-bit ones uint16 (never scaled or clipped to 8), float ones float32 as read. Of animated
files the first frame is read. (Pillow reads 16-bit *color* PNGs at 8 bits, the high byte;
16-bit color TIFFs are read whole, by tifffile.)
"""

from __future__ import annotations

import io
import logging
import lzma
import math
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from maekit.data.files import MOST_BYTES
from maekit.data.pages import further_pictures
from maekit.data.pixels import mark_holes
from maekit.data.sniff import HEAD, is_heif
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tifffile

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
_NPY_MAGIC = b"\x93NUMPY"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXTRAS = {"tifffile": "tiff", "pillow_heif": "heif"}  # packages, and what brings them
_ORIENTATION = 0x0112
_MIRRORED_OR_TURNED = range(2, 9)
_SIDEWAYS = range(5, 9)
_BITS_PER_SAMPLE = 258
_EXTRA_SAMPLES = 338


@dataclass(frozen=True)
class Header:
    """Facts of a picture before it is decoded; height and width are upright."""

    height: int
    width: int
    channels: int
    dtype: str  # "uint8", "uint16" or "float32"
    mode: str  # Pillow's mode, "tiff" or "npy"
    orientation: int = 1  # EXIF, 1 to 8
    stored: str = ""  # the dtype in the file, where it is wider than that
    further: int = 0  # pages or frames behind the first


@dataclass(frozen=True)
class OpenImage:
    """A picture whose header is read; ``decode`` gives the pixels, ``[H, W, C]``, upright."""

    name: str
    header: Header
    raw: Callable[[], np.ndarray]

    def decode(self, nodata: float | None = None) -> np.ndarray:
        """Decode the whole picture; raises DataError where any of it is missing or broken.

        Float pixels that hold no data (NaN, infinity, ``nodata``) come back as NaN.
        """
        with _reading(self.name):
            pixels = np.ascontiguousarray(upright(self.raw(), self.header.orientation))
        head = self.header
        if pixels.shape != (head.height, head.width, head.channels) or pixels.dtype != head.dtype:
            what = f"decodes to {pixels.dtype} {pixels.shape}, its header says otherwise: {head}"
            raise DataError(what, where=self.name)
        return mark_holes(pixels, nodata, self.name) if pixels.dtype == np.float32 else pixels


def open_image(data: bytes, name: str, alpha: Alpha = "drop") -> OpenImage:
    """Read a picture's header.

    Args:
        data: the whole file.
        name: the file, for errors; ``.npy`` files are known by it.
        alpha: what becomes of transparency. ``drop`` shows the colors beneath it, as the
            official code's ``convert("RGB")``; ``keep`` makes it a channel.

    Raises:
        DataError: no picture, too large to be one (Pillow's limit), or of a kind not read here.
    """
    with _reading(name):
        if name.lower().endswith(".npy") or data.startswith(_NPY_MAGIC):
            header, raw = _open_npy(data, name)
        elif data.startswith(_TIFF_MAGIC) and not _pillow_reads_tiff(data):
            header, raw = open_tiff(data, name)
        else:
            header, raw = _open_pillow(data, alpha)
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if limit and header.height * header.width > limit:
        what = f"has {header.height} x {header.width} pixels, more than the limit of {limit}"
        raise DataError(what, where=name)
    shape = (header.height, header.width, header.channels)
    if min(shape) < 1:
        what = f"has no pixels ({header.height} x {header.width} x {header.channels})"
        raise DataError(what, where=name)
    check_pixels(shape, header.stored or header.dtype, name)
    return OpenImage(name, replace(header, further=further_pictures(data)), raw)


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
    """Return the depth at which an array file is read; raise DataError for others."""
    if dtype.kind == "f":
        return "float32"
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("=").name
    what = f"has pixels of type {dtype.name}"
    raise DataError(what, where=name, hint="save it as uint8, uint16 or float32")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Keep decoders quiet, and turn whatever they raise into an error that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except DataError:
            raise
        except UnidentifiedImageError as error:
            what = "is not a picture of a known format"
            raise DataError(what, where=name) from error
        except ModuleNotFoundError as error:
            what = f"needs the package {error.name}"
            extra = _EXTRAS.get(str(error.name))
            hint = None if extra is None else f"pip install 'maekit[{extra}]'"
            raise DataError(what, where=name, hint=hint) from error
        except Exception as error:  # broken files make decoders raise anything at all
            what = f"cannot be decoded: {type(error).__name__}: {error}"
            raise DataError(what, where=name) from error


def _open_pillow(data: bytes, alpha: Alpha) -> tuple[Header, Callable[[], np.ndarray]]:
    formats = [*_FORMATS, _heif_format()] if is_heif(data[:HEAD]) else _FORMATS
    image = Image.open(io.BytesIO(data), formats=formats)
    mode, channels, dtype = _layout(image, alpha)
    orientation = _orientation(image, data)
    height, width = oriented(image.height, image.width, orientation)

    def raw() -> np.ndarray:
        picture = image if image.mode == mode else image.convert(mode)
        pixels = np.asarray(picture)
        if dtype == "uint16":
            # Mode I is 32 bits wide; 16-bit PGM comes in it, and so do other things.
            if pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max:
                what = f"has integers from {pixels.min()} to {pixels.max()}, beyond 16 bits"
                raise ValueError(what)
            pixels = pixels.astype(np.uint16)
        return pixels.reshape(image.height, image.width, channels)

    return Header(height, width, channels, dtype, image.mode, orientation), raw


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


def _layout(image: Image.Image, alpha: Alpha) -> tuple[str, int, str]:
    """Return the mode to convert to, and its channels and dtype."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.mode, 1, "uint16"
    if image.mode == "F":
        return "F", 1, "float32"
    transparent = alpha == "keep" and image.has_transparency_data
    if image.mode in ("1", "L", "LA", "La"):
        return ("LA", 2, "uint8") if transparent else ("L", 1, "uint8")
    return ("RGBA", 4, "uint8") if transparent else ("RGB", 3, "uint8")


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
        return valid_orientation(exif.get(_ORIENTATION))
    except Exception:  # noqa: BLE001 - EXIF is foreign bytes, its parser raises anything
        return 1


def _png_exif(data: bytes) -> bytes:
    """Return a PNG's eXIf chunk, wherever it stands; empty without one."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"eXIf":
            return data[place + 8 : place + 8 + length]
        place += length + 12
    return b""


def _pillow_reads_tiff(data: bytes) -> bool:
    """Return whether Pillow reads a TIFF at its full depth.

    It refuses, or would narrow, 16-bit color and a fourth plain band.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=["TIFF"])
    except UnidentifiedImageError:
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, extra = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_EXTRA_SAMPLES, ())
    # An extra sample of kind 0 is not alpha, but a band of its own.
    return 0 not in extra and (len(bits) == 1 or max(bits) <= 8)


def _open_npy(data: bytes, name: str) -> tuple[Header, Callable[[], np.ndarray]]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0
    shape, _, dtype = (reader if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    if len(shape) not in (2, 3):
        what = f"has shape {shape}; a picture is [H, W] or [H, W, C]"
        raise DataError(what, where=name)
    height, width, channels = (*shape, 1)[:3]
    depth = known_dtype(dtype, name)

    def raw() -> np.ndarray:
        pixels: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        return pixels.astype(depth, copy=False).reshape(height, width, channels)

    return Header(height, width, channels, depth, "npy", stored=dtype.name), raw


# What tifffile logs of a broken file, the file's own error says.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def open_tiff(data: bytes, name: str) -> tuple[Header, Callable[[], np.ndarray]]:
    """Read the header of the first page; its channels may be interleaved or in planes.

    Raises:
        DataError: the page is not a picture of [H, W] or of channels.
        Exception: whatever tifffile meets in a broken file.
    """
    import tifffile  # optional: maekit[tiff]

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
            _check_packed(file.pages.first, data)
            pixels = file.pages.first.asarray()
        if axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        return np.asarray(pixels).astype(depth, copy=False).reshape(height, width, channels)

    upright_size = oriented(height, width, orientation)
    return Header(*upright_size, channels, depth, "tiff", orientation, dtype.name), raw


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
