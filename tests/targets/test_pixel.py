"""Pixel targets against plain numpy, for every disagreement of the sources."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from maekit.contracts import Grid, PartContext
from maekit.targets.pixel import NormPixel, Pixel
from maekit.tokens import Mask, gather, patchify

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
CONTEXT = PartContext((2, 8, 12), 3, MEAN, STD, grid=Grid(1, 2, 3), patch=(2, 4, 4))


@pytest.fixture
def sample() -> tuple[torch.Tensor, Mask]:
    torch.manual_seed(0)
    hidden = torch.rand(2, 6).argsort(1) < 4
    return torch.rand(2, 3, 2, 8, 12), Mask.build(hidden)


def reference(
    pixels: torch.Tensor, mask: Mask, *, space: str, statistics: str | None, eps: str
) -> np.ndarray:
    """Patch by patch, from the papers' formulas."""
    clip = pixels.numpy().astype(np.float64)
    if space == "normalized":
        shape = (1, 3, 1, 1, 1)
        clip = (clip - np.reshape(MEAN, shape)) / np.reshape(STD, shape)
    out = np.zeros((2, mask.queries.shape[1], 96))
    for row, (sample, queries) in enumerate(zip(clip, mask.queries.tolist(), strict=True)):
        for place, token in enumerate(queries):
            top, left = 4 * (token // 3), 4 * (token % 3)
            patch = sample[:, :, top : top + 4, left : left + 4].transpose(1, 2, 3, 0)
            if statistics is not None:
                axis = (0, 1, 2, 3) if statistics == "joint" else (0, 1, 2)
                var = patch.var(axis=axis, ddof=1, keepdims=True)
                std = (var + 1e-6) ** 0.5 if eps == "inside" else var**0.5 + 1e-6
                patch = (patch - patch.mean(axis=axis, keepdims=True)) / std
            out[row, place] = patch.reshape(-1)
    return out


@pytest.mark.parametrize("space", ["normalized", "unit"])
def test_pixel_is_the_patch_in_its_space(sample: tuple[torch.Tensor, Mask], space: str) -> None:
    target = Pixel(Pixel.Options.model_validate({"space": space}), CONTEXT)
    truth = target.encode([sample[0]], sample[1])
    expected = reference(*sample, space=space, statistics=None, eps="inside")
    np.testing.assert_allclose(truth, expected, atol=1e-5)
    assert truth.shape[-1] == target.out_dim


@pytest.mark.parametrize(
    ("space", "statistics", "eps"),
    list(
        itertools.product(["normalized", "unit"], ["joint", "per-channel"], ["inside", "outside"])
    ),
)
def test_norm_pixel_is_the_papers_formula(
    sample: tuple[torch.Tensor, Mask], space: str, statistics: str, eps: str
) -> None:
    options = {"space": space, "statistics": statistics, "eps": eps}
    target = NormPixel(NormPixel.Options.model_validate(options), CONTEXT)
    truth = target.encode([sample[0]], sample[1])
    expected = reference(*sample, **options)
    np.testing.assert_allclose(truth, expected, atol=2e-4)


def test_where_epsilon_stands_shows_on_a_flat_patch() -> None:
    # A deviation of 1e-3 is where (var + eps)**0.5 and var**0.5 + eps part.
    torch.manual_seed(0)
    pixels = 0.5 + 1e-3 * torch.randn(1, 3, 2, 8, 12)
    mask = Mask.build(torch.rand(1, 6).argsort(1) < 4)
    inside, outside = (
        NormPixel(NormPixel.Options.model_validate({"eps": eps, "space": "unit"}), CONTEXT)
        for eps in ("inside", "outside")
    )
    ratio = inside.encode([pixels], mask).std() / outside.encode([pixels], mask).std()
    assert float(ratio) == pytest.approx((1 / 2) ** 0.5, rel=0.05)


@pytest.mark.parametrize("statistics", ["joint", "per-channel"])
@pytest.mark.parametrize("space", ["normalized", "unit"])
def test_decode_with_true_statistics_undoes_encode(
    sample: tuple[torch.Tensor, Mask], statistics: str, space: str
) -> None:
    pixels, mask = sample
    options = {"statistics": statistics, "space": space}
    target = NormPixel(NormPixel.Options.model_validate(options), CONTEXT)
    painted = target.decode(target.encode([pixels], mask), pixels, mask, "truth")
    assert torch.allclose(painted, gather(patchify(pixels, (2, 4, 4)), mask.queries), atol=1e-5)


def test_visible_statistics_never_look_at_hidden_pixels(
    sample: tuple[torch.Tensor, Mask],
) -> None:
    pixels, mask = sample
    target = NormPixel(NormPixel.Options(), CONTEXT)
    pred = torch.randn(2, 4, 96)
    hidden = mask.hidden()[:, None, None, :]
    where = hidden.reshape(2, 1, 1, 2, 3).repeat_interleave(4, 3).repeat_interleave(4, 4)
    other = torch.where(where, torch.rand_like(pixels), pixels)
    assert not torch.equal(other, pixels)
    assert torch.equal(
        target.decode(pred, pixels, mask, "visible"), target.decode(pred, other, mask, "visible")
    )
    assert not torch.equal(
        target.decode(pred, pixels, mask, "truth"), target.decode(pred, other, mask, "truth")
    )


def test_losses_are_means_over_the_patch() -> None:
    pred, truth = torch.full((1, 2, 96), 3.0), torch.ones(1, 2, 96)
    for name, expected in {"mse": 4.0, "l1": 2.0, "smooth-l1": 1.5}.items():
        target = Pixel(Pixel.Options.model_validate({"loss": name}), CONTEXT)
        loss = target.loss(pred.to(torch.bfloat16), truth)
        assert loss.dtype == torch.float32
        assert loss.tolist() == [[expected, expected]]


def test_one_channel() -> None:
    context = replace(CONTEXT, channels=1, mean=(0.5,), std=(0.5,))
    target = NormPixel(NormPixel.Options(), context)
    pixels = torch.rand(1, 1, 2, 8, 12)
    mask = Mask.build(torch.rand(1, 6).argsort(1) < 4)
    assert target.encode([pixels], mask).shape == (1, 4, 32)
