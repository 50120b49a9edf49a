"""Cube masking: whole blocks in space and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions
from maekit.maskers.rounding import Rounding, hidden_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Annotated[int, Field(ge=1)]


class Cube(Masker):
    """Cuts the grid into cells of t x h x w tokens and hides random ones whole.

    Where the grid does not divide into cells, those at its far edges are smaller. So that the count
    is exact all the same, the ratio then gives the number of tokens, and the last cell drawn is
    hidden in part, at random places.
    """

    class Options(PartOptions):
        ratio: float = Field(0.75, gt=0, lt=1, description="hidden fraction of the cells")
        rounding: Rounding = Field(
            "keep",
            description="of the cells. keep: int(cells*(1-ratio)) stay visible; "
            "hidden: int(ratio*cells) are hidden",
        )
        cell: tuple[Side, Side, Side] = Field(
            (2, 2, 2), description="time slots, rows and columns of a cell, in tokens"
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the number of hidden tokens."""
        cells = self._cells(grid).tokens
        hidden = hidden_of(cells, self.options.ratio, self.options.rounding)
        return hidden * grid.tokens // cells  # hidden * (tokens a cell) where all are whole

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden."""
        cells = self._cells(grid)
        t, h, w = (
            np.arange(size) // step for size, step in zip(grid, self.options.cell, strict=True)
        )
        cell_of = (t[:, None, None] * cells.h + h[:, None]) * cells.w + w
        # Tokens in the order of their cell's place in the draw, shuffled within a cell.
        place = rng.permutation(cells.tokens)[cell_of.reshape(-1)]
        order = np.lexsort((rng.permutation(grid.tokens), place))
        hidden = np.zeros(grid.tokens, dtype=np.bool_)
        hidden[order[: self.count(grid)]] = True
        return hidden.reshape(grid)

    def _cells(self, grid: Grid) -> Grid:
        return Grid(*(-(-size // step) for size, step in zip(grid, self.options.cell, strict=True)))
