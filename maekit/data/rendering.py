"""How a sample of any size and range becomes the pixels of a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maekit.data.plan import Box
from maekit.errors import DataError

if TYPE_CHECKING:
    from maekit.contracts import Source
    from maekit.recipe.schema import Data
    from maekit.recipe.sections import Fit

MUCH = 0.1  # of a sample: that more is cut away is told


@dataclass(frozen=True)
class Rendering:
    """What is done to pixels that are not of a view's size, or not of a known range.

    Attributes:
        fit: how a view that is not drawn at random shows a sample of another aspect.
        span: the values that become 0 and 1, of pixels that are not 8-bit; None: uint16 has 0 and
            65535, float stays as read.
        float_ok: float pixels may be read without a span: their statistics are known.
    """

    fit: Fit = "crop"
    span: tuple[float, float] | None = None
    float_ok: bool = True

    @classmethod
    def of(cls, data: Data) -> Rendering:
        """Return a recipe's, whose range is known by now."""
        if data.range_ == "auto":
            what = "data.range is auto, and was not looked for"
            raise ValueError(what)
        return cls(data.fit, data.range_, float_ok=data.stats is not None)

    @classmethod
    def of_weights(cls, span: tuple[float, float] | None, data: Data | None) -> Rendering:
        """Return that of any files, as weights were trained on theirs.

        Args:
            span: data.range of the weights' header.
            data: of the recipe that they were trained by; None: not known.
        """
        if data is None:
            return cls(span=span)
        return cls(data.fit, span, float_ok=data.stats is not None)

    def spread(self, clip: np.ndarray) -> np.ndarray:
        """Spread the span over uint16; what lies beyond it becomes its ends."""
        if self.span is None or clip.dtype == np.uint8:
            return clip
        low, high = self.span
        share = (clip.astype(np.float32) - np.float32(low)) * np.float32(1 / (high - low))
        spread: np.ndarray = np.rint(np.clip(share, 0, 1) * np.float32(65535))
        return spread.astype(np.uint16)


PLAIN = Rendering()


class Placed(NamedTuple):
    """Where a box's share of a picture goes in a view; the rest of the view is padding."""

    box: Box  # within the picture
    rows: slice
    columns: slice

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is not padding."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def largest_box(height: int, width: int, size: tuple[int, int]) -> tuple[float, float]:
    """Return height and width of the largest box of the output's aspect.

    They are whole numbers where the output is square.
    """
    if height * size[1] <= width * size[0]:
        return height, height * size[1] / size[0]
    return width * size[0] / size[1], width


def fitted_box(
    height: int, width: int, size: tuple[int, int], fit: Fit, enlarge: float = 1.0
) -> Box:
    """Place a view that is not drawn at random in the middle of a picture.

    Args:
        height: of the picture.
        width: of the picture.
        size: height and width of the view.
        fit: ``crop``: the largest box of the view's aspect within the picture; ``pad``: the
            smallest around it, which reaches beyond it; ``stretch``: the picture itself.
        enlarge: how many times smaller the box is.
    """
    sides: tuple[float, float] = (height, width)
    if fit == "crop":
        sides = largest_box(height, width, size)
    elif fit == "pad":
        wide = height * size[1] <= width * size[0]
        sides = (width * size[0] / size[1], width) if wide else (height, height * size[1] / size[0])
    sides = (sides[0] / enlarge, sides[1] / enlarge)
    return Box((height - sides[0]) / 2, (width - sides[1]) / 2, *sides)


def cut_share(height: int, width: int, size: tuple[int, int]) -> float:
    """Return how much of a picture a view cuts away to have its own aspect, 0 to 1."""
    box_height, box_width = largest_box(height, width, size)
    return 1 - box_height * box_width / (height * width)


def placed(box: Box, height: int, width: int, size: tuple[int, int]) -> Placed:
    """Return what of a box lies in a picture, and where in the view it goes: at least one pixel."""
    (top, box_height, rows), (left, box_width, columns) = (
        _along(box[axis], box[axis + 2], (height, width)[axis], size[axis]) for axis in (0, 1)
    )
    return Placed(Box(top, left, box_height, box_width), rows, columns)


def _along(start: float, length: float, limit: int, count: int) -> tuple[float, float, slice]:
    stop = start + length
    before, after = max(0.0, -start), max(0.0, stop - limit)
    pixel = length / count
    # Less than half of the view's pixel shows only in the filter's weights.
    first, last = round(before / pixel), count - round(after / pixel)
    if first == 0 and last == count:
        return start, length, slice(0, count)
    first = min(first, count - 1)
    last = max(last, first + 1)
    return max(0.0, start), min(stop, limit) - max(0.0, start), slice(first, last)


def padded(clip: np.ndarray, place: Placed, size: tuple[int, int]) -> np.ndarray:
    """Put a clip ``[T, h, w, C]`` in its place in the view, ``[T, H, W, C]``.

    Around it is its own mean, channel by channel: it says nothing, and no edge of black.
    """
    if place.size == size:
        return clip
    mean = clip.mean(axis=(0, 1, 2), dtype=np.float64)
    color = mean if clip.dtype == np.float32 else np.rint(mean)
    whole = np.empty((len(clip), *size, clip.shape[-1]), clip.dtype)
    whole[:] = color.astype(clip.dtype)
    whole[:, place.rows, place.columns] = clip
    return whole


def extremes(source: Source) -> tuple[float, float]:
    """Return the least and the largest value of a sample's middle frame, holes left out.

    Raises:
        DataError: it cannot be read, or holds nothing but holes.
    """
    info = source.info
    box = (0, 0, info.height, info.width)
    more = (box, (info.height, info.width)) if info.crops else ()
    pixels = source.read([info.frames // 2], *more)
    known = pixels[np.isfinite(pixels)] if pixels.dtype == np.float32 else pixels
    if not known.size:
        what = "holds no data"
        raise DataError(what, where=info.id)
    return float(known.min()), float(known.max())
