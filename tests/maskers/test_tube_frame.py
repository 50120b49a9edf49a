"""Tube and frame masks: exact counts, purity, what they share over time, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maekit.grid import Grid
from maekit.maskers.frame import Frame
from maekit.maskers.tube import Tube

GRIDS = st.builds(Grid, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
RATIOS = st.floats(0.05, 0.95)
ROUNDINGS = st.sampled_from(["keep", "hidden"])
VIDEOMAE = Grid(8, 14, 14)


def tube(ratio: float = 0.9, rounding: str = "hidden") -> Tube:
    return Tube(Tube.Options.model_validate({"ratio": ratio, "rounding": rounding}))


def frame(ratio: float = 0.875, rounding: str = "hidden") -> Frame:
    return Frame(Frame.Options.model_validate({"ratio": ratio, "rounding": rounding}))


def by_hand(n: int, ratio: float, rounding: str) -> int:
    return int(ratio * n) if rounding == "hidden" else n - int(n * (1 - ratio))


@given(GRIDS, RATIOS, ROUNDINGS, st.integers(0, 2**32))
def test_a_tube_is_one_map_in_every_time_slot(
    grid: Grid, ratio: float, rounding: str, seed: int
) -> None:
    masker = tube(ratio, rounding)
    first, second = (masker(grid, np.random.default_rng(seed)) for _ in range(2))
    assert first.dtype == bool
    assert first.shape == grid
    assert (first == first[:1]).all()
    assert first[0].sum() == by_hand(grid.h * grid.w, ratio, rounding)
    assert first.sum() == masker.count(grid)
    np.testing.assert_array_equal(first, second)


@given(GRIDS, RATIOS, ROUNDINGS, st.integers(0, 2**32))
def test_a_frame_mask_hides_whole_time_slots(
    grid: Grid, ratio: float, rounding: str, seed: int
) -> None:
    masker = frame(ratio, rounding)
    first, second = (masker(grid, np.random.default_rng(seed)) for _ in range(2))
    assert first.dtype == bool
    assert first.shape == grid
    slots = first.reshape(grid.t, -1)
    assert (slots == slots[:, :1]).all()
    assert slots[:, 0].sum() == by_hand(grid.t, ratio, rounding)
    assert first.sum() == masker.count(grid)
    np.testing.assert_array_equal(first, second)


# Hidden of VideoMAE's 1,568 tokens (masking_generator.py); keep as mae_st would count a time slot.
@pytest.mark.parametrize(
    ("ratio", "rounding", "hidden"),
    [(0.9, "hidden", 1408), (0.75, "hidden", 1176), (0.9, "keep", 1416), (0.75, "keep", 1176)],
)
def test_tubes_hide_as_many_as_videomaes(ratio: float, rounding: str, hidden: int) -> None:
    assert tube(ratio, rounding).count(VIDEOMAE) == hidden


def test_the_defaults_are_videomaes() -> None:
    rng = np.random.default_rng(0)
    tubes = Tube(Tube.Options())(VIDEOMAE, rng)
    assert (~tubes).sum() == 160
    frames = Frame(Frame.Options())(VIDEOMAE, rng)
    assert (~frames).any(axis=(1, 2)).sum() == 1  # table 1b: 87.5 % of 8 time slots


@pytest.mark.parametrize("masker", [tube(0.6), frame(0.6)])
def test_every_position_is_hidden_equally_often(masker: Tube | Frame) -> None:
    grid, draws = Grid(5, 3, 5), 4000
    rng = np.random.default_rng(0)
    share = sum(masker(grid, rng).astype(float) for _ in range(draws)) / draws
    expected = masker.count(grid) / grid.tokens
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert np.abs(share - expected).max() < 4.5 * deviation
