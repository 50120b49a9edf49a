"""Test crops, resizing and frames as the official code has them, from their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from maekit.data.clips import frame_ids
from maekit.data.pixels import crop_resize
from maekit.data.plan import Box
from maekit.data.rng import seeded
from maekit.evaluate.augment import rand_augment
from maekit.evaluate.supervision import GRAY
from maekit.evaluate.views import crop_box
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Views

MAE = Views(enlarge=8 / 7, resize="whole-pixels")


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (333, 500), (500, 375), (500, 500), (256, 341), (2, 3)]
)
def test_maes_evaluation_crop_begins_at_a_pixel_of_the_resized_picture(
    height: int, width: int
) -> None:
    """torchvision: Resize(256) gives int(256 * long / short), CenterCrop(224) rounds half of it."""
    short, long = min(height, width), max(height, width)
    resized = int(256 * long / short)
    start = round((resized - 224) / 2.0)
    box = crop_box(height, width, (224, 224), MAE, 0)
    along, across = (box.left, box.top) if width >= height else (box.top, box.left)
    assert along == pytest.approx(start * long / resized)
    assert across == pytest.approx(16 * short / 256)
    sides = (box.width, box.height) if width >= height else (box.height, box.width)
    assert sides == pytest.approx((224 * long / resized, 224 * short / 256))


def test_three_crops_touch_both_ends_of_the_whole_pixels() -> None:
    """VideoMAE kinetics.py:243-249: starts are int(k * (long - short) / 2)."""
    views = Views(crops=3, resize="whole-pixels")
    boxes = [crop_box(256, 455, (224, 224), views, crop) for crop in range(3)]
    long = 224 * 455 // 256
    starts = [box.left * long / 455 for box in boxes]
    assert starts == pytest.approx([0, (long - 224) // 2, long - 224])
    assert {box.top for box in boxes} == {0.0}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(224, 224), (30, 41), (301, 77)])
def test_aliased_resizing_is_torchs_interpolate(dtype: type, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (97, 131, 3)).astype(dtype)
    box = Box(3.0, 5.0, 90.0, 120.0)
    ours = crop_resize(frame, box, size, "crop", "bilinear-aliased")
    cut = torch.from_numpy(frame[3:93, 5:125].astype(np.float32)).permute(2, 0, 1)[None]
    theirs = interpolate(cut, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    assert ours.dtype == dtype
    # torch keeps places in float32: 131 pixels x 6e-8 x 255 levels, and a factor of ten.
    bound = 0.02 + (0.5 if dtype is np.uint8 else 0.0)  # rounding
    assert np.abs(ours.astype(np.float64) - theirs.double().numpy()).max() <= bound


@pytest.mark.parametrize("available", [1, 10, 15, 16, 31, 45, 60])
def test_floored_segments_are_ssv2s(available: int) -> None:
    """ssv2.py:250-260: ``multiply(range(16), len // 16) + randint(len // 16, size=16)``."""
    spec = DataSpec(name="videos", frames=16, sampling="segments-floor")
    seen: set[int] = set()
    for seed in range(400):
        ids = frame_ids(available, spec, np.random.default_rng(seed))
        length = available // 16
        assert all(place * length <= each for place, each in enumerate(ids))
        assert all(each < max(1, (place + 1) * length) for place, each in enumerate(ids))
        seen.update(ids)
    assert seen == (set(range(available // 16 * 16)) if available >= 16 else {0})
    middle = frame_ids(available, spec, None)  # tests look at the whole video
    assert middle == frame_ids(available, spec.model_copy(update={"sampling": "segments"}), None)


def test_gray_fills_what_rand_augment_moves_in() -> None:
    """timm fills with 128 where it is told no mean (its ``_FILL``), as VideoMAE leaves it."""
    frame = np.zeros((32, 32, 3), np.uint8)
    change = rand_augment(policy="rand-m9-n1-inc1", size=(32, 32), mean=(GRAY,) * 3)
    corners: set[int] = set()
    for index in range(200):
        with seeded(0, purpose="test", epoch=0, index=index, repeat=0):
            changed = change(frame)
        corners |= set(changed[0, :, 0].tolist()) | set(changed[:, 0, 0].tolist())
    assert 128 in corners
    assert round(255 * GRAY) == 128
