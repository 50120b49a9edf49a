"""Test views: which frames and boxes; one view is the center clip of held-out samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import Clips, clip_source

from maekit.contracts import View
from maekit.data.augment import draw_plan
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.evaluate.views import clip_frames, crop_box, view_reader
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment, Views


def spec(frames: int = 4, stride: int = 1, sampling: str = "dense") -> DataSpec:
    return DataSpec(name="videos", frames=frames, stride=stride, sampling=sampling)


def official_kinetics(total: int, frames: int, stride: int, clips: int) -> list[list[int]]:
    """VideoMAE, kinetics.py:137-156 and 243-249: stride first, then evenly spaced starts."""
    buffer = list(range(0, total, stride))
    while len(buffer) < frames:
        buffer.append(buffer[-1])
    step = (len(buffer) - frames) / (clips - 1)
    return [buffer[int(clip * step) : int(clip * step) + frames] for clip in range(clips)]


def official_ssv2(total: int, frames: int) -> list[list[int]]:
    """VideoMAE, ssv2.py:134-151 and 238-248, for its two clips."""
    tick = total / frames
    center_index = [int(tick / 2.0 + tick * x) for x in range(frames)]
    begin = [int(tick * x) for x in range(frames)]
    together = sorted(center_index + begin)
    return [together[clip::2] for clip in range(2)]


@given(
    total=st.integers(1, 300),
    frames=st.sampled_from([1, 2, 8, 16]),
    stride=st.integers(1, 6),
    clips=st.sampled_from([2, 3, 5, 7]),
)
def test_dense_clips_are_videomaes(total: int, frames: int, stride: int, clips: int) -> None:
    ours = clip_frames(total, spec(frames, stride), clips)
    # The official start is the floor of a product of floats; where they are a hair below a whole
    # number, ours is the exact one.
    theirs = official_kinetics(total, frames, stride, clips)
    assert len(ours) == clips
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine) == frames
        assert max(abs(a - b) for a, b in zip(mine, other, strict=True)) <= stride
    assert list(ours[0]) == theirs[0]
    assert ours[-1][-1] == theirs[-1][-1]


def test_dense_clips_of_a_known_video() -> None:
    ours = clip_frames(100, spec(4, 4), 5)
    assert [clip[0] for clip in ours] == [0, 20, 40, 60, 84]
    assert ours[-1] == (84, 88, 92, 96)
    assert [list(clip) for clip in ours] == official_kinetics(100, 4, 4, 5)


@given(total=st.sampled_from([16, 37, 64, 90, 128]), frames=st.sampled_from([4, 8, 16]))
def test_two_clips_of_segments_are_videomaes(total: int, frames: int) -> None:
    ours = clip_frames(total, spec(frames, sampling="segments"), 2)
    for mine, theirs in zip(ours, official_ssv2(total, frames), strict=True):
        assert np.abs(np.array(mine) - theirs).max() <= 0 if total % frames == 0 else 1


@given(
    total=st.integers(1, 90),
    clips=st.integers(1, 6),
    sampling=st.sampled_from(["dense", "spread", "segments"]),
)
def test_frames_are_in_the_video_and_never_fall(total: int, clips: int, sampling: str) -> None:
    for ids in clip_frames(total, spec(8, 1, sampling), clips):
        assert len(ids) == 8
        assert all(0 <= frame < total for frame in ids)
        assert list(ids) == sorted(ids)


@given(height=st.integers(8, 90), width=st.integers(8, 90), crops=st.integers(2, 5))
def test_crops_go_from_edge_to_edge_along_the_longer_side(
    height: int, width: int, crops: int
) -> None:
    boxes = [crop_box(height, width, (8, 8), Views(crops=crops), crop) for crop in range(crops)]
    short, long = min(height, width), max(height, width)
    pixel = short / 8
    for box in boxes:
        assert box.height == box.width == short
        assert box.top >= 0
        assert box.top + box.height <= height + 1e-9
        assert box.left >= 0
        assert box.left + box.width <= width + 1e-9
    starts = [box.top if height > width else box.left for box in boxes]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert long - short - starts[-1] < pixel  # whole resized pixels
    for start in starts:
        assert start / pixel == pytest.approx(round(start / pixel), abs=1e-6)


def test_three_crops_of_a_wide_picture() -> None:
    boxes = [crop_box(100, 200, (50, 50), Views(crops=3), crop) for crop in range(3)]
    assert [(box.top, box.left, box.height, box.width) for box in boxes] == [
        (0, 0, 100, 100),
        (0, 50, 100, 100),
        (0, 100, 100, 100),
    ]


def test_enlarged_crops_are_smaller() -> None:
    box = crop_box(256, 256, (224, 224), Views(enlarge=256 / 224), 0)
    assert tuple(box) == pytest.approx((16, 16, 224, 224))


def test_crops_of_a_portrait_for_a_wide_model() -> None:
    boxes = [crop_box(100, 60, (10, 20), Views(crops=2), crop) for crop in range(2)]
    assert [(box.top, box.left, box.height, box.width) for box in boxes] == [
        (0, 0, 30, 60),
        (69, 0, 30, 60),
    ]


@pytest.mark.parametrize("sampling", ["dense", "spread", "segments"])
@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (48, 48)])
def test_one_view_is_the_center_clip(sampling: str, shape: tuple[int, int]) -> None:
    source = clip_source(23, *shape)
    clips = spec(4, 1 if sampling == "segments" else 2, sampling)
    reader = view_reader(Clips([source]), clips, Views(), size=(16, 24), channels=3)
    held_out = SampleReader(
        Clips([source]),
        spec=clips,
        augment=NoAugment(name="none"),
        views=(View("clip", (16, 24)),),
        channels=3,
        seed=0,
        purpose="holdout",
        held_out=True,
    )
    plan = draw_plan(NoAugment(name="none"), source, clips, (16, 24), None)
    assert reader.plans(source, Key(0, 0)) == [plan]
    ours, theirs = reader.read(Key(0, 0)).views[0], held_out.read(Key(0, 0)).views[0]
    np.testing.assert_array_equal(ours, theirs)


def test_views_are_clip_major() -> None:
    source = clip_source(40, 20, 60)
    test = Views(clips=3, crops=2)
    reader = view_reader(Clips([source]), spec(2), test, size=(20, 20), channels=3)
    views = reader.read(Key(0, 0)).views[0]  # [V, C, T, H, W]
    assert views.shape == (7, 3, 2, 20, 20)
    np.testing.assert_array_equal(views[:6, 0, 0, 0, 0], [0, 0, 19, 19, 38, 38])  # first frame
    np.testing.assert_array_equal(views[:6, 2, 0, 0, 0], [0, 40, 0, 40, 0, 40])  # first column
    assert reader.center_index == 6  # the center view, behind them


@pytest.mark.parametrize("test", [Views(clips=2), Views(clips=5, crops=3), Views(crops=2)])
@pytest.mark.parametrize("sampling", ["dense", "spread", "segments"])
def test_the_center_view_is_that_of_one_view(sampling: str, test: Views) -> None:
    """Of no clips and crops is it one of them in general: the curve's view is read by itself."""
    source = clip_source(23, 20, 61)
    clips = spec(4, 1 if sampling == "segments" else 3, sampling)
    many, one = (
        view_reader(Clips([source]), clips, views, size=(20, 20), channels=3)
        for views in (test, Views())
    )
    ours, theirs = (reader.read(Key(0, 0)).views[0] for reader in (many, one))
    assert len(ours) == test.clips * test.crops + 1
    np.testing.assert_array_equal(ours[many.center_index], theirs[one.center_index])


def test_clips_of_spread_frames_lie_evenly() -> None:
    """Windows of 4 x 4 frames, from the first frame to the last."""
    ours = clip_frames(100, spec(4, 4, "spread"), 3)
    windows = [np.linspace(start, start + 16, 4).astype(int) for start in (0, 42, 84)]
    expected = [
        np.minimum(ids, start + 15) for ids, start in zip(windows, (0, 42, 84), strict=True)
    ]
    np.testing.assert_array_equal(ours, expected)
    assert clip_frames(9, spec(4, 4, "spread"), 2) == [(0, 8, 8, 8)] * 2  # two frames are shown
    assert clip_frames(1, spec(1, 1, "spread"), 3) == [(0,)] * 3
