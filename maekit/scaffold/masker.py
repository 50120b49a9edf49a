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

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        """Return bool ``[t, h, w]``, True = hidden."""
        count = round(self.ratio * grid.h)
        if not 0 < count < grid.h:
            what = f"ratio {self.ratio} hides {count} of {grid.h} rows"
            raise PartError(what, hint="change ratio, or data.size")
        rows = rng.permutation(grid.h) < count
        return np.broadcast_to(rows[None, :, None], grid).copy()
