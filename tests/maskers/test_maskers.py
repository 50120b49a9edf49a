"""Maskers: exact counts, purity, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maekit.grid import Grid
from maekit.maskers.grid import GridMasker
from maekit.maskers.random import Random

GRIDS = st.builds(Grid, st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
RATIOS = st.floats(0.05, 0.95)


def random_masker(ratio: float, rounding: str = "keep") -> Random:
    return Random(Random.Options.model_validate({"ratio": ratio, "rounding": rounding}))


@given(GRIDS, RATIOS, st.sampled_from(["keep", "hidden"]), st.integers(0, 2**32))
def test_random_hides_exactly_what_it_declares_and_is_pure(
    grid: Grid, ratio: float, rounding: str, seed: int
) -> None:
    masker = random_masker(ratio, rounding)
    first, second = (masker(grid, np.random.default_rng(seed)) for _ in range(2))
    assert first.dtype == bool
    assert first.shape == grid
    assert first.sum() == masker.count(grid)
    np.testing.assert_array_equal(first, second)


# Visible tokens of 196 under both roundings, from the sources' own arithmetic.
KEPT = {
    0.1: (176, 177), 0.2: (156, 157), 0.3: (137, 138), 0.4: (117, 118), 0.5: (98, 98),
    0.6: (78, 79), 0.7: (58, 59), 0.75: (49, 49), 0.8: (39, 40), 0.9: (19, 20),
}  # fmt: skip


@pytest.mark.parametrize("ratio", KEPT)
def test_both_roundings_keep_what_the_papers_code_keeps(ratio: float) -> None:
    grid = Grid(1, 14, 14)
    kept = tuple(196 - random_masker(ratio, rule).count(grid) for rule in ("keep", "hidden"))
    assert kept == KEPT[ratio]


def test_random_covers_every_position_equally() -> None:
    grid, draws = Grid(2, 3, 5), 4000
    masker, rng = random_masker(0.6), np.random.default_rng(0)
    share = sum(masker(grid, rng).astype(float) for _ in range(draws)) / draws
    expected = masker.count(grid) / grid.tokens
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert np.abs(share - expected).max() < 4.5 * deviation


@given(GRIDS, st.integers(1, 4), st.integers(1, 4))
def test_grid_keeps_the_corner_of_every_cell(grid: Grid, height: int, width: int) -> None:
    masker = GridMasker(GridMasker.Options(cell=(height, width)))
    hidden = masker(grid, np.random.default_rng(0))
    assert hidden.sum() == masker.count(grid)
    for (_, row, column), value in np.ndenumerate(hidden):
        assert value != (row % height == 0 and column % width == 0)


def test_grid_hides_three_quarters_by_default() -> None:
    masker = GridMasker(GridMasker.Options())
    assert masker.count(Grid(1, 14, 14)) == 147
