"""Plans: the boxes that are drawn, against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_fakes import array_source
from PIL import Image

from maekit.contracts import Source
from maekit.data.augment import draw_plan
from maekit.data.pixels import crop_resize
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment, RandomResizedCrop

SPEC = DataSpec(name="images")
CROP = RandomResizedCrop(name="random-resized-crop")
NONE = NoAugment(name="none")


def source(height: int, width: int) -> Source:
    return array_source(np.zeros((1, height, width, 3), np.uint8), None, "x")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**32))
def test_random_boxes_are_whole_pixels_within_the_picture(
    height: int, width: int, seed: int
) -> None:
    plan = draw_plan(CROP, source(height, width), SPEC, (8, 8), np.random.default_rng(seed))
    top, left, box_height, box_width = plan.box
    assert plan.edge == "crop"
    assert all(float(side).is_integer() for side in plan.box)
    assert box_height >= 1
    assert box_width >= 1
    assert 0 <= top <= height - box_height
    assert 0 <= left <= width - box_width


def test_random_boxes_are_distributed_as_torchvisions() -> None:
    import torch
    from torchvision.transforms import RandomResizedCrop as Reference

    torch.manual_seed(0)
    picture = torch.zeros(3, 120, 160)
    theirs = [Reference.get_params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    rng = np.random.default_rng(0)
    ours = [draw_plan(CROP, source(120, 160), SPEC, (8, 8), rng).box for _ in range(3000)]
    for column in range(4):
        a, b = (np.sort(np.array(boxes, dtype=float)[:, column]) for boxes in (ours, theirs))
        grid = np.linspace(0, 160, 161)
        gap = np.abs(np.searchsorted(a, grid) - np.searchsorted(b, grid)).max() / 3000
        assert gap < 0.05  # Kolmogorov-Smirnov at 0.001


@pytest.mark.parametrize(("height", "width", "box"), [
    (1, 4000, (0, 1999, 1, 1)), (4000, 1, (1999, 0, 1, 1)), (60, 3000, (0, 1460, 60, 80)),
])  # fmt: skip
def test_pictures_too_long_for_any_box_are_cut_in_the_center(
    height: int, width: int, box: tuple[int, ...]
) -> None:
    scale = RandomResizedCrop(name="random-resized-crop", scale=(1.0, 1.0))
    plan = draw_plan(scale, source(height, width), SPEC, (8, 8), np.random.default_rng(0))
    assert tuple(plan.box) == box


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 400), st.integers(1, 400))
def test_none_takes_the_largest_centered_box_of_the_output_aspect(
    height: int, width: int, h: int, w: int
) -> None:
    top, left, box_height, box_width = draw_plan(
        NONE, source(height, width), SPEC, (h, w), None
    ).box
    assert box_height == pytest.approx(height) or box_width == pytest.approx(width)
    assert box_height <= height
    assert box_width <= width
    assert box_height * w == pytest.approx(box_width * h)
    assert top == pytest.approx((height - box_height) / 2)
    assert left == pytest.approx((width - box_width) / 2)


def test_none_is_resize_then_center_crop() -> None:
    rng = np.random.default_rng(0)
    frame = np.asarray(
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).resize((400, 300))
    )
    plan = draw_plan(NONE, source(300, 400), SPEC, (150, 150), None)
    ours = crop_resize(frame, plan.box, (150, 150), plan.edge, plan.interpolation)
    small = Image.fromarray(frame).resize((200, 150), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(ours, np.asarray(small.crop((25, 0, 175, 150))))


def test_flips_come_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    for flip in (0.0, 0.3, 1.0):
        for augment in (NoAugment(name="none", flip=flip), CROP.model_copy(update={"flip": flip})):
            plans = [draw_plan(augment, source(9, 9), SPEC, (8, 8), rng) for _ in range(1000)]
            assert np.mean([plan.flip for plan in plans]) == pytest.approx(flip, abs=0.05)
    assert not draw_plan(NoAugment(name="none", flip=1.0), source(9, 9), SPEC, (8, 8), None).flip


def test_random_crop_has_no_fixed_view() -> None:
    with pytest.raises(ValueError, match="held-out"):
        draw_plan(CROP, source(9, 9), SPEC, (8, 8), None)
