"""Token order, patch flattening and masks, against loops written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maekit.grid import Grid
from maekit.tokens import Mask, gather, interpolate_from_visible, patchify, unpatchify

SIDES = st.integers(1, 4)


@given(t=SIDES, h=SIDES, w=SIDES, pt=SIDES, ph=SIDES, pw=SIDES, c=st.integers(1, 5))
def test_patchify_is_raster_order_with_channels_fastest(
    t: int, h: int, w: int, pt: int, ph: int, pw: int, c: int
) -> None:
    pixels = torch.arange(c * t * pt * h * ph * w * pw, dtype=torch.float32)
    pixels = pixels.reshape(1, c, t * pt, h * ph, w * pw)
    patches = patchify(pixels, (pt, ph, pw))
    expected = [
        [
            pixels[0, channel, i * pt + a, j * ph + b, k * pw + d].item()
            for a in range(pt)
            for b in range(ph)
            for d in range(pw)
            for channel in range(c)
        ]
        for i in range(t)
        for j in range(h)
        for k in range(w)
    ]
    assert patches[0].tolist() == expected
    assert torch.equal(unpatchify(patches, Grid(t, h, w), (pt, ph, pw)), pixels)


def random_maps(batch: int, tokens: int, hidden: int, seed: int) -> torch.Tensor:
    order = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return order < hidden


@given(st.integers(2, 40), st.data())
def test_mask_splits_every_row_in_raster_order(tokens: int, data: st.DataObject) -> None:
    hidden_count = data.draw(st.integers(1, tokens - 1))
    hidden = random_maps(3, tokens, hidden_count, data.draw(st.integers(0, 99)))
    mask = Mask.build(hidden)
    for row in range(3):
        assert mask.queries[row].tolist() == torch.where(hidden[row])[0].tolist()
        assert mask.visible[row].tolist() == torch.where(~hidden[row])[0].tolist()
    assert torch.equal(mask.hidden(), hidden)
    assert bool((mask.weight == 1).all())


def test_mask_loss_on_all_asks_for_everything() -> None:
    hidden = random_maps(2, 9, 5, 0)
    mask = Mask.build(hidden, loss_on="all")
    assert mask.queries.tolist() == [list(range(9))] * 2
    assert bool((mask.weight == 1).all())


def test_dual_masking_counts_only_what_the_encoder_did_not_see() -> None:
    hidden = torch.tensor([[True, True, False, False]])
    asked = torch.tensor([[True, False, True, False]])
    mask = Mask.build(hidden, requested=asked)
    assert mask.queries.tolist() == [[0, 2]]
    assert mask.weight.tolist() == [[1.0, 0.0]]


def test_rows_that_ask_for_less_are_padded_with_weight_zero() -> None:
    hidden = torch.tensor([[True, True, False], [True, False, True]])
    asked = torch.tensor([[True, True, False], [True, False, False]])
    mask = Mask.build(hidden, requested=asked, count=2)
    assert mask.weight.sum(1).tolist() == [2.0, 1.0]


def test_a_bad_sample_has_no_weight() -> None:
    mask = Mask.build(random_maps(2, 8, 6, 1), sample_weight=torch.tensor([1.0, 0.0]))
    assert mask.weight.sum(1).tolist() == [6.0, 0.0]


def test_uneven_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="same number"):
        Mask.build(torch.tensor([[True, False], [True, True]]))
    with pytest.raises(ValueError, match="more than 1"):
        Mask.build(torch.tensor([[True, True, False]]), count=1)


def test_spread_keeps_constants_and_visible_values_and_stays_in_range() -> None:
    grid = Grid(2, 3, 4)
    hidden = random_maps(2, grid.tokens, 15, 3)
    mask = Mask.build(hidden, loss_on="all")
    values = torch.rand(2, grid.tokens - 15, 3)
    constant = interpolate_from_visible(torch.full_like(values, 0.3), mask, grid)
    assert torch.allclose(constant, torch.tensor(0.3))
    guess = interpolate_from_visible(values, mask, grid)
    assert torch.allclose(gather(guess, mask.visible), values, atol=1e-6)
    assert float(guess.min()) >= float(values.min()) - 1e-6
    assert float(guess.max()) <= float(values.max()) + 1e-6


def test_spread_weighs_by_inverse_distance() -> None:
    # A row of four: the outer two visible; the token beside an end is at distance 1 and 2.
    mask = Mask.build(torch.tensor([[False, True, True, False]]))
    guess = interpolate_from_visible(torch.tensor([[[0.0], [1.0]]]), mask, Grid(1, 1, 4))
    near, far = 1.0, 2.0**-4
    np.testing.assert_allclose(guess[0, :, 0], [far / (near + far), near / (near + far)], rtol=1e-6)


def test_spread_is_float32_also_under_autocast() -> None:
    """Statistics stay exact where the model runs in bfloat16."""
    grid = Grid(1, 4, 4)
    mask = Mask.build(random_maps(2, grid.tokens, 12, 5))
    values = torch.rand(2, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        guess = interpolate_from_visible(values, mask, grid)
    assert guess.dtype == torch.float32
    assert torch.equal(guess, interpolate_from_visible(values, mask, grid))
