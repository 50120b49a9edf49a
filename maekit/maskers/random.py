"""Random masking: MAE (section 3, "Masking") for images, space-time agnostic (mae_st) for clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, PartOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Random:
    """Hides a uniformly random subset of all N tokens."""

    class Options(PartOptions):
        ratio: float = Field(0.75, gt=0, lt=1, description="hidden fraction of the N tokens")
        rounding: Literal["keep", "hidden"] = Field(
            "keep",
            description="keep: int(N*(1-ratio)) stay visible (MAE); "
            "hidden: int(ratio*N) are hidden (VideoMAE)",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Hidden tokens, in Python floats as the sources compute them."""
        n, ratio = grid.tokens, self.options.ratio
        if self.options.rounding == "hidden":
            return int(ratio * n)
        return n - int(n * (1 - ratio))

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Bool ``[t, h, w]``, True = hidden."""
        hidden = np.zeros(grid.tokens, dtype=np.bool_)
        hidden[rng.permutation(grid.tokens)[: self.count(grid)]] = True
        return hidden.reshape(grid)
