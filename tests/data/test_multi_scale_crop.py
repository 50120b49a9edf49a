"""Multi-scale crops: their sizes and places, worked out by hand, and that clips are cut alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_fakes import array_source
from PIL import Image
from pydantic import ValidationError

from maekit.contracts import Dataset, Source, View
from maekit.data.augment import draw_plan
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Augment, MultiScaleCrop, NoAugment, RandomResizedCrop

SPEC = DataSpec(name="videos", frames=4, stride=2)
CROP = MultiScaleCrop(name="multi-scale-crop")


def source(height: int, width: int, frames: int = 12) -> Source:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return array_source(clip, None, "x")


def boxes(
    height: int, width: int, size: tuple[int, int], crop: MultiScaleCrop = CROP, draws: int = 4000
) -> Counter[tuple[float, ...]]:
    clip, rng = source(height, width, 1), np.random.default_rng(0)
    return Counter(tuple(draw_plan(crop, clip, SPEC, size, rng).box) for _ in range(draws))


def test_sizes_are_pairs_of_neighboring_scales() -> None:
    # 240 * (1, 0.875, 0.75, 0.66), rounded down; (w, h) at most one scale apart: 10 of 16 pairs.
    sides = [240, 210, 180, 158]
    drawn = boxes(240, 320, (112, 112))
    sizes = Counter()
    for (_, _, height, width), times in drawn.items():
        sizes[height, width] += times
    neighbors = {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) < 2}
    assert set(sizes) == neighbors
    assert len(sizes) == 10
    deviation = np.sqrt(4000 * 0.1 * 0.9)
    assert max(abs(times - 400) for times in sizes.values()) < 4.5 * deviation


def test_places_are_thirteen() -> None:
    # A crop of 160 x 160 leaves 80 rows and 160 columns: steps of 20 and 40.
    single = CROP.model_copy(update={"scales": (2 / 3,)})
    drawn = boxes(240, 320, (112, 112), single)
    edges = [(20 * down, 40 * right) for down in (0, 2, 4) for right in (0, 2, 4)]
    inner = [(20 * down, 40 * right) for down in (1, 3) for right in (1, 3)]
    assert {box[:2] for box in drawn} == set(edges + inner)
    assert {box[2:] for box in drawn} == {(160, 160)}
    deviation = np.sqrt(4000 / 13 * 12 / 13)
    assert max(abs(times - 4000 / 13) for times in drawn.values()) < 4.5 * deviation


def test_steps_are_whole_pixels() -> None:
    # 240 - 158 = 82 rows are left: four steps of 20, not of 20.5.
    single = CROP.model_copy(update={"scales": (0.66,)})
    assert {box[0] for box in boxes(240, 240, (112, 112), single)} == {0, 20, 40, 60, 80}


@pytest.mark.parametrize(("side", "taken"), [(226, 224), (227, 227), (222, 222), (225, 224)])
def test_a_size_within_two_pixels_of_the_outputs_is_the_outputs(side: int, taken: int) -> None:
    """Resizing by a pixel only blurs. At 222 the output would not fit."""
    whole = CROP.model_copy(update={"scales": (1.0,)})
    assert {box[2:] for box in boxes(side, side, (224, 224), whole, 20)} == {(taken, taken)}


def test_no_distortion_without_max_distort() -> None:
    square = CROP.model_copy(update={"max_distort": 0})
    assert {box[2:] for box in boxes(240, 320, (112, 112), square)} == {
        (side, side) for side in (240, 210, 180, 158)
    }
    any_pair = CROP.model_copy(update={"max_distort": 3})
    assert len({box[2:] for box in boxes(240, 320, (112, 112), any_pair)}) == 16


def test_an_oblong_output_is_cut_from_oblong_boxes() -> None:
    whole = CROP.model_copy(update={"scales": (1.0, 0.5)})
    sizes = {box[2:] for box in boxes(240, 640, (64, 128), whole)}
    assert sizes == {(240, 480), (120, 480), (240, 240), (120, 240)}


@given(
    st.integers(1, 900), st.integers(1, 900), st.integers(1, 300), st.integers(1, 300),
    st.integers(0, 2**32),
)  # fmt: skip
def test_boxes_are_whole_pixels_within_the_picture(
    height: int, width: int, h: int, w: int, seed: int
) -> None:
    clip = array_source(np.zeros((1, height, width, 1), np.uint8), None, "x")
    plan = draw_plan(CROP, clip, SPEC, (h, w), np.random.default_rng(seed))
    top, left, box_height, box_width = plan.box
    assert plan.edge == "crop"
    assert plan.interpolation == "bilinear"
    assert all(float(side).is_integer() for side in plan.box)
    assert 1 <= box_height <= height - top
    assert 1 <= box_width <= width - left
    assert min(top, left) >= 0


def test_flips_come_as_often_as_asked_and_by_default_never() -> None:
    rng, clip = np.random.default_rng(0), source(9, 9)
    for flip in (None, 0.3, 1.0):
        crop = CROP if flip is None else CROP.model_copy(update={"flip": flip})
        plans = [draw_plan(crop, clip, SPEC, (8, 8), rng) for _ in range(1000)]
        assert np.mean([plan.flip for plan in plans]) == pytest.approx(flip or 0, abs=0.05)


def test_a_multi_scale_crop_has_no_fixed_view() -> None:
    with pytest.raises(ValueError, match="held-out"):
        draw_plan(CROP, source(9, 9), SPEC, (8, 8), None)


@pytest.mark.parametrize("wrong", [{"scales": []}, {"scales": [1.1]}, {"max_distort": -1}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MultiScaleCrop.model_validate({"name": "multi-scale-crop"} | wrong)


class One(Dataset):
    """A data set of one clip."""

    def __init__(self, clip: Source) -> None:
        self.clip = clip

    def __len__(self) -> int:
        return 1

    def open(self, index: int) -> Source:
        return self.clip

    def name(self, index: int) -> str:
        return "x"


@pytest.mark.parametrize(
    "augment",
    [CROP.model_copy(update={"flip": 0.5}), RandomResizedCrop(name="random-resized-crop"),
     NoAugment(name="none", flip=0.5)],
    ids=lambda augment: augment.name,
)  # fmt: skip
def test_every_frame_of_a_clip_is_cut_alike(augment: Augment) -> None:
    """Against Pillow, frame by frame, with the plan that was drawn."""
    clip = source(30, 40)
    size = (16, 24)
    reader = SampleReader(
        One(clip), spec=SPEC, augment=augment, views=(View("model", size),), channels=3, seed=0,
        purpose="pretrain",
    )  # fmt: skip
    flips = set()
    for epoch in range(8):
        key = Key(epoch, 0)
        (plan,) = reader.plans(clip, key)
        sample = reader.read(key)
        assert sample.bad is None
        pixels = sample.views[0][0]
        assert pixels.shape == (3, 4, *size)
        assert np.ptp(np.diff(plan.frame_ids)) == 0
        filter_ = Image.Resampling[plan.interpolation.upper()]
        top, left, height, width = plan.box
        for place, frame in enumerate(plan.frame_ids):
            picture = Image.fromarray(clip.read([frame])[0])
            area = (left, top, left + width, top + height)
            if plan.edge == "crop":
                resized = picture.crop(area).resize((24, 16), filter_)
            else:
                resized = picture.resize((24, 16), filter_, box=area)
            expected = np.asarray(resized)[:, ::-1] if plan.flip else np.asarray(resized)
            apart = np.abs(pixels[:, place].transpose(1, 2, 0).astype(int) - expected).max()
            assert apart <= 2 * (plan.edge == "crop")  # what quick_resize may differ by, in noise
        flips.add(plan.flip)
    assert flips == {False, True}
