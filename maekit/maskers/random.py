"""Random masking: MAE (section 3, "Masking") for images, space-time agnostic (mae_st) for clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions
from maekit.maskers.rounding import Rounding, hidden_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Random(Masker):
    """Hides a uniformly random subset of all N tokens."""

    class Options(PartOptions):
        ratio: float = Field(0.75, gt=0, lt=1, description="hidden fraction of the N tokens")
        rounding: Rounding = Field(
            "keep",
            description="keep: int(N*(1-ratio)) stay visible (MAE); "
            "hidden: int(ratio*N) are hidden (VideoMAE)",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the number of hidden tokens."""
        return hidden_of(grid.tokens, self.options.ratio, self.options.rounding)

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden."""
        hidden = np.zeros(grid.tokens, dtype=np.bool_)
        hidden[rng.permutation(grid.tokens)[: self.count(grid)]] = True
        return hidden.reshape(grid)
