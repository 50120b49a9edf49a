"""From a key to a sample."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from loader_fakes import BrightHidden, Fakes, HalfHidden, make_reader

from maekit.contracts import Grid, Masker, Source, View
from maekit.data.order import Key
from maekit.data.rendering import Rendering
from maekit.errors import PartError
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment


def test_a_key_is_all_there_is_to_a_sample() -> None:
    reader = make_reader(Fakes())
    other = pickle.loads(pickle.dumps(make_reader(Fakes())))
    for read in range(3):
        first, again = reader.read(Key(1, read)), other.read(Key(1, read))
        np.testing.assert_array_equal(first.views[0], again.views[0])
        np.testing.assert_array_equal(first.hidden, again.hidden)
    elsewhere = reader.read(Key(2, 0))
    assert (elsewhere.views[0] != reader.read(Key(1, 0)).views[0]).any()
    assert (elsewhere.hidden != reader.read(Key(1, 0)).hidden).any()
    assert (make_reader(Fakes(), seed=1).read(Key(1, 0)).hidden != first.hidden).any()
    assert (make_reader(Fakes(), purpose="other").read(Key(1, 2)).hidden != first.hidden).any()


def test_repeats_are_views_of_their_own_and_the_first_is_the_only_one() -> None:
    one = make_reader(Fakes()).read(Key(0, 3))
    many = make_reader(Fakes(), repeats=3).read(Key(0, 3))
    assert many.views[0].shape == (3, 3, 1, 16, 16)
    np.testing.assert_array_equal(many.views[0][:1], one.views[0])
    np.testing.assert_array_equal(many.hidden[:1], one.hidden)
    assert (many.hidden[0] != many.hidden[1]).any()
    assert (many.views[0][1] != many.views[0][2]).any()


def test_repeats_draw_new_clips_or_keep_the_frames() -> None:
    dataset = Fakes(shape=(40, 16, 16, 3))
    spec = DataSpec(name="fakes", frames=4)
    for repeat_from, distinct in (("new-clip", True), ("same-frames", False)):
        reader = make_reader(dataset, spec=spec, repeats=4, repeat_from=repeat_from)
        plans = reader.plans(dataset.open(0), Key(0, 0))
        assert (len({plan.frame_ids for plan in plans}) > 1) is distinct
        assert len({plan.box for plan in plans}) > 1


def test_further_views_are_cut_by_the_same_plan() -> None:
    class Ramp(Fakes):
        def clip(self, _: int) -> np.ndarray:
            ramp = np.linspace(0, 255, 32).astype(np.uint8)
            return np.broadcast_to(ramp[None, :, None, None], (1, 32, 32, 3)).copy()

    views = (View("pixels", (32, 32)), View("half", (16, 16), "bilinear"))
    reader = make_reader(Ramp(), views=views)
    for index in range(6):
        full, half = reader.read(Key(0, index)).views
        pooled = full.reshape(1, 3, 1, 16, 2, 16, 2).mean(axis=(4, 6))
        assert np.abs(pooled - half).max() < 4


def test_a_view_may_want_more_frames() -> None:
    reader = make_reader(
        Fakes(shape=(40, 16, 16, 3)),
        spec=DataSpec(name="fakes", frames=4, stride=4),
        views=(View("pixels", (16, 16)), View("dense", (8, 8), frames=8)),
        masker=None,
    )
    sample = reader.read(Key(0, 0))
    assert [view.shape for view in sample.views] == [(1, 3, 4, 16, 16), (1, 3, 8, 8, 8)]
    assert sample.hidden is None


def test_flip_mirrors_columns_and_the_masker_sees_the_final_crop() -> None:
    dataset = Fakes(shape=(1, 16, 16, 3))
    plain = make_reader(dataset, augment=NoAugment(name="none", flip=0.0)).read(Key(0, 1))
    reader = make_reader(
        dataset, augment=NoAugment(name="none", flip=1.0), masker=BrightHidden(), grid=Grid(1, 4, 4)
    )
    flipped = reader.read(Key(0, 1))
    np.testing.assert_array_equal(flipped.views[0], plain.views[0][..., ::-1])
    crop = flipped.views[0][0].transpose(1, 2, 3, 0)
    expected = BrightHidden()(Grid(1, 4, 4), None, pixels=crop)
    np.testing.assert_array_equal(flipped.hidden[0], expected.reshape(-1))


def test_masks_are_drawn_on_units_and_repeated() -> None:
    reader = make_reader(Fakes(), grid=Grid(2, 4, 4), mask_unit=(1, 2, 2))
    mask = reader.read(Key(0, 0)).hidden.reshape(2, 2, 2, 2, 2)
    assert (mask == mask[:, :, :1, :, :1]).all()
    assert reader.hidden.count == mask.sum() == 16


class Drawing(Masker):
    """Draws what it is given."""

    def __init__(self, draw: Callable[[Grid], object]) -> None:
        self.draw = draw

    def __call__(self, grid: Grid, _: np.random.Generator) -> np.ndarray:
        return self.draw(grid)


@pytest.mark.parametrize(("draw", "reason"), [
    (lambda grid: np.ones(grid, bool), "hides 16 of 16 at a grid of 1x4x4"),
    (lambda grid: np.zeros(grid, bool), "hides 0 of 16"),
    (np.zeros, "must return a bool array, returned float64"),
    (lambda grid: [True], "must return a bool array, returned list"),
    (lambda grid: np.ones((4, 4), bool), r"must return the shape \(1, 4, 4\)"),
    (lambda grid: 1 / 0, "ZeroDivisionError"),
])  # fmt: skip
def test_maskers_are_held_to_their_contract(draw: Callable[[Grid], object], reason: str) -> None:
    with pytest.raises(PartError, match=reason):
        make_reader(Fakes(), masker=Drawing(draw))


def test_a_masker_cannot_change_the_pixels() -> None:
    class Painter(BrightHidden):
        def __call__(self, grid: Grid, _: np.random.Generator, *, pixels: np.ndarray) -> np.ndarray:
            pixels[:] = 0
            return super().__call__(grid, _, pixels=pixels)

    with pytest.raises(PartError, match="read-only"):
        make_reader(Fakes(), masker=Painter())


def test_a_declared_count_is_held_too() -> None:
    class Liar(HalfHidden):
        def count(self, _: Grid) -> int:
            return 3

    with pytest.raises(PartError, match="must set 3 in every mask, set 8"):
        make_reader(Fakes(), masker=Liar())
    with pytest.raises(PartError, match="does not divide"):
        make_reader(Fakes(), mask_unit=(1, 3, 3))


def test_float_pixels_need_statistics_and_wrong_channels_are_bad() -> None:
    strict = Rendering(float_ok=False)
    bad = make_reader(Fakes(dtype="float32"), rendering=strict).read(Key(0, 0)).bad
    assert "data.stats" in bad.reason
    bad = make_reader(Fakes(shape=(1, 20, 20, 5))).read(Key(0, 0)).bad
    assert bad.reason == "has 5 channels, data.channels is 3 (set data.channels to 5)"
    assert make_reader(Fakes(shape=(1, 20, 20, 1))).read(Key(0, 0)).bad is None


@pytest.mark.parametrize(("shape", "channels", "advice"), [
    ((1, 3, 64, 60), 3, "[C, H, W]"),
    ((1, 1, 28, 28), 3, "np.moveaxis"),
    ((1, 12, 64, 64), 12, "[C, H, W]"),
    ((1, 20, 24, 3), 4, "alpha: keep"),
    ((1, 20, 24, 1), 2, "alpha: keep"),
    ((1, 20, 24, 4), 3, "save the file without it"),
    ((1, 20, 24, 12), 3, "(set data.channels to 12)"),
    ((1, 20, 640, 640), 3, "(set data.channels to 640)"),
])  # fmt: skip
def test_wrong_channels_say_what_they_may_be(
    shape: tuple[int, int, int, int], channels: int, advice: str
) -> None:
    bad = make_reader(Fakes(shape=shape), channels=channels).read(Key(0, 0)).bad
    assert bad is not None
    assert advice in bad.reason


def test_a_dataset_that_breaks_its_contract_ends_the_run() -> None:
    class Flat(Fakes):
        def open(self, index: int) -> Source:
            return Source(super().open(index).info, lambda _: np.zeros((20, 24, 3), np.uint8))

    with pytest.raises(PartError, match=r"must return \[1, H, W, C\].*got uint8 \(20, 24, 3\)"):
        make_reader(Flat()).read(Key(0, 0))


def test_a_source_that_crops_gets_box_and_size() -> None:
    class Cropping(Fakes):
        def open(self, index: int) -> Source:
            return Source(
                super().open(index).info._replace(crops=True),
                lambda ids, box, size: np.full((len(ids), *size, 3), round(box[2]), "u1"),
            )

    dataset = Cropping()
    reader = make_reader(dataset)
    sample = reader.read(Key(0, 0))
    (plan,) = reader.plans(dataset.open(0), Key(0, 0))
    assert (sample.views[0] == plan.box.height).all()


def test_held_out_views_do_not_depend_on_the_epoch() -> None:
    reader = make_reader(Fakes(), held_out=True)
    first, second = reader.read(Key(0, 0)), reader.read(Key(9, 0))
    np.testing.assert_array_equal(first.views[0], second.views[0])
