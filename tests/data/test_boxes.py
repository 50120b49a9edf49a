"""Boxes lie where a view shows what is in them, and one that is cut away stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numerics import close

from maekit.contracts import Boxes, Dataset, Source, SourceInfo, View
from maekit.data.boxes import BoxDraw, flipped, jittered, moved, widened
from maekit.data.order import Key
from maekit.data.plan import Box
from maekit.data.reader import SampleReader
from maekit.data.rendering import Rendering, placed
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import (
    Augment,
    Fit,
    FixedCrop,
    MultiScaleCrop,
    NoAugment,
    RandomResizedCrop,
)

Size = tuple[int, int]
EPS = np.finfo(np.float64).eps
AD = ((-0.2, 0.1), (-0.1, 0.05), (-0.1, 0.2), (-0.05, 0.1))  # VideoMAE-Action-Detection's jitter

fractions = st.floats(0, 1, width=32)
one_box = st.tuples(fractions, fractions, fractions, fractions).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
some_boxes = st.lists(one_box, min_size=1, max_size=5).map(np.array)
sides = st.tuples(st.integers(4, 60), st.integers(4, 60))


class Painted(Dataset):
    """Clips of noise with one white rectangle, wherever it is."""

    def __init__(self, size: tuple[int, int], corners: tuple[int, int, int, int]) -> None:
        self.size, self.corners = size, corners

    def __len__(self) -> int:
        return 32

    def name(self, index: int) -> str:
        return f"painted-{index}"

    def open(self, index: int) -> Source:
        height, width = self.size
        x1, y1, x2, y2 = self.corners
        clip = np.random.default_rng(index).integers(0, 60, (1, height, width, 3), np.uint8)
        clip[:, y1:y2, x1:x2] = 255
        corners = np.array([[x1 / width, y1 / height, x2 / width, y2 / height]])
        label = Boxes(corners, (frozenset({1}),), movie="m", second=index)
        info = SourceInfo(self.name(index), height, width, 3, label=label)
        return Source(info, lambda ids: np.repeat(clip, len(ids), axis=0))


CROPS: list[Augment] = [
    NoAugment(name="none", flip=0.5),
    FixedCrop(name="fixed-crop", enlarge=256 / 224),
    MultiScaleCrop(name="multi-scale-crop", flip=0.5),
    RandomResizedCrop(name="random-resized-crop", scale=(0.4, 1.0)),
]


@pytest.mark.parametrize("augment", CROPS, ids=lambda augment: augment.name)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(60, 90), (90, 60)])
def test_boxes_lie_where_the_pixels_are(augment: Augment, fit: Fit, size: tuple[int, int]) -> None:
    reader = SampleReader(
        Painted(size, (20, 25, 50, 55)),
        spec=DataSpec(name="images"),
        augment=augment,
        views=(View("clip", (64, 64)),),
        channels=3,
        seed=0,
        purpose="test",
        repeats=2,
        rendering=Rendering(fit=fit),
    )
    seen = set()
    for index in range(8):
        sample = reader.read(Key(0, index))
        assert sample.bad is None
        for pixels, boxes in zip(sample.views[0], sample.boxes, strict=True):
            x1, y1, x2, y2 = boxes.corners[0] * 64
            rows, columns = np.nonzero(pixels[0, 0] > 200)
            if not len(rows):
                assert x2 - x1 < 1 or y2 - y1 < 1
                continue
            found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            # Half-shown pixels, and what interpolation mixes: one on each side.
            assert np.abs(np.array(found) - (x1, y1, x2, y2)).max() <= 1 + 64 * EPS
            seen.add(found)
    assert augment.name == "none" or len(seen) > 4


def view_of(corners: np.ndarray, box: Box, picture: Size, view: Size, *, flip: bool) -> np.ndarray:
    boxes = Boxes(corners, (frozenset(),) * len(corners))
    return moved(boxes, picture, placed(box, *picture, view), view, flip=flip).corners


@given(some_boxes, sides, sides, st.booleans())
def test_all_of_a_picture_moves_nothing(
    corners: np.ndarray, picture: Size, view: Size, flip: bool
) -> None:
    here = view_of(corners, Box(0, 0, *picture), picture, view, flip=flip)
    close(flipped(here) if flip else here, corners, terms=6, dtype=torch.float64, scale=1)


@given(some_boxes, sides, sides, st.tuples(fractions, fractions, fractions, fractions))
def test_a_crop_leaves_ordered_boxes_within_the_view(
    corners: np.ndarray, picture: Size, view: Size, place: tuple[float, ...]
) -> None:
    height, width = (1 + (side - 1) * share for side, share in zip(picture, place[:2], strict=True))
    box = Box((picture[0] - height) * place[2], (picture[1] - width) * place[3], height, width)
    plain, flip = (view_of(corners, box, picture, view, flip=flip) for flip in (False, True))
    # Sides in pixels are taken from each other, then divided by those of the crop: one at least.
    about = {"terms": 8, "dtype": torch.float64, "scale": float(max(picture))}
    close(flip, flipped(plain), **about)  # type: ignore[arg-type]
    assert plain.min() >= 0
    assert plain.max() <= 1
    assert (plain[:, 2:] >= plain[:, :2]).all()
    # What a crop shows of a box is its share of the crop.
    scale = np.array([picture[1], picture[0]] * 2)
    start, extent = np.array([box.left, box.top]), np.array([box.width, box.height])
    first = np.clip(corners[:, :2] * scale[:2], start, start + extent)
    last = np.clip(corners[:, 2:] * scale[:2], start, start + extent)
    close((plain[:, 2:] - plain[:, :2]) * extent, last - first, **about)  # type: ignore[arg-type]


def test_a_worked_crop() -> None:
    # 320 x 240 at short side 256 is 341.33 x 256; a crop of 224 at (down 16, right 100.267).
    corners = np.array([[0.25, 0.25, 0.5, 0.75], [0.0, 0.0, 0.2, 0.2]])
    box = Box(15, 94, 210, 210)
    found = view_of(corners, box, (240, 320), (224, 224), flip=False)
    np.testing.assert_allclose(found[0], [0, (60 - 15) / 210, (160 - 94) / 210, 165 / 210])
    np.testing.assert_allclose(found[1], [0, 0, 0, 33 / 210])  # cut away, kept without width


@given(some_boxes, sides, st.integers(0, 2**32))
def test_jitter_keeps_a_pixel_and_stays_within_its_ranges(
    corners: np.ndarray, size: Size, seed: int
) -> None:
    found = jittered(corners, size, AD, np.random.default_rng(seed))
    pixel = np.array([1 / size[1], 1 / size[0]])
    extent = np.maximum(corners[:, 2:] - corners[:, :2], pixel)
    assert (found[:, 2:] - found[:, :2] >= pixel - 2 * EPS).all()  # of numbers up to 1
    assert found.min() >= 0
    assert found.max() <= 1
    low, high = np.array(AD).T
    roomy = (corners[:, :2] > 0.25).all(1) & (corners[:, 2:] < 0.75).all(1) & (extent > 0.1).all(1)
    share = ((found - corners) / np.tile(extent, 2))[roomy & (extent > 4 * pixel).all(1)]
    rounding = 4 * EPS / 0.1  # of numbers up to 1, over an extent
    assert (share >= low - rounding).all()
    assert (share <= high + rounding).all()


def test_jitter_is_each_samples_own_and_the_same_again() -> None:
    reader = SampleReader(
        Painted((60, 90), (30, 15, 60, 45)),
        spec=DataSpec(name="images"),
        augment=NoAugment(name="none"),
        views=(View("clip", (64, 96)),),
        channels=3,
        seed=0,
        purpose="test",
        repeats=2,
        boxes=BoxDraw(jitter=AD),
    )
    first, again, other = (reader.read(Key(*key)) for key in ((0, 1), (0, 1), (1, 1)))
    for one, two in zip(first.boxes, again.boxes, strict=True):
        np.testing.assert_array_equal(one.corners, two.corners)
    drawn = [*first.boxes, *other.boxes]
    assert len({boxes.corners.tobytes() for boxes in drawn}) == 4
    assert {boxes.frame for boxes in drawn} == {"m,0001"}


def test_at_most_so_many_boxes_and_none_at_all() -> None:
    hundred = Boxes(np.tile([0.1, 0.1, 0.2, 0.2], (130, 1)), (frozenset({0}),) * 130)
    none = hundred.only([False] * 130)
    draw = BoxDraw(AD, most=100)
    assert len(draw(hundred, (64, 64), np.random.default_rng(0))) == 100
    assert draw(none, (64, 64), np.random.default_rng(0)).corners.shape == (0, 4)
    assert (
        moved(none, (9, 9), placed(Box(0, 0, 9, 9), 9, 9, (4, 4)), (4, 4), flip=True).labels == ()
    )


def test_widened_boxes_end_with_the_view() -> None:
    found = widened(np.array([[0.2, 0.4, 0.6, 0.8], [0.0, 0.0, 0.4, 1.0]]), 0.1, 0.05)
    np.testing.assert_allclose(found, [[0.18, 0.39, 0.62, 0.81], [0.0, 0.0, 0.42, 1.0]])


def test_labels_of_boxes_fit_each_other() -> None:
    with pytest.raises(ValueError, match="corners"):
        Boxes(np.zeros((2, 4)), (frozenset(),))
    boxes = Boxes(np.zeros((1, 4)), (frozenset(),), second=2.5, movie="-x_")
    assert boxes.frame == "-x_,0002.500"
    assert (boxes.scores, boxes.truth, boxes.asked, boxes.persons) == (
        (1.0,),
        (True,),
        (True,),
        (-1,),
    )
