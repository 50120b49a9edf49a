"""Fixed crops and color jitter, against Pillow and torchvision."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_fakes import Fakes, array_source, make_reader
from PIL import Image
from pydantic import ValidationError

from maekit.contracts import Source, View
from maekit.data.augment import draw_plan
from maekit.data.order import Key
from maekit.data.pixels import apply, crop_resize
from maekit.data.plan import ColorChange
from maekit.errors import DataError
from maekit.recipe.schema import DataSpec, Recipe
from maekit.recipe.sections import ColorJitter, FixedCrop, RandomResizedCrop

SPEC = DataSpec(name="images")
FIXED = FixedCrop(name="fixed-crop", enlarge=4 / 3)
JITTER = ColorJitter(name="color-jitter")


def source(height: int, width: int) -> Source:
    return array_source(np.zeros((1, height, width, 3), np.uint8), None, "x")


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def test_a_fixed_crop_is_resize_then_a_crop_anywhere() -> None:
    frame = picture(300, 450)
    small = Image.fromarray(frame).resize((300, 200), Image.Resampling.BICUBIC)
    rng, places = np.random.default_rng(0), set()
    for _ in range(300):
        plan = draw_plan(FIXED, source(300, 450), SPEC, (150, 150), rng)
        top, left = round(plan.box.top / 1.5), round(plan.box.left / 1.5)
        assert (plan.box.height, plan.box.width) == pytest.approx((225, 225))
        places.add((top, left))
        if len(places) < 5:
            ours = crop_resize(frame, plan.box, (150, 150), plan.edge, plan.interpolation)
            theirs = np.asarray(small.crop((left, top, left + 150, top + 150)))
            # Pillow's box is in float32: a fraction of a pixel off, far less than one level.
            assert np.abs(ours.astype(int) - theirs).max() <= 1
    tops, lefts = np.array(sorted(places)).T
    assert (tops.min(), tops.max()) == (0, 50)
    assert lefts.min() < 8
    assert lefts.max() > 142


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 400), st.integers(1, 400),
    st.floats(1, 3), st.integers(0, 2**32),
)  # fmt: skip
def test_fixed_crops_lie_within_the_picture(
    height: int, width: int, h: int, w: int, enlarge: float, seed: int
) -> None:
    augment = FIXED.model_copy(update={"enlarge": enlarge})
    rng = np.random.default_rng(seed)
    top, left, box_height, box_width = draw_plan(
        augment, source(height, width), SPEC, (h, w), rng
    ).box
    assert box_height * w == pytest.approx(box_width * h)
    assert top >= 0
    assert left >= 0
    assert top + box_height <= height * (1 + 1e-9)
    assert left + box_width <= width * (1 + 1e-9)


CHANGES = [
    ColorChange("brightness", 0.6), ColorChange("brightness", 1.4),
    ColorChange("contrast", 0.6), ColorChange("contrast", 1.4),
    ColorChange("saturation", 0.0), ColorChange("saturation", 1.4),
    ColorChange("hue", -0.1), ColorChange("hue", 0.1), ColorChange("hue", 0.5),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_torchvisions(change: ColorChange) -> None:
    import torch
    from torchvision.transforms import functional

    frame = picture(20, 30)
    frame[:3] = frame[:3, :, :1]  # gray ones, which have no hue
    ours = apply(frame[None], [change], "x")[0]
    pixels = torch.from_numpy(frame).permute(2, 0, 1) / 255
    theirs = getattr(functional, f"adjust_{change.what}")(pixels, change.amount)
    expected = (theirs.permute(1, 2, 0) * 255).numpy()
    assert np.abs(ours - expected).max() < 0.51


def test_changes_follow_each_other_and_keep_depth_and_gray() -> None:
    frame = picture(20, 30)[None]
    changes = [ColorChange("contrast", 1.3), ColorChange("brightness", 0.7)]
    there, back = apply(frame, changes, "x"), apply(frame, changes[::-1], "x")
    assert (there != back).any()
    deep = apply(frame.astype(np.uint16) * 257, changes, "x")
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - there).max() < 0.51
    gray = frame[..., :1]
    np.testing.assert_array_equal(apply(gray, [ColorChange("hue", 0.2)], "x"), gray)
    with pytest.raises(DataError, match="no known white"):
        apply(frame.astype(np.float32), changes, "x")


def test_jitter_is_the_random_crop_and_colors_within_their_strengths() -> None:
    plain = RandomResizedCrop(name="random-resized-crop")
    orders, amounts = set(), []
    for seed in range(200):
        crop, plan = (
            draw_plan(each, source(40, 60), SPEC, (8, 8), np.random.default_rng(seed))
            for each in (plain, JITTER)
        )
        assert replace(plan, color=()) == crop
        orders.add(tuple(change.what for change in plan.color))
        amounts.append(dict(plan.color))
    assert len(orders) == 24
    for what, low, high in (("brightness", 0.6, 1.4), ("saturation", 0.6, 1.4), ("hue", -0.1, 0.1)):
        drawn = np.array([each[what] for each in amounts])
        assert low <= drawn.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < drawn.max() <= high


def test_all_frames_and_views_of_a_clip_change_alike() -> None:
    class Still(Fakes):
        def clip(self, _: int) -> np.ndarray:
            return np.broadcast_to(picture(16, 16), (8, 16, 16, 3)).copy()

    reader = make_reader(
        Still(shape=(8, 16, 16, 3)),
        augment=JITTER.model_copy(update={"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}),
        spec=DataSpec(name="fakes", frames=4),
        views=(View("clip", (16, 16)), View("double", (16, 16), None, 8)),
        masker=None,
    )
    clip, double = (view[0].transpose(1, 2, 3, 0) for view in reader.read(Key(0, 0)).views)
    assert (clip == clip[:1]).all()
    assert (double == clip[:1]).all()
    assert (clip[0] != picture(16, 16)).any()
    other = reader.read(Key(1, 0)).views[0][0].transpose(1, 2, 3, 0)
    assert (other != clip).any()


def test_jitter_needs_gray_or_color() -> None:
    recipe = {
        "name": "x",
        "data": {"train": {"name": "images"}, "channels": 13},
        "model": {"backbone": {"name": "image-vit"}},
        "pretrain": {
            "masker": {"name": "random"}, "target": {"name": "pixel"}, "steps": 1,
            "augment": {"name": "color-jitter"},
        },
    }  # fmt: skip
    with pytest.raises(ValidationError, match="1 or 3 channels"):
        Recipe.model_validate(recipe)


def test_the_short_side_is_drawn_at_whole_pixels() -> None:
    """SlowFast on AVA: a short side of 256 to 320 pixels, and 224 of them."""
    drawn = FixedCrop(name="fixed-crop", enlarge=256 / 224, enlarge_most=320 / 224)
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        box = draw_plan(drawn, source(360, 480), SPEC, (224, 224), rng).box
        assert box.height == pytest.approx(box.width)
        assert -1e-9 <= box.top <= 360 - box.height + 1e-9
        found.append(224 * 360 / box.height)
    shorts = np.rint(found).astype(int)
    np.testing.assert_allclose(found, shorts, rtol=1e-9)
    assert set(shorts.tolist()) == set(range(256, 321))
    with pytest.raises(ValidationError, match="enlarge_most is less"):
        FixedCrop(name="fixed-crop", enlarge=1.5, enlarge_most=1.2)


@pytest.mark.parametrize("hue", [0, -10, 10])
@pytest.mark.parametrize(("saturation", "value"), [(0, 0), (26, -26), (-26, 26), (255, 0)])
def test_hue_saturation_and_value_move_as_in_hsv(hue: int, saturation: int, value: int) -> None:
    frame = picture(8, 8)
    frame[0, :2] = 0  # black, and gray
    frame[1, :2] = 99
    changes = [
        ColorChange("hue", hue / 180),
        ColorChange("add-saturation", saturation / 255),
        ColorChange("add-value", value / 255),
    ]
    found = apply(frame[None], changes, "x")[0]
    for ours, pixel in zip(found.reshape(-1, 3), frame.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255).tolist())
        # A hue that was turned where there is none shows only once saturation is added.
        turned = (h + hue / 180) % 1 if s else 0.0
        moved = (min(max(each, 0), 1) for each in (s + saturation / 255, v + value / 255))
        expected = np.array(colorsys.hsv_to_rgb(turned, *moved)) * 255
        if v:
            np.testing.assert_allclose(ours, expected, atol=1.01)


def test_colors_of_a_fixed_crop_are_drawn_evenly_and_only_where_asked_for() -> None:
    rng = np.random.default_rng(0)
    assert draw_plan(FIXED, source(50, 50), SPEC, (16, 16), rng).color == ()
    colored = FIXED.model_copy(update={"hsv": (10, 26, 26)})
    plans = [draw_plan(colored, source(50, 50), SPEC, (16, 16), rng) for _ in range(3000)]
    for place, (limit, whole) in enumerate(((10, 180), (26, 255), (26, 255))):
        drawn = np.array([plan.color[place].amount * whole for plan in plans])
        assert set(np.rint(drawn).astype(int).tolist()) == set(range(-limit, limit + 1))
