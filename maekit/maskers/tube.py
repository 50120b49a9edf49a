"""Tube masking: VideoMAE (section 3.3; masking_generator.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions
from maekit.maskers.rounding import Rounding, hidden_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tube(Masker):
    """Hides the same random places in every time slot, so that what stands still cannot leak."""

    class Options(PartOptions):
        ratio: float = Field(0.9, gt=0, lt=1, description="hidden fraction of a time slot's h*w")
        rounding: Rounding = Field(
            "hidden",
            description="per time slot. hidden: int(ratio*h*w) are hidden (VideoMAE); "
            "keep: int(h*w*(1-ratio)) stay visible",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the hidden tokens of all time slots together."""
        return grid.t * hidden_of(grid.h * grid.w, self.options.ratio, self.options.rounding)

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden."""
        places = np.zeros(grid.h * grid.w, dtype=np.bool_)
        places[rng.permutation(places.size)[: self.count(grid) // grid.t]] = True
        return np.tile(places.reshape(1, grid.h, grid.w), (grid.t, 1, 1))
