"""Running cells: the tokens that VideoMAEv2's decoder predicts.

arXiv 2303.16727, section 3.2; dataset/masking_generator.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from maekit.contracts import Grid, Masker, PartOptions
from maekit.errors import PartError
from maekit.maskers.rounding import Rounding, hidden_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 2  # rows and columns of a cell
_PLACES = _SIDE * _SIDE


class RunningCell(Masker):
    """Picks a run of places in every 2 x 2 cell, one place further in each time slot.

    Made for ``pretrain.decoder_masker``, where True = to be predicted: over four slots every place
    has its turn. There are four such masks, one is drawn.
    """

    class Options(PartOptions):
        ratio: float = Field(
            0.5, gt=0, lt=1, description="fraction of a cell's 4 places that is hidden (predicted)"
        )
        rounding: Rounding = Field(
            "keep",
            description="keep: int(4*(1-ratio)) are left out (VideoMAEv2); "
            "hidden: int(4*ratio) are picked",
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def count(self, grid: Grid) -> int:
        """Return the number of hidden (predicted) tokens.

        Raises:
            PartError: the grid does not divide into cells, so that the four masks would differ.
        """
        if grid.h % _SIDE or grid.w % _SIDE:
            what = f"a grid of {grid} tokens does not divide into cells of {_SIDE}x{_SIDE}"
            raise PartError(what, where="running-cell", hint="change data.size or the patch size")
        return grid.tokens // _PLACES * self._picked

    def __call__(self, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw a mask, bool ``[t, h, w]``, True = hidden (to be predicted)."""
        self.count(grid)
        start = int(rng.integers(_PLACES))
        row, column = np.arange(grid.h)[:, None] % _SIDE, np.arange(grid.w) % _SIDE
        place = row * _SIDE + column
        slot = np.arange(grid.t)[:, None, None]
        picked: NDArray[np.bool_] = (place + slot + start) % _PLACES < self._picked
        return picked

    @property
    def _picked(self) -> int:
        return hidden_of(_PLACES, self.options.ratio, self.options.rounding)
