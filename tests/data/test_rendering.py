"""Samples of another size or range than a view's: cut, padded or stretched, and spread."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from maekit.contracts import Dataset, Grid, Source, SourceInfo, View
from maekit.data.batch import CUT
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering, cut_share, fitted_box, placed
from maekit.data.statistics import auto_stats
from maekit.data.value_range import values_of
from maekit.errors import DataError
from maekit.evaluate.views import view_reader
from maekit.maskers.random import Random
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment, RandomResizedCrop, Views

Fit = Literal["crop", "pad", "stretch"]
NONE = NoAugment(name="none", interpolation="bilinear")
RNG = np.random.default_rng(0)


class Arrays(Dataset):
    """Arrays ``[T, H, W, C]`` as samples; an exception is one that cannot be read."""

    def __init__(self, *arrays: np.ndarray | Exception) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def name(self, index: int) -> str:
        return f"array {index}"

    def open(self, index: int) -> Source:
        array = self.arrays[index]
        if isinstance(array, Exception):
            raise array
        frames, height, width, channels = array.shape
        info = SourceInfo(self.name(index), height, width, channels, array.dtype.name, frames)
        return Source(info, lambda ids: array[list(ids)])


def reader(dataset: Dataset, size: tuple[int, int], fit: Fit, **more: object) -> SampleReader:
    options = {
        "spec": DataSpec(name="x"), "augment": NONE, "views": (View("clip", size),), "channels": 3,
        "seed": 0, "purpose": "test", "rendering": Rendering(fit), "held_out": True,
    }  # fmt: skip
    return SampleReader(dataset, **(options | more))


def shown(array: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    sample = reader(Arrays(array), size, fit, channels=array.shape[-1]).read(Key(0, 0))
    assert sample.bad is None, sample.bad
    return sample.views[0][0, :, 0].transpose(1, 2, 0)


SHAPES = [
    ((300, 128), (1024, 128)), ((40, 60), (24, 24)), ((60, 40), (24, 24)), ((7, 90), (16, 32)),
    ((90, 7), (16, 32)), ((24, 24), (24, 24)), ((1, 500), (8, 8)), ((500, 1), (8, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("have", "want"), SHAPES)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_pad_and_stretch_show_all_of_a_sample(
    have: tuple[int, int], want: tuple[int, int], kind: str
) -> None:
    """A plane that rises from edge to edge: its ends are in the view; cut, they are not."""
    down, across = np.linspace(0, 1, have[0]), np.linspace(0, 1, have[1])
    array = (np.stack(np.broadcast_arrays(down[:, None], across, 0.5), -1) * 200).astype(kind)[None]
    ends = array.min(axis=(0, 1, 2)), array.max(axis=(0, 1, 2))
    for fit in ("pad", "stretch"):
        view = shown(array, want, fit)
        for channel in range(3):
            # A pixel of the view is a mean of as many as fit in it, at the edges too.
            lost = 200 * max(h / w for h, w in zip(have, want, strict=True)) / max(min(have), 1)
            spread = view[..., channel].max() - float(view[..., channel].min())
            full = float(ends[1][channel]) - float(ends[0][channel])
            size = have[0] if channel == 0 else have[1]
            assert spread >= full - max(2, min(full, lost * 2)) or size == 1, (fit, channel)
    ratio = (have[0] * want[1]) / (have[1] * want[0])
    expected = 1 - min(ratio, 1 / ratio)
    assert cut_share(*have, want) == pytest.approx(expected, abs=1e-12)


def test_spectrograms_keep_their_bins() -> None:
    """[300, 128] at 1024 x 128: cut to the middle, 38 of 128 bins are left (issue 14)."""
    bins = np.broadcast_to(np.arange(128, dtype=np.float32)[:, None], (1, 300, 128, 1))
    cut, padded, stretched = (shown(bins, (1024, 128), fit)[..., 0] for fit in (
        "crop", "pad", "stretch"
    ))  # fmt: skip
    assert cut.max() - cut.min() == pytest.approx(37.5, abs=1)
    np.testing.assert_allclose(stretched, np.broadcast_to(np.arange(128), (1024, 128)), atol=1e-3)
    np.testing.assert_allclose(padded[362:662], bins[0, :, :, 0], atol=1e-3)
    np.testing.assert_allclose(padded[:362], 63.5, atol=1e-3)
    np.testing.assert_allclose(padded[662:], 63.5, atol=1e-3)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_padded_view_is_the_resized_picture_with_its_mean_around(
    kind: str, channels: int
) -> None:
    array = RNG.integers(0, 200, (1, 20, 40, channels)).astype(kind)
    view = shown(array, (40, 40), "pad")
    inner = view[10:30]
    np.testing.assert_array_equal(inner, array[0])
    mean = array.mean(axis=(0, 1, 2))
    expected = mean if kind == "float32" else np.rint(mean)
    np.testing.assert_allclose(view[:10], np.broadcast_to(expected, (10, 40, channels)), rtol=1e-5)
    np.testing.assert_array_equal(view[30:], view[:10])


def test_a_stretched_view_is_pillows() -> None:
    array = RNG.integers(0, 256, (1, 30, 50, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(array[0]).resize((16, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(shown(array, (24, 16), "stretch"), expected)


def test_all_frames_of_a_clip_are_padded_alike() -> None:
    array = RNG.integers(0, 256, (4, 10, 20, 3), dtype=np.uint8)
    spec = DataSpec(name="x", frames=4)
    sample = reader(Arrays(array), (20, 20), "pad", spec=spec).read(Key(0, 0))
    view = sample.views[0][0].transpose(1, 2, 3, 0)
    np.testing.assert_array_equal(view[:, 5:15], array)
    assert len(np.unique(view[:, :5].reshape(-1, 3), axis=0)) == 1


def test_tokens_of_padding_alone_do_not_count() -> None:
    masked = {"masker": Random(Random.Options()), "grid": Grid(1, 4, 4)}
    array = RNG.integers(0, 256, (1, 20, 40, 3), dtype=np.uint8)
    sample = reader(Arrays(array), (32, 32), "pad", **masked).read(Key(0, 0))
    assert sample.known is not None
    # Half as high as wide: rows 8 to 24 of 32 are the picture, tokens are 8 x 8.
    expected = np.zeros((4, 4), bool)
    expected[1:3] = True
    np.testing.assert_array_equal(sample.known.reshape(4, 4), expected)
    thin = RNG.integers(0, 256, (1, 400, 3, 3), dtype=np.uint8)
    known = reader(Arrays(thin), (32, 32), "pad", **masked).read(Key(0, 0)).known
    assert known is not None
    assert known.reshape(4, 4).any(axis=0).sum() in (1, 2)  # a token that shows any of it counts
    for fit in ("crop", "stretch"):
        assert reader(Arrays(array), (32, 32), fit, **masked).read(Key(0, 0)).known is None
    holed = array.astype(np.float32)
    holed[0, 0, 0] = np.nan
    both = reader(Arrays(holed), (32, 32), "pad", **masked).read(Key(0, 0)).known
    assert both is not None
    expected[1, 0] = False
    np.testing.assert_array_equal(both.reshape(4, 4), expected)


@pytest.mark.parametrize(("have", "want"), SHAPES)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_boxes_have_the_views_aspect_and_lie_in_the_middle(
    have: tuple[int, int], want: tuple[int, int], fit: Fit
) -> None:
    box = fitted_box(*have, want, fit)
    assert box.top + box.height / 2 == pytest.approx(have[0] / 2)
    assert box.left + box.width / 2 == pytest.approx(have[1] / 2)
    if fit == "stretch":
        assert box == (0, 0, *have)
        return
    assert box.height * want[1] == pytest.approx(box.width * want[0])
    inside = box.height <= have[0] + 1e-9 and box.width <= have[1] + 1e-9
    outside = box.height >= have[0] - 1e-9 and box.width >= have[1] - 1e-9
    assert inside if fit == "crop" else outside
    place = placed(box, *have, want)
    assert 1 <= place.size[0] <= want[0]
    assert 1 <= place.size[1] <= want[1]
    assert place.box.top >= 0 <= place.box.left
    assert place.box.top + place.box.height <= have[0] + 1e-9
    assert (place.size == want) == (fit == "crop" or have[0] * want[1] == have[1] * want[0])


def test_more_than_a_tenth_cut_is_counted_and_no_less() -> None:
    for shape, much in (((100, 100), 0), ((100, 110), 0), ((100, 112), 1), ((60, 40), 1)):
        array = np.zeros((1, *shape, 3), np.uint8)
        counts = reader(Arrays(array), (32, 32), "crop").read(Key(0, 0)).left_out
        assert counts.get(CUT, 0) == much, shape
    wide = Arrays(np.zeros((1, 40, 100, 3), np.uint8))
    for fit in ("pad", "stretch"):
        assert not reader(wide, (32, 32), fit).read(Key(0, 0)).left_out
    random = {"augment": RandomResizedCrop(name="random-resized-crop"), "held_out": False}
    assert not reader(wide, (32, 32), "crop", **random).read(Key(0, 0)).left_out
    for crops, much in ((1, 1), (3, 0)):
        views = view_reader(wide, DataSpec(name="x"), Views(crops=crops), size=(32, 32), channels=3)
        assert views.read(Key(0, 0)).left_out.get(CUT, 0) == much


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_test_views_show_all_of_a_sample_too(fit: Fit) -> None:
    array = RNG.integers(0, 256, (1, 20, 40, 3), dtype=np.uint8)
    tests = view_reader(
        Arrays(array), DataSpec(name="x"), Views(interpolation="bilinear"), size=(32, 32),
        channels=3, rendering=Rendering(fit),
    )  # fmt: skip
    view = tests.read(Key(0, 0)).views[0][0, :, 0].transpose(1, 2, 0)
    np.testing.assert_array_equal(view, shown(array, (32, 32), fit))


# Ranges


@pytest.mark.parametrize(("kind", "span"), [
    ("uint16", (0, 4095)), ("uint16", (1000, 3000)), ("float32", (-120.5, 3021.0)),
    ("float32", (0, 1)), ("float32", (-1e6, 4e9)),
])  # fmt: skip
def test_a_range_becomes_0_to_1(kind: str, span: tuple[float, float]) -> None:
    low, high = span
    values = np.linspace(low, high, 64)
    values = np.concatenate([values, [low - (high - low) / 9, high + (high - low) / 9]])
    if kind == "uint16":
        values = np.clip(np.rint(values), 0, 65535)
    array = values.astype(kind)[:, None].repeat(6, axis=1)[None, ..., None]
    rendering = Rendering("stretch", span, float_ok=False)
    sample = reader(Arrays(array), (66, 6), "stretch", channels=1, rendering=rendering).read(
        Key(0, 0)
    )
    assert sample.bad is None, sample.bad
    assert sample.views[0].dtype == np.uint16
    expected = np.clip((array[0, :, :, 0].astype(np.float64) - low) / (high - low), 0, 1)
    # To the nearest of 65,536 steps, and as float32 has the values.
    step = 0.5 / 65535 + 4 * np.finfo(np.float32).eps * max(abs(low), abs(high)) / (high - low)
    np.testing.assert_allclose(sample.views[0][0, 0, 0] / 65535, expected, atol=step, rtol=0)


def test_eight_bit_pixels_are_never_spread() -> None:
    array = RNG.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    rendering = Rendering(span=(0, 10))
    sample = reader(Arrays(array), (8, 8), "crop", rendering=rendering).read(Key(0, 0))
    np.testing.assert_array_equal(sample.views[0][0, :, 0].transpose(1, 2, 0), array[0])


def test_holes_are_filled_before_the_range_is_spread() -> None:
    array = np.full((1, 8, 8, 1), 3.0, np.float32)
    array[0, 0, 0] = np.nan
    options = {"channels": 1, "rendering": Rendering(span=(1, 5))}
    sample = reader(Arrays(array), (8, 8), "crop", **options).read(Key(0, 0))
    assert np.unique(sample.views[0]).tolist() == [round(65535 / 2)]


def test_values_are_the_least_and_the_largest_of_what_is_not_8_bit() -> None:
    deep = [RNG.integers(7, 4000, (3, 9, 9, 1)).astype(np.uint16) for _ in range(4)]
    plain = np.zeros((1, 4, 4, 1), np.uint8)
    found = values_of(Arrays(plain, *deep, DataError("broken"), OSError()))
    middles = np.stack([each[1] for each in deep])
    low, high = float(middles.min()), float(middles.max())
    assert found == (low, high, 4, "uint16")
    mixed = np.array([[-2.5, np.nan], [9, 1]], np.float32)[None, ..., None]
    assert values_of(Arrays(plain, mixed, *deep))[:2] == (-2.5, high)
    assert values_of(Arrays(plain, mixed)).dtype == "float32"
    assert values_of(Arrays(plain, plain)) == (0, 255, 0, "uint8")


def test_8_bit_sets_are_hardly_looked_at() -> None:
    opened: list[int] = []

    class Counting(Arrays):
        def open(self, index: int) -> Source:
            opened.append(index)
            return super().open(index)

    plain, deep = np.zeros((1, 4, 4, 1), np.uint8), np.full((1, 4, 4, 1), 7, np.uint16)
    for count, look in ((8, 8), (1, 1)):
        opened.clear()
        assert values_of(Counting(*[plain] * 40), plain=count).dtype == "uint8"
        assert len(opened) == look
    assert values_of(Counting(*[plain] * 7, deep)) == (7, 7, 1, "uint16")
    assert values_of(Counting(deep, *[plain] * 20, deep)) == (7, 7, 2, "uint16")


def test_pixels_without_a_range_say_what_they_are() -> None:
    array = np.array([[-120, 3021], [0, 5]], np.float32)[None, ..., None]
    options = {"channels": 1, "rendering": Rendering(float_ok=False)}
    bad = reader(Arrays(array), (2, 2), "crop", **options).read(Key(0, 0)).bad
    assert bad is not None
    assert "from -120 to 3021" in bad.reason
    assert "data.range" in bad.reason


def test_statistics_are_of_the_spread_pixels_and_never_of_padding() -> None:
    arrays = [RNG.integers(0, 4096, (1, 20, 40, 1)).astype(np.uint16) for _ in range(6)]
    options = {"size": (40, 40), "channels": 1, "workers": 0, "timeout": 60.0}
    spec = DataSpec(name="x")
    plain, _ = auto_stats(Arrays(*arrays), spec, **options)
    spread, _ = auto_stats(
        Arrays(*arrays), spec, **options, rendering=Rendering(span=(0, 4095), float_ok=False)
    )
    assert spread.mean[0] == pytest.approx(plain.mean[0] * 65535 / 4095, rel=1e-3)
    # What bicubic curves leave beyond the range is cut off.
    assert spread.std[0] == pytest.approx(plain.std[0] * 65535 / 4095, rel=5e-3)
    stretched, padded = (
        auto_stats(Arrays(*arrays), spec, **options, rendering=Rendering(fit))[0]
        for fit in ("stretch", "pad")
    )
    assert padded == stretched


def test_datasets_that_crop_are_never_asked_for_more_than_the_picture() -> None:
    asked: list[tuple[object, ...]] = []

    class Cropping(Arrays):
        def open(self, index: int) -> Source:
            def read(ids: object, box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
                asked.append((box, size))
                return np.zeros((1, *size, 3), np.uint8)

            return Source(super().open(index).info._replace(crops=True), read)

    reader(Cropping(np.zeros((1, 20, 40, 3), np.uint8)), (32, 32), "pad").read(Key(0, 0))
    assert asked == [((0, 0, 20, 40), (16, 32))]
