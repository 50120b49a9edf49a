"""Mixup and CutMix against arithmetic of their own: on images and clips, by batch and by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.data.order import Key
from maekit.evaluate.augment import MixParams, Mixup, effective_lam, mixed_with


def mixing(**changed: object) -> Mixup:
    options = {"mixup": 0.0, "cutmix": 0.0, "probability": 1.0, "switch": 0.5, "per": "batch"}
    return Mixup(**{**options, "seed": 3, **changed})  # type: ignore[arg-type]


def keys(count: int) -> list[Key]:
    return [Key(2, 10 + number) for number in range(count)]


def batch(rows: int, frames: int, height: int = 12, width: int = 20) -> torch.Tensor:
    """Row i is full of i + 1, so that every pixel says whose it is."""
    values = torch.arange(1.0, rows + 1).view(rows, 1, 1, 1, 1)
    return values.expand(rows, 3, frames, height, width).contiguous()


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_cut_box_goes_through_all_frames_and_labels_say_how_much_it_is(
    frames: int, per: str
) -> None:
    seen = set()
    for epoch in range(12):
        pixels = batch(5, frames)
        own_keys = [Key(epoch, key.index) for key in keys(5)]
        mixed = mixing(cutmix=1.0, per=per)(pixels, own_keys, np.ones(5, bool))
        assert mixed.index.tolist() == [4, 3, 2, 1, 0]
        for row in range(5):
            theirs = mixed.pixels[row] != pixels[row]
            if row == 2:  # mixed with itself
                assert not theirs.any()
                assert mixed.lam[row] == 1
                continue
            assert (mixed.pixels[row][theirs] == float(5 - row)).all()
            share = theirs.double().mean()
            assert float(mixed.lam[row]) == pytest.approx(1 - float(share), abs=1e-6)
            places = theirs[0, 0]
            assert (theirs == places).all()  # every channel and frame
            if places.any():
                rows, columns = torch.nonzero(places, as_tuple=True)
                height = int(rows.max() - rows.min()) + 1
                width = int(columns.max() - columns.min()) + 1
                assert height * width == int(places.sum())  # a box
            seen.add(round(float(share), 3))
    assert len(seen) > 8


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_mixup_is_a_weighted_sum_of_pixels_and_targets(per: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, 2, 6, 8, generator=generator)
    targets = torch.eye(4)
    mixed = mixing(mixup=0.8, per=per)(pixels, keys(4), np.ones(4, bool))
    own = mixed.lam.view(-1, 1, 1, 1, 1)
    expected = own * pixels + (1 - own) * pixels.flip(0)
    torch.testing.assert_close(mixed.pixels, expected)
    weights = mixed.lam[:, None] * targets + (1 - mixed.lam[:, None]) * targets.flip(0)
    torch.testing.assert_close(mixed.targets(targets), weights)
    assert (len(set(mixed.lam.tolist())) == 1) == (per == "batch")
    assert ((mixed.lam > 0) & (mixed.lam < 1)).all()


def test_what_is_drawn_depends_on_the_key_alone() -> None:
    one = mixing(mixup=0.8, cutmix=1.0, per="sample", repeats=2)
    pixels = torch.randn(6, 3, 1, 8, 8)
    again = one(pixels, keys(3), np.ones(6, bool))
    torch.manual_seed(7)
    np.random.default_rng(7)
    assert torch.equal(one(pixels, keys(3), np.ones(6, bool)).pixels, again.pixels)
    draws = [one.draw(key, repeat, 8, 8) for key in keys(3) for repeat in range(2)]
    assert len(set(draws)) == 6
    other = mixing(mixup=0.8, cutmix=1.0, per="sample", seed=4)
    assert other.draw(keys(1)[0], 0, 8, 8) != draws[0]


def test_a_sample_that_could_not_be_read_is_mixed_into_no_other() -> None:
    pixels = batch(5, 1)
    pixels[1] = 0
    good = np.array([True, False, True, True, True])
    mixed = mixing(mixup=0.8)(pixels, keys(5), good)
    assert mixed.index.tolist() == [4, 1, 3, 2, 0]
    assert mixed.lam[1] == 1
    assert torch.equal(mixed.pixels[1], pixels[1])
    assert (mixed.pixels[good] > 0).all()


def test_probability_and_switch() -> None:
    never = mixing(mixup=0.8, probability=0.0)
    assert not never.enabled
    assert not mixing().enabled
    both = mixing(mixup=0.8, cutmix=1.0, switch=0.25, probability=0.5)
    draws = [both.draw(Key(0, number), 0, 32, 32) for number in range(2000)]
    cut = sum(draw.box[3] > 0 for draw in draws) / 2000
    mixed_up = sum(draw.lam < 1 for draw in draws) / 2000
    # A few boxes of CutMix are empty: their draw was near 1.
    assert cut == pytest.approx(0.125, abs=0.03)
    assert mixed_up == pytest.approx(0.375, abs=0.035)


def test_the_area_of_a_box_follows_its_beta_distribution() -> None:
    """A Beta(1, 1) share is uniform; the box that is not cut at an edge has 1 - share of it."""
    one = mixing(cutmix=1.0)
    shares = [effective_lam(one.draw(Key(0, n), 0, 400, 400), 400, 400) for n in range(1500)]
    # E[area / (H W)] of a centered box of side s, cut at the edges: (s - s^2/4)^2, s^2 uniform.
    sides = np.sqrt((np.arange(4000) + 0.5) / 4000)
    expected = 1 - float(np.mean((sides - sides**2 / 4) ** 2))
    assert np.mean(shares) == pytest.approx(expected, abs=0.02)


@given(
    own=st.floats(0, 1),
    top=st.integers(0, 9),
    left=st.integers(0, 9),
    tall=st.integers(0, 9),
    wide=st.integers(0, 9),
)
@settings(max_examples=50)
def test_shares_are_fractions(own: float, top: int, left: int, tall: int, wide: int) -> None:
    draw = MixParams(own, (top, left, min(10, top + tall), min(10, left + wide)))
    assert 0 <= effective_lam(draw, 10, 10) <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_partners_are_pairs_of_good_rows(good: list[bool]) -> None:
    partner = mixed_with(np.array(good))
    assert sorted(partner) == list(range(len(good)))
    for row, other in enumerate(partner):
        assert partner[other] == row
        assert good[row] == good[other]
