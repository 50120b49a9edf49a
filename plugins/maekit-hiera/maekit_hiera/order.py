"""The order of tokens in units, in which pooling 2 x 2 tokens is a maximum over four neighbors.

A unit's tokens are numbered coarse to fine: which quarter of the unit, which quarter of that, and
so on. Four tokens that are pooled stand next to each other at every level, whatever is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maekit.contracts import Grid


def within(side: int) -> Tensor:
    """Return the row and column of each of a unit's ``side * side`` tokens, int64 ``[m, 2]``.

    Args:
        side: a power of two.
    """
    places = torch.zeros(1, 2, dtype=torch.int64)
    quarters = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    step = side
    while step > 1:
        step //= 2
        places = (places[:, None] + quarters * step).reshape(-1, 2)
    return places


def by_unit(grid: Grid, side: int) -> Tensor:
    """Return the raster number of each token of each unit of an image: int64 ``[U, m]``.

    Args:
        grid: of the tokens; its units are in raster order.
        side: tokens of a unit along each side.
    """
    units = grid.over((1, side, side))
    rows, columns = torch.meshgrid(torch.arange(units.h), torch.arange(units.w), indexing="ij")
    first = torch.stack([rows, columns], dim=-1).reshape(-1, 1, 2) * side
    places = first + within(side)
    return places[..., 0] * grid.w + places[..., 1]
