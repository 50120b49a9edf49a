"""``my-part``: hides whole rows of units."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartError, PartOptions


class MyPart(Masker):
    """Hides rows that are drawn at random, the same ones in every time slot."""

    class Options(PartOptions):
        """Options of ``my-part``."""

        ratio: float = Field(0.75, gt=0, lt=1, description="share of rows that is hidden")

    def __init__(self, options: Options) -> None:
        self.ratio = options.ratio

    def count(self, grid: Grid) -> int:
        """Return how many units are hidden: optional, but then checks know that True is hidden."""
        return grid.t * self._rows(grid) * grid.w

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        """Return bool ``[t, h, w]``, True = hidden."""
        rows = rng.permutation(grid.h) < self._rows(grid)
        return np.broadcast_to(rows[None, :, None], grid).copy()

    def _rows(self, grid: Grid) -> int:
        count = round(self.ratio * grid.h)
        if not 0 < count < grid.h:
            what = f"ratio {self.ratio} hides {count} of {grid.h} rows"
            raise PartError(what, hint="change ratio, or data.size")
        return count
