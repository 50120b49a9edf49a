"""What is painted: nothing of what is hidden is in it, except where it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numerics import close, vit_terms

from maekit.engine.build import build_model
from maekit.tokens import patchify, unpatchify
from maekit.visualize.masks import ForwardPass, MaskRow
from maekit.visualize.painting import Painted, paint_row
from maekit.visualize.panel import over_pixels
from maekit.visualize.scores import score
from maekit.weights.header import Header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from maekit.model import MaskedAutoencoder


def small_model(target: Mapping[str, str], frames: int) -> MaskedAutoencoder:
    torch.manual_seed(0)
    video = frames > 1
    backbone = {"name": "video-vit" if video else "image-vit", "width": 16, "depth": 2,
                "heads": 2, "patch": [2, 4, 4] if video else 4}  # fmt: skip
    decoder = {"name": "vit", "width": 16, "depth": 1, "heads": 2}
    header = Header.model_validate(
        {"backbone": backbone, "decoder": decoder, "target": target, "masker": {"name": "random"},
         "clip": (frames, 16, 24), "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    )  # fmt: skip
    return build_model(header).eval()


def shown(painted: Painted) -> dict[str, np.ndarray]:
    return {"prediction": painted.visible_stats, **painted.baselines}


def drawn(model: MaskedAutoencoder, seed: int) -> tuple[Tensor, np.ndarray]:
    """Make a clip in [0, 1], and hide three of four tokens hidden."""
    rng = np.random.default_rng(seed)
    hidden = rng.permutation(model.grid.tokens) < model.grid.tokens * 3 // 4
    pixels = rng.random((1, 3, *model.clip)).astype(np.float32)
    return torch.from_numpy(pixels), hidden


TARGETS = [
    {"name": "pixel"},
    {"name": "norm-pixel"},
    {"name": "norm-pixel", "statistics": "per-channel", "eps": "outside", "space": "unit"},
]


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_hidden_is_in_the_prediction_or_a_baseline(
    target: Mapping[str, str], frames: int
) -> None:
    model = small_model(target, frames)
    pixels, hidden = drawn(model, 1)
    row = MaskRow("", (ForwardPass(hidden, hidden),))
    patch = model.backbone.patch
    patches = patchify(pixels, patch)
    other = torch.where(torch.from_numpy(hidden)[None, :, None], 1 - patches, patches)
    changed = unpatchify(other, model.grid, patch)
    one, two = (paint_row(model, [each], row) for each in (pixels, changed))
    where = over_pixels(hidden.reshape(model.grid), patch, one.original)
    for name, picture in shown(one).items():
        assert np.array_equal(picture[where], shown(two)[name][where]), name
        assert np.array_equal(picture[~where], one.original[~where]), name
    if target["name"] == "norm-pixel":
        assert one.oracle_stats is not None
        assert two.oracle_stats is not None
        assert (one.oracle_stats[where] != two.oracle_stats[where]).mean() > 0.9
    columns = [each.stages(oracle=False)[1:] for each in (one, two)]
    for left, right in zip(*columns, strict=True):
        assert np.array_equal(left, right)


def test_the_zero_prediction_is_the_interpolated_mean_of_each_channel() -> None:
    model = small_model(TARGETS[2], 4)
    pixels, hidden = drawn(model, 2)
    painted = paint_row(model, [pixels], MaskRow("", (ForwardPass(hidden, hidden),)))
    found = painted.baselines
    np.testing.assert_allclose(found["zero_prediction"], found["interpolated_mean"], atol=1e-6)


def test_scores_are_scikit_images_over_hidden_pixels_of_the_pasted_picture() -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    model = small_model({"name": "norm-pixel"}, 1)
    pixels, hidden = drawn(model, 3)
    painted = paint_row(model, [pixels], MaskRow("", (ForwardPass(hidden, hidden),)))
    where = over_pixels(hidden.reshape(model.grid), model.backbone.patch, painted.original)
    scores = score(painted)
    truth, picture = painted.original[0].astype(float), painted.visible_stats[0].astype(float)
    _, similarity = structural_similarity(
        truth, picture, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert scores.prediction.ssim == pytest.approx(similarity[where[0]].mean(), abs=1e-9)
    expected = peak_signal_noise_ratio(truth[where[0]], picture[where[0]], data_range=1.0)
    assert scores.prediction.psnr == pytest.approx(expected, abs=1e-6)


def test_samples_of_a_batch_are_painted_as_each_alone() -> None:
    model = small_model({"name": "norm-pixel"}, 1)
    clips = torch.cat([drawn(model, seed)[0] for seed in range(3)])
    _, hidden = drawn(model, 0)
    row = MaskRow("", (ForwardPass(hidden, hidden),))
    together = paint_row(model, [clips], row)
    for place, clip in enumerate(clips.split(1)):
        alone = paint_row(model, [clip], row)
        close(together.visible_stats[place], alone.visible_stats[0], terms=vit_terms(48, 16, 3, 25))
        assert np.array_equal(together.original[place], alone.original[0])
