"""Block, cube and running-cell masks: exact counts, purity, their shapes, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maekit.errors import PartError
from maekit.grid import Grid
from maekit.maskers.block import Block
from maekit.maskers.cube import Cube
from maekit.maskers.running_cell import RunningCell

GRIDS = st.builds(Grid, st.integers(1, 5), st.integers(1, 15), st.integers(1, 15))
RATIOS = st.floats(0.05, 0.95)
ROUNDINGS = st.sampled_from(["keep", "hidden"])
SIDES = st.integers(1, 4)


def block(**options: Any) -> Block:
    return Block(Block.Options.model_validate(options))


def cube(**options: Any) -> Cube:
    return Cube(Cube.Options.model_validate(options))


def running(**options: Any) -> RunningCell:
    return RunningCell(RunningCell.Options.model_validate(options))


def by_hand(n: int, ratio: float, rounding: str) -> int:
    return int(ratio * n) if rounding == "hidden" else n - int(n * (1 - ratio))


def drawn(masker: Any, grid: Grid, seed: int) -> np.ndarray:
    """Draw a mask, having seen that it is pure and counts right."""
    first, second = (masker(grid, np.random.default_rng(seed)) for _ in range(2))
    assert first.dtype == bool
    assert first.shape == grid
    assert first.sum() == masker.count(grid)
    np.testing.assert_array_equal(first, second)
    return first


def share(masker: Any, grid: Grid, draws: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return sum(masker(grid, rng).astype(float) for _ in range(draws)) / draws


@given(GRIDS, RATIOS, ROUNDINGS, st.integers(1, 40), st.floats(0.1, 1), st.integers(0, 2**32))
def test_blocks_are_one_map_of_the_exact_count(
    grid: Grid, ratio: float, rounding: str, area: int, aspect: float, seed: int
) -> None:
    masker = block(ratio=ratio, rounding=rounding, min_area=area, aspect=aspect)
    mask = drawn(masker, grid, seed)
    assert (mask == mask[:1]).all()
    assert mask[0].sum() == by_hand(grid.h * grid.w, ratio, rounding)


def neighbors_alike(mask: np.ndarray) -> float:
    """How often a token and the one beside it, right or below, are both hidden or both seen."""
    right, below = mask[:, :, 1:] == mask[:, :, :-1], mask[:, 1:] == mask[:, :-1]
    return float(np.concatenate([right.ravel(), below.ravel()]).mean())


def test_blocks_hold_together() -> None:
    grid = Grid(1, 14, 14)
    rng = np.random.default_rng(0)
    alike = [neighbors_alike(block()(grid, rng)) for _ in range(200)]
    assert np.mean(alike) > 0.8  # random masks: 0.5


def test_blocks_reach_every_place_and_favor_no_side() -> None:
    often = share(block(), Grid(1, 10, 10), 3000)[0]
    assert often.min() > 0.05  # a corner lies in fewer rectangles than the middle
    np.testing.assert_allclose(often, often[::-1], atol=0.06)
    np.testing.assert_allclose(often, often[:, ::-1], atol=0.06)
    np.testing.assert_allclose(often, often.T, atol=0.06)


def test_the_aspect_bounds_rectangles() -> None:
    # One rectangle of 36 tokens: with aspect 1 only the square.
    masker = block(ratio=0.36, rounding="hidden", min_area=36, aspect=1.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = np.nonzero(masker(Grid(1, 10, 10), rng)[0])
        assert (np.ptp(rows), np.ptp(columns)) == (5, 5)
    flat = block(ratio=0.36, rounding="hidden", min_area=36, aspect=0.3)
    shapes = {np.ptp(np.nonzero(flat(Grid(1, 20, 20), rng)[0]), axis=1).tobytes() for _ in range(9)}
    assert len(shapes) > 3


@given(GRIDS, RATIOS, ROUNDINGS, st.tuples(SIDES, SIDES, SIDES), st.integers(0, 2**32))
def test_cubes_are_hidden_whole_but_for_one(
    grid: Grid, ratio: float, rounding: str, cell: tuple[int, int, int], seed: int
) -> None:
    mask = drawn(cube(ratio=ratio, rounding=rounding, cell=cell), grid, seed)
    partly, cells = 0, 0
    for t in range(0, grid.t, cell[0]):
        for h in range(0, grid.h, cell[1]):
            for w in range(0, grid.w, cell[2]):
                part = mask[t : t + cell[0], h : h + cell[1], w : w + cell[2]]
                partly += bool(part.any() and not part.all())
                cells += 1
    whole = all(size % step == 0 for size, step in zip(grid, cell, strict=True))
    assert partly <= (0 if whole else 1)
    if whole:
        assert mask.sum() == by_hand(cells, ratio, rounding) * cell[0] * cell[1] * cell[2]


@pytest.mark.parametrize("grid", [Grid(4, 6, 4), Grid(1, 6, 8)])
def test_cubes_and_cells_hide_every_position_equally_often(grid: Grid) -> None:
    draws = 4000
    for masker in (cube(cell=(2, 3, 2), ratio=0.6), cube(cell=(1, 1, 1)), running(ratio=0.75)):
        expected = masker.count(grid) / grid.tokens
        deviation = np.sqrt(expected * (1 - expected) / draws)
        assert np.abs(share(masker, grid, draws) - expected).max() < 4.5 * deviation


def test_cut_cubes_reach_every_position() -> None:
    grid = Grid(3, 5, 7)
    expected = cube().count(grid) / grid.tokens
    np.testing.assert_allclose(share(cube(), grid, 3000), expected, atol=0.06)


@given(
    st.builds(lambda t, h, w: Grid(t, 2 * h, 2 * w), SIDES, SIDES, SIDES),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.integers(0, 2**32),
)
def test_running_cells_are_the_published_queue(grid: Grid, ratio: float, seed: int) -> None:
    """Against the generator as VideoMAEv2 words it, from its four starts; True there = left out."""
    mask = drawn(running(ratio=ratio), grid, seed)
    left_out = int(4 * (1 - ratio))
    queue = np.array([1] * left_out + [0] * (4 - left_out))
    published = []
    for start in range(4):
        slots = []
        pointer = start
        for _ in range(grid.t):
            pointer += 1
            cell = queue[(np.arange(4) + pointer) % 4].reshape(2, 2)
            slots.append(np.tile(cell, (grid.h // 2, grid.w // 2)))
        published.append(np.stack(slots))
    assert any((mask == (1 - theirs)).all() for theirs in published)


def test_running_cells_predict_half_of_videomaev2s_clip_and_refuse_odd_grids() -> None:
    assert running().count(Grid(8, 14, 14)) == 784
    for act in (running().count, lambda grid: running()(grid, np.random.default_rng(0))):
        with pytest.raises(PartError, match="1x7x8"):
            act(Grid(1, 7, 8))
