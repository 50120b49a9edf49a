"""Frame masking: VideoMAE's comparison with whole frames hidden (section 3.3; table 1b)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions
from maekit.maskers.rounding import Rounding, hidden_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Frame(Masker):
    """Hides random time slots whole. With cubes of two frames, a slot is two frames."""

    class Options(PartOptions):
        ratio: float = Field(
            0.875, gt=0, lt=1, description="hidden fraction of the t time slots (VideoMAE: 7 of 8)"
        )
        rounding: Rounding = Field(
            "hidden",
            description="hidden: int(ratio*t) are hidden; keep: int(t*(1-ratio)) stay visible",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the number of hidden tokens."""
        return self._slots(grid) * grid.h * grid.w

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden."""
        hidden = np.zeros(grid, dtype=np.bool_)
        hidden[rng.permutation(grid.t)[: self._slots(grid)]] = True
        return hidden

    def _slots(self, grid: Grid) -> int:
        return hidden_of(grid.t, self.options.ratio, self.options.rounding)
