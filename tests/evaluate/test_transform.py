"""A reader's further transform: on crops or on whole frames, the same for all frames and repeats
of their own."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from toys import Clips, clip_source

from maekit.contracts import View
from maekit.data.augment import draw_plan
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.data.transform import Transform
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import RandomResizedCrop, SingleTryCrop

SIZE = (8, 8)


def adding(step: int) -> Callable[[np.ndarray], np.ndarray]:
    """Add a number that is drawn from numpy's own state, as a user's transform may."""

    def change(frame: np.ndarray) -> np.ndarray:
        drawn = int(np.random.randint(1, 100))  # noqa: NPY002 - as libraries draw
        changed: np.ndarray = (frame.astype(int) // 2 + step * drawn % 100).astype(np.uint8)
        return changed

    return change


def reader(on: str, repeats: int = 2) -> SampleReader:
    transform = Transform("test_transform:adding", {"step": 1}, on, 0, "test")  # type: ignore[arg-type]
    return SampleReader(
        Clips([clip_source(9, 24, 32)]),
        spec=DataSpec(name="clips", frames=4),
        augment=RandomResizedCrop(name="random-resized-crop"),
        views=(View("clip", SIZE),),
        channels=3,
        seed=0,
        purpose="test",
        repeats=repeats,
        repeat_from="same-frames",
        transform=transform,
    )


@pytest.mark.parametrize("on", ["crop", "frames"])
def test_all_frames_of_a_clip_are_changed_alike_and_each_repeat_anew(on: str) -> None:
    one = reader(on)
    clip = one.read(Key(0, 0)).views[0]  # [R, C, T, h, w]
    plain = reader(on)
    plain.transform = None
    before = plain.read(Key(0, 0)).views[0]
    added = clip.astype(int) - before.astype(int) // 2
    # The red channel is the frame's number: cutting and resizing leave it as it is.
    red = added[:, 0]
    assert all(len(np.unique(red[repeat])) == 1 for repeat in range(2))
    assert red[0, 0, 0, 0] != red[1, 0, 0, 0]
    assert np.array_equal(one.read(Key(0, 0)).views[0], clip)
    assert not np.array_equal(one.read(Key(1, 0)).views[0], clip)


def test_a_used_reader_can_be_sent_to_a_worker() -> None:
    one = reader("crop")
    first = one.read(Key(0, 0)).views[0]
    again = pickle.loads(pickle.dumps(one))  # its own bytes
    assert np.array_equal(again.read(Key(0, 0)).views[0], first)


def test_a_single_try_crop_takes_what_fits_of_its_one_box() -> None:
    """MAE's util/crop.py, followed step by step with the same draws."""
    augment = SingleTryCrop(name="single-try-crop", scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=0)
    source, spec = clip_source(1, 30, 100), DataSpec(name="clips")
    cut = 0
    for seed in range(60):
        plan = draw_plan(augment, source, spec, SIZE, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        area = 30 * 100 * rng.uniform(0.5, 1.0) if spec.frames == 1 and _no_draw(rng) else 0
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        width = min(round(np.sqrt(area * aspect)), 100)
        height = min(round(np.sqrt(area / aspect)), 30)
        assert (plan.box.height, plan.box.width) == (height, width)
        assert 0 <= plan.box.top <= 30 - height
        assert 0 <= plan.box.left <= 100 - width
        cut += height == 30
    assert cut > 40  # most boxes are higher than the picture


def _no_draw(rng: np.random.Generator) -> bool:
    """Draw an image's one frame too (of one)."""
    rng.integers(1)
    return True
