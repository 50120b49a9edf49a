"""Block-wise masking: BEiT's rectangles (arXiv 2106.08254, algorithm 1), as in MAE's figure 6."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions
from maekit.maskers.rounding import Rounding, hidden_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRIES = 10  # rectangles drawn before giving up, as BEiT


class Block(Masker):
    """Hides rectangles of random area and aspect until a share of the picture is hidden.

    A rectangle that would hide too many is drawn again; where none fits any more, the hidden area
    grows at its edges, token by token, to the exact count (BEiT stops short of it there). In a clip
    the same rectangles are hidden in every time slot, as tubes are, and for the same reason: a
    block that is seen a slot earlier does not count as one.
    """

    class Options(PartOptions):
        ratio: float = Field(0.5, gt=0, lt=1, description="hidden fraction of a time slot's h*w")
        rounding: Rounding = Field(
            "keep",
            description="per time slot. keep: int(h*w*(1-ratio)) stay visible; "
            "hidden: int(ratio*h*w) are hidden",
        )
        min_area: int = Field(16, ge=1, description="smallest rectangle, in tokens (BEiT: 16)")
        aspect: float = Field(
            0.3, gt=0, le=1, description="flattest height / width; 1 / aspect is the steepest"
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the hidden tokens of all time slots together."""
        return grid.t * hidden_of(grid.h * grid.w, self.options.ratio, self.options.rounding)

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden."""
        places = np.zeros((grid.h, grid.w), dtype=np.bool_)
        missing = self.count(grid) // grid.t
        while missing:
            hidden = self._rectangle(places, missing, rng)
            if not hidden:
                break
            missing -= hidden
        for _ in range(missing):
            _grow(places, rng)
        return np.tile(places, (grid.t, 1, 1))

    def _rectangle(self, places: NDArray[np.bool_], most: int, rng: np.random.Generator) -> int:
        """Hide one more rectangle of at most ``most`` new tokens; how many are new, 0 if none."""
        height, width = places.shape
        steepest = math.log(1 / self.options.aspect)
        smallest = self.options.min_area
        for _ in range(_TRIES):
            area = rng.uniform(min(smallest, most), max(smallest, most))
            aspect = math.exp(rng.uniform(-1, 1) * steepest)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (0 < h < height and 0 < w < width):
                continue
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            box = places[top : top + h, left : left + w]
            new = h * w - int(box.sum())
            if 0 < new <= most:
                box[...] = True
                return new
        return 0


def _grow(places: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Hide one more token: a neighbor of a hidden one, where there is any."""
    padded = np.pad(places, 1)
    neighbors = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    edge = np.flatnonzero(neighbors & ~places)
    choices = edge if len(edge) else np.flatnonzero(~places)
    places.flat[rng.choice(choices)] = True
