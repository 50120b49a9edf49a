"""Check the promises of a masker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maekit.contracts import Grid, Masker
from maekit.testing.names import check_names

GRIDS = (Grid(1, 14, 14), Grid(1, 7, 9), Grid(8, 14, 14), Grid(2, 3, 5))


def check_masker(masker: Masker, grids: Sequence[Grid] = GRIDS, draws: int = 20) -> None:
    """Check shape, dtype, purity, and that every draw hides the same number.

    Args:
        masker: what is checked.
        grids: those that the masker is made for; default: images and clips, even and odd.
        draws: masks that are drawn at each grid.
    """
    check_names(masker, Masker)
    for grid in grids:
        counts = set()
        for seed in range(draws):
            first, again = (_draw(masker, grid, np.random.default_rng(seed)) for _ in range(2))
            assert isinstance(first, np.ndarray), f"returned {type(first).__name__}, not an array"
            assert first.dtype == np.bool_, f"dtype {first.dtype}, not bool"
            assert first.shape == tuple(grid), f"shape {first.shape} at a grid of {tuple(grid)}"
            assert np.array_equal(first, again), "two draws with one generator differ: not pure"
            counts.add(int(first.sum()))
        assert len(counts) == 1, f"hides {sorted(counts)} tokens of a grid of {grid}: not constant"
        declared = masker.count(grid)
        if declared is not None:
            assert counts == {declared}, f"hides {counts}, but count says {declared}"


def _draw(masker: Masker, grid: Grid, rng: np.random.Generator) -> Any:  # noqa: ANN401 (checked)
    before = np.random.get_state(legacy=False)  # noqa: NPY002 (watched, not used)
    if masker.needs_pixels:
        shape = (grid.t, grid.h * 8, grid.w * 8, 3)
        pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        pixels.flags.writeable = False
        drawn = masker(grid, rng, pixels=pixels)
    else:
        drawn = masker(grid, rng)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert str(before) == str(after), "uses numpy's global generator, not its own"
    return drawn
