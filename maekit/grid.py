"""The grid of patch tokens: ``t`` time slots of ``h`` rows and ``w`` columns."""

from __future__ import annotations

from typing import NamedTuple


class Grid(NamedTuple):
    """Tokens along time, height and width; raster order is t, then h, then w. Images have t = 1."""

    t: int
    h: int
    w: int

    @property
    def tokens(self) -> int:
        """N, the number of patch tokens."""
        return self.t * self.h * self.w

    def over(self, unit: tuple[int, int, int]) -> Grid:
        """Return the grid of maskable units of ``unit`` tokens; raise ValueError on a remainder."""
        if any(size % step for size, step in zip(self, unit, strict=True)):
            raise ValueError(f"a grid of {self} tokens does not divide into units of {unit}")
        return Grid(*(size // step for size, step in zip(self, unit, strict=True)))

    def __str__(self) -> str:
        return f"{self.t}x{self.h}x{self.w}"
