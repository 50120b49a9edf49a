"""RandAugment on clips, random erasing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from maekit.data.order import Key
from maekit.data.rng import generator
from maekit.data.transform import Transform
from maekit.errors import DataError, RecipeError
from maekit.evaluate.augment import RAND_AUGMENT, RandomErase, erased_box, rand_augment

MEAN = (0.485, 0.456, 0.406)


def transform(policy: str = "rand-m9-mstd0.5-inc1", seed: int = 0) -> Transform:
    settings = {"policy": policy, "size": (24, 32), "mean": MEAN}
    return Transform(RAND_AUGMENT, settings, "crop", seed, "test")


def picture(channels: int = 3) -> np.ndarray:
    ramp = np.arange(24 * 32 * channels, dtype=np.int64).reshape(24, 32, channels)
    return (ramp * 7 % 251).astype(np.uint8)


def test_every_frame_of_a_clip_is_changed_alike_and_by_its_key() -> None:
    apply, frame = transform(), picture()
    changed = []
    for index in range(12):
        frames = apply([frame, frame, frame], Key(1, index), 0, "clip")
        assert all(np.array_equal(frames[0], other) for other in frames)
        assert frames[0].shape == frame.shape
        changed.append(frames[0])
    assert len({each.tobytes() for each in changed}) > 6
    again = transform()
    for index, each in enumerate(changed):
        assert np.array_equal(again([frame], Key(1, index), 0, "clip")[0], each)
    repeats = [apply([frame], Key(1, 0), repeat, "clip")[0] for repeat in range(8)]
    assert len({each.tobytes() for each in repeats}) > 3


def test_drawing_leaves_global_generators_alone() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - it is this state that libraries share
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    transform()([picture()], Key(0, 0), 0, "clip")
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_gray_pictures_stay_gray_and_others_are_refused() -> None:
    apply = transform("rand-m9-n4-p1.0-mstd0.5-inc1")
    for index in range(8):
        assert apply([picture(1)], Key(0, index), 0, "x")[0].shape == (24, 32, 1)
    for odd in (picture(4), picture().astype(np.uint16)):
        with pytest.raises(DataError, match="8-bit pixels of 1 or 3"):
            apply([odd], Key(0, 0), 0, "x")


def test_no_bits_left_is_black_not_an_error() -> None:
    """At full magnitude timm's increasing policies posterize to 0 bits, which Pillow refuses."""
    apply = transform("rand-m10-n8-p1.0-inc1")
    black = [index for index in range(40) if not apply([picture()], Key(0, index), 0, "x")[0].any()]
    assert 0 < len(black) < 40  # and nothing was raised


def test_a_policy_that_timm_does_not_know_is_an_error_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="does not understand"):
        rand_augment(policy="rand-m9-foo3", size=(8, 8), mean=MEAN)


def test_one_box_a_clip_with_fresh_noise_in_each_frame() -> None:
    erase = RandomErase(1.0, seed=5)
    clips = torch.zeros(6, 3, 4, 40, 60)
    changed = erase(clips.clone(), [Key(0, number) for number in range(6)])
    areas = []
    for clip in changed:
        places = clip != 0
        box = places[0, 0]
        assert (places == box).all()
        rows, columns = torch.nonzero(box, as_tuple=True)
        height, width = (int(axis.max() - axis.min()) + 1 for axis in (rows, columns))
        assert height * width == int(box.sum())
        values = clip[:, :, box]
        assert not torch.equal(values[:, 0], values[:, 1])
        areas.append(height * width / 2400)
        assert 0.28 <= height / width <= 3.6
    assert all(0.015 < area < 0.36 for area in areas)
    assert len(set(areas)) > 3
    noise = changed[changed != 0]
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


def test_erasing_is_keyed_and_happens_with_its_probability() -> None:
    keys = [Key(3, number) for number in range(4)]
    one, other = (RandomErase(0.5, seed=1, repeats=2) for _ in range(2))
    clips = torch.randn(8, 1, 1, 16, 16)
    torch.manual_seed(0)
    first = one(clips.clone(), keys)
    torch.manual_seed(99)
    assert torch.equal(first, other(clips.clone(), keys))
    # A micro-batch of its own gives the same.
    assert torch.equal(first[2:4], other(clips[2:4].clone(), keys[1:2]))
    hits = sum(
        erased_box(32, 32, 0.25, generator(0, purpose="t", index=number)) is not None
        for number in range(2000)
    )
    assert hits / 2000 == pytest.approx(0.25, abs=0.03)
