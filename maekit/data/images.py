"""Pictures as arrays: upright, at their own depth, whole or not at all.

``open_image`` knows a picture's size, channels and depth without decoding it. 8-bit pictures are
uint8, 16-bit ones uint16 (never scaled or clipped to 8), all others float32 as read: floats, and
integers that are signed or wider. Of animated files the first frame is read. (Pillow reads 16-bit
*color* PNGs at 8 bits, the high byte; 16-bit color TIFFs are read whole, by tifffile.)
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import UnidentifiedImageError

from maekit.data import jpeg
from maekit.data.header import Header, at_depth, check_pixels, known_dtype, upright
from maekit.data.pages import TIFF_MAGIC, further_pictures
from maekit.data.pillow_pages import Alpha, PillowPages, limit_lifted
from maekit.data.pixels import mark_holes
from maekit.data.tiffs import TiffPages
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NPY_MAGIC = b"\x93NUMPY"
# Packages, and what brings them.
_EXTRAS = {"tifffile": "tiff", "imagecodecs": "tiff", "pillow_heif": "heif"}


class Pages(Protocol):
    """The pages of a file."""

    @property
    def count(self) -> int:
        """How many there are."""

    def at(self, page: int) -> tuple[Header, Callable[[], np.ndarray]]:
        """Return a page's header, and what decodes it, ``[h, w, C]`` as it lies in the file."""


def _no_quick_way() -> None:
    return None


@dataclass(frozen=True)
class OpenImage:
    """A picture whose header is read; ``decode`` gives the pixels, ``[H, W, C]``, upright."""

    name: str
    header: Header
    raw: Callable[[], np.ndarray]
    pages: Pages  # of the file; this is one of them
    # Decodes what is in order; None: it is not, or there is no such way.
    quick: Callable[[], np.ndarray | None] = _no_quick_way

    def decode(self, nodata: float | None = None) -> np.ndarray:
        """Decode the whole picture; raises DataError where any of it is missing or broken.

        Float pixels that hold no data (NaN, infinity, ``nodata``) come back as NaN.
        """
        quick = self.quick()
        if quick is not None:
            return quick
        with _reading(self.name):
            pixels = np.ascontiguousarray(upright(self.raw(), self.header.orientation))
        head = self.header
        if pixels.shape != (head.height, head.width, head.channels) or pixels.dtype != head.dtype:
            what = f"decodes to {pixels.dtype} {pixels.shape}, its header says otherwise: {head}"
            raise DataError(what, where=self.name)
        return mark_holes(pixels, nodata, self.name) if pixels.dtype == np.float32 else pixels

    def page(self, number: int) -> OpenImage:
        """Read the header of another page of the file, from 0; raises as ``open_image``."""
        return _open_page(self.pages, number, self.name)


def open_image(data: bytes, name: str, alpha: Alpha = "drop") -> OpenImage:
    """Read a picture's header, of a file of several pages that of the first.

    Args:
        data: the whole file.
        name: the file, for errors; ``.npy`` files are known by it.
        alpha: what becomes of transparency. ``drop`` shows the colors beneath it, as the
            official code's ``convert("RGB")``; ``keep`` makes it a channel.

    Raises:
        DataError: no picture, too large to be one (MOST_BYTES), or of a kind not read here.
    """
    pages: Pages
    size = jpeg.plain_size(data) if data.startswith(jpeg.MAGIC) else None
    if size is not None:
        return _open_jpeg(data, size, name, alpha)
    with _reading(name):
        if name.lower().endswith(".npy") or data.startswith(_NPY_MAGIC):
            pages = _Array(data, name)
        elif data.startswith(TIFF_MAGIC):
            pages = TiffPages(data, name, alpha)
        else:
            pages = PillowPages(data, alpha)
    first = _open_page(pages, 0, name)
    return replace(first, header=replace(first.header, further=further_pictures(data)))


def _open_jpeg(data: bytes, size: jpeg.Size, name: str, alpha: Alpha) -> OpenImage:
    """Wrap a JPEG that is nothing else; Pillow looks at it only where it does not decode."""
    check_pixels(size, "uint8", name)
    header = Header(*size, "uint8", "L" if size.channels == 1 else "RGB")
    pages = _Jpeg(data, header, alpha)
    return OpenImage(name, header, pages.raw, pages, lambda: jpeg.decode(data, *size))


def _open_page(pages: Pages, number: int, name: str) -> OpenImage:
    with _reading(name):
        header, raw = pages.at(number)
    shape = (header.height, header.width, header.channels)
    if min(shape) < 1:
        what = f"has no pixels ({header.height} x {header.width} x {header.channels})"
        raise DataError(what, where=name)
    check_pixels(shape, header.stored or header.dtype, name)
    return OpenImage(name, header, raw, pages)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Keep decoders quiet, and turn whatever they raise into an error that names the file."""
    with warnings.catch_warnings(), limit_lifted():
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
            what += f", for its {error}" if error.name == "imagecodecs" else ""
            extra = _EXTRAS.get(str(error.name))
            hint = None if extra is None else f"pip install 'maekit[{extra}]'"
            raise DataError(what, where=name, hint=hint) from error
        except Exception as error:  # broken files make decoders raise anything at all
            what = f"cannot be decoded: {type(error).__name__}: {error}"
            raise DataError(what, where=name) from error


class _Jpeg:
    """A JPEG whose header is known: one page."""

    count = 1

    def __init__(self, data: bytes, header: Header, alpha: Alpha) -> None:
        self._data, self._header, self._alpha = data, header, alpha

    def at(self, page: int) -> tuple[Header, Callable[[], np.ndarray]]:  # noqa: ARG002
        return self._header, self.raw

    def raw(self) -> np.ndarray:
        return PillowPages(self._data, self._alpha).at(0)[1]()


class _Array:
    """A NumPy file: one page."""

    count = 1

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name

    def at(self, page: int) -> tuple[Header, Callable[[], np.ndarray]]:  # noqa: ARG002
        data, file = self._data, io.BytesIO(self._data)
        version = np.lib.format.read_magic(file)
        header = np.lib.format
        reader = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
        shape, _, dtype = reader(file)
        if len(shape) not in (2, 3):
            what = f"has shape {shape}; a picture is [H, W] or [H, W, C]"
            raise DataError(what, where=self._name)
        height, width, channels = (*shape, 1)[:3]
        depth = known_dtype(dtype, self._name)

        def raw() -> np.ndarray:
            pixels: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
            return at_depth(pixels, depth).reshape(height, width, channels)

        return Header(height, width, channels, depth, "npy", stored=dtype.name), raw
