"""Scores: SSIM as scikit-image's, fills as defined, and no gain for whoever predicts nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from maekit.engine.validation import psnr
from maekit.grid import Grid
from maekit.tokens import Mask, patchify
from maekit.visualize.prediction import inpainting_baselines
from maekit.visualize.scores import (
    MOST,
    PictureScore,
    Scores,
    compare,
    dataset_score,
    ssim_map,
)


@pytest.mark.parametrize("shape", [(24, 31, 3), (12, 11, 1), (16, 16, 5)])
def test_ssim_is_scikit_images(shape: tuple[int, int, int]) -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    one = rng.random(shape)
    other = np.clip(one + rng.normal(0, 0.2, shape), 0, 1)
    _, expected = structural_similarity(
        one, other, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    clips = (np.stack([frame, one]) for frame in (one, other))  # frames are compared one by one
    found = ssim_map(*clips)
    np.testing.assert_allclose(found[0], expected.mean(-1), atol=1e-10)
    np.testing.assert_allclose(found[1], 1)


def test_frames_smaller_than_the_window_are_compared() -> None:
    one = np.random.default_rng(0).random((2, 2, 3, 1))
    np.testing.assert_allclose(ssim_map(one, one), 1)


def test_only_the_pixels_asked_for_count() -> None:
    original = np.zeros((1, 16, 16, 3), np.float32)
    picture = original.copy()
    picture[0, :4] = 0.5
    where = np.zeros((1, 16, 16), bool)
    where[0, :8] = True
    found = compare(original, picture, where)
    assert found.psnr == pytest.approx(-10 * math.log10(0.125))
    assert compare(original, picture, ~where).psnr == MOST
    assert found.ssim == pytest.approx(ssim_map(original, picture)[0, :8].mean())


def test_exact_is_a_number_and_lost_stays_lost() -> None:
    assert psnr(0.0) == math.inf
    assert PictureScore(0.0, 4, 1.0).psnr == MOST
    assert psnr(0.01) == pytest.approx(20)
    assert math.isnan(PictureScore(math.nan, 4, 0.0).psnr)


def test_a_set_is_scored_by_the_error_of_all_pixels_and_not_a_mean_of_decibels() -> None:
    def scores(error: float, fill: float, values: int) -> Scores:
        return Scores(
            PictureScore(error * values, values, 0),
            {"a": PictureScore(fill * values, values, 0)},
            None,
            None,
            1,
        )

    both = dataset_score([scores(0.1, 0.2, 100), scores(0.001, 0.001, 300)])
    assert both["psnr"] == pytest.approx(psnr((0.1 * 100 + 0.001 * 300) / 400), abs=1e-3)
    assert both["gain_db"] == pytest.approx(
        both["psnr"] - psnr((0.2 * 100 + 0.001 * 300) / 400), abs=1e-3
    )
    assert dataset_score([])["gain_db"] is None


def test_baselines_see_visible_patches_only_and_are_what_they_are_called() -> None:
    grid, patch = Grid(1, 3, 4), (1, 2, 2)
    pixels = torch.rand(1, 3, 1, 6, 8)
    hidden = torch.ones(1, 12, dtype=torch.bool)
    hidden[0, [0, 7]] = False
    mask = Mask.build(hidden)
    found = inpainting_baselines(pixels, mask, grid, patch)
    patches = patchify(pixels, patch)[0]
    mean = torch.stack([patches[0], patches[7]]).unflatten(-1, (-1, 3)).mean(dim=(0, 1))
    torch.testing.assert_close(found["visible_mean"][0, 5], mean.repeat(4))
    queries = mask.queries[0].tolist()
    assert torch.equal(found["nearest_visible"][0, queries.index(1)], patches[0])
    assert torch.equal(found["nearest_visible"][0, queries.index(11)], patches[7])
    assert torch.equal(found["nearest_visible"][0, queries.index(9)], patches[0])  # a tie
    changed = torch.where(hidden[0, :, None], torch.rand_like(patches), patches)
    pixels[:] = changed.reshape(1, 3, 4, 2, 2, 3).permute(5, 0, 1, 3, 2, 4).reshape(3, 1, 6, 8)
    again = inpainting_baselines(pixels, mask, grid, patch)
    for name, value in found.items():
        assert torch.equal(value, again[name]), name
