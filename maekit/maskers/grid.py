"""Grid-wise sampling: regularly keep one token of every cell (MAE section 4.1, figure 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Annotated[int, Field(ge=1)]


class GridMasker(Masker):
    """Keeps the first token of each cell of every time slot: 75 % hidden with 2 x 2 cells.

    Fixed, so that it does not use its generator: the paper's "regularly remaining one of every four
    patches". Cells that the edge cuts keep their first token too.
    """

    class Options(PartOptions):
        cell: tuple[Side, Side] = Field((2, 2), description="height and width in tokens")

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the number of hidden tokens."""
        height, width = self.options.cell
        kept = -(-grid.h // height) * -(-grid.w // width)
        return grid.tokens - grid.t * kept

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:  # noqa: ARG002
        """Return the mask, bool ``[t, h, w]``, True = hidden."""
        height, width = self.options.cell
        hidden = np.ones(grid, dtype=np.bool_)
        hidden[:, ::height, ::width] = False
        return hidden
