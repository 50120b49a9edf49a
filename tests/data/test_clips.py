"""Which frames make a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maekit.data.clips import (
    centered_offsets,
    frame_ids,
    linspace_frames,
    mean_step,
    resample,
    timed_frames,
    timed_window,
)
from maekit.evaluate.views import clip_frames
from maekit.recipe.schema import DataSpec


def spec(frames: int, stride: int = 1, sampling: str = "dense") -> DataSpec:
    return DataSpec(name="videos", frames=frames, stride=stride, sampling=sampling)


@given(
    st.integers(1, 400), st.integers(1, 32), st.integers(1, 8),
    st.sampled_from(["dense", "spread", "timed", "segments"]), st.booleans(),
)  # fmt: skip
def test_any_clip_of_any_video_is_readable(
    available: int, frames: int, stride: int, sampling: str, fixed: bool
) -> None:
    rng = None if fixed else np.random.default_rng(available)
    stride = 1 if sampling == "segments" else stride
    ids = frame_ids(available, spec(frames, stride, sampling), rng)
    assert len(ids) == frames
    assert list(ids) == sorted(ids)
    assert 0 <= ids[0] <= ids[-1] < available


def test_dense_is_consecutive_from_every_possible_start() -> None:
    rng = np.random.default_rng(0)
    clips = [frame_ids(70, spec(16, 4), rng) for _ in range(300)]
    assert {clip[0] for clip in clips} == set(range(7))
    assert all(set(np.diff(clip)) == {4} for clip in clips)
    assert frame_ids(70, spec(16, 4), None)[0] == 3


def test_short_videos_are_padded_with_their_last_frame_at_the_stride() -> None:
    assert frame_ids(10, spec(6, 4), np.random.default_rng(0)) == (0, 4, 8, 8, 8, 8)
    assert frame_ids(1, spec(4, 4), None) == (0, 0, 0, 0)


def test_segments_take_one_frame_of_each() -> None:
    rng = np.random.default_rng(0)
    clips = np.array([frame_ids(40, spec(8, 1, "segments"), rng) for _ in range(200)])
    np.testing.assert_array_equal(clips // 5, np.tile(np.arange(8), (200, 1)))
    assert set(clips[:, 3]) == set(range(15, 20))
    assert frame_ids(40, spec(8, 1, "segments"), None) == (2, 7, 12, 17, 22, 27, 32, 37)


def test_other_frame_counts_cover_the_same_span() -> None:
    clip = tuple(range(8, 72, 4))
    assert resample(clip, 16, 100) == clip
    assert resample(clip, 8, 100) == tuple(range(10, 72, 8))
    assert resample(clip, 32, 100) == tuple(range(8, 72, 2))
    assert resample(clip, 32, 69) == (*range(8, 70, 2), 68)
    assert resample((3, 9, 9), 6, 10) == (3, 6, 9, 9, 9, 9)
    assert resample((0,), 4, 1) == (0, 0, 0, 0)


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**31))
def test_dense_is_that_of_videomae_but_for_the_very_last_frame(
    available: int, frames: int, stride: int, seed: int
) -> None:
    """There the index advances by the stride unless that brings it to the last frame or beyond."""
    clip = frame_ids(available, spec(frames, stride), np.random.default_rng(seed))
    spare = max(0, available - frames * stride)
    assert 0 <= clip[0] <= spare
    theirs, index = [], clip[0]
    for _ in range(frames):
        theirs.append(index)
        if index + stride < available - 1:
            index += stride
    meets = available - 1 in clip and (available - 1 - clip[0]) % stride == 0
    if not meets:
        assert list(clip) == theirs
    else:
        first = clip.index(available - 1)
        assert list(clip[:first]) == theirs[:first]
        assert set(clip[first:]) == {available - 1}


def test_starts_of_dense_clips_are_even() -> None:
    """``randint(num_frames - skip_length + 1)``, as theirs: both ends belong."""
    rng = np.random.default_rng(0)
    starts = [frame_ids(20, spec(4, 4), rng)[0] for _ in range(5000)]
    counts = np.bincount(starts, minlength=5)
    assert len(counts) == 5
    assert abs(counts - 1000).max() < 150


@given(st.integers(1, 300), st.integers(1, 32), st.integers(0, 2**31))
def test_segments_lie_one_after_the_other(available: int, frames: int, seed: int) -> None:
    clip = frame_ids(available, spec(frames, 1, "segments"), np.random.default_rng(seed))
    for number, frame in enumerate(clip):
        low, high = available * number / frames, available * (number + 1) / frames
        assert low - 1 < frame < max(high, low + 1)
    if available >= frames:
        assert len(set(clip)) == frames
    middle = frame_ids(available, spec(frames, 1, "segments"), None)
    assert middle == tuple(int((place + 0.5) * available / frames) for place in range(frames))


def official_spread(available: int, frames: int, stride: int, end: int | None) -> list[int]:
    """VideoMAE, kinetics.py:251-267; ``end`` is what it draws from [window, available)."""
    window = frames * stride
    if available <= window:
        shown = available // stride
        index = np.linspace(0, available, num=shown)
        index = np.concatenate([index, np.ones(frames - shown) * available])
        return list(np.clip(index, 0, available - 1).astype(np.int64))
    assert end is not None
    index = np.linspace(end - window, end, num=frames)
    return list(np.clip(index, end - window, end - 1).astype(np.int64))


def official_timed(
    available: int, frames: int, stride: int, fps: float, start: float, rate: float = 30
) -> list[int]:
    """mae_st's util/decoder/decoder.py: where a clip ends, and linspace between."""
    window = frames * stride / rate * fps
    index = torch.linspace(start, start + window - 1, frames)
    found: list[int] = torch.clamp(index, 0, available - 1).long().tolist()
    return found


def timed(frames: int, stride: int, rate: float | None = None) -> DataSpec:
    return DataSpec(name="x", frames=frames, stride=stride, sampling="timed", rate=rate)


def test_timed_frames_follow_the_clock() -> None:
    """The review's: at 25 frames a second 0, 3, 6, 10, ..., 52; at 30 they are 63 / 15 apart."""
    window = timed_window(timed(16, 4), 25)
    at_25 = timed_frames(0, 300, 16, window)
    assert at_25[:4] == (0, 3, 6, 10)
    assert at_25[-1] == 52
    assert timed_frames(0, 300, 16, 64)[-1] == 63
    # 12 frames a second show the same 2.1 seconds as 60 do.
    spans = {fps: np.diff(timed_frames(0, 999, 16, timed_window(timed(16, 4), fps)))[0] / fps
             for fps in (12, 24, 60)}  # fmt: skip
    assert max(spans.values()) < 4.2 / 30 < min(spans.values()) + 1 / 12


@pytest.mark.parametrize(("frames", "stride"), [(16, 4), (8, 3), (7, 2), (1, 4), (2, 8)])
@pytest.mark.parametrize("fps", [6.0, 25.0, 29.97, 30.0, 59.94, 120.0])
def test_timed_frames_are_mae_sts(frames: int, stride: int, fps: float) -> None:
    for available in (1, 5, 40, 64, 300):
        for seed in range(10):
            clip = frame_ids(available, timed(frames, stride), np.random.default_rng(seed), fps)
            spare = max(available - frames * stride / 30 * fps, 0)
            start = np.random.default_rng(seed).uniform(0, spare)
            assert list(clip) == official_timed(available, frames, stride, fps, start)
        middle = frame_ids(available, timed(frames, stride), None, fps)
        assert list(middle) == official_timed(available, frames, stride, fps, spare // 2)
        for clips in (2, 7, 10):
            ours = clip_frames(available, timed(frames, stride), clips, fps)
            starts = [k * math.floor(spare / (clips - 1)) for k in range(clips)]
            theirs = [official_timed(available, frames, stride, fps, start) for start in starts]
            assert [list(clip) for clip in ours] == theirs


def test_files_without_a_rate_are_taken_to_have_the_recipes() -> None:
    unknown = frame_ids(300, timed(16, 4, 15), np.random.default_rng(0))
    assert unknown == frame_ids(300, timed(16, 4, 15), np.random.default_rng(0), 15)
    assert mean_step(300, timed(16, 4), 60) == pytest.approx(127 / 15)
    with pytest.raises(ValidationError, match="rate 15 means nothing with sampling dense"):
        DataSpec(name="x", rate=15)


@pytest.mark.parametrize(("frames", "stride"), [(16, 4), (16, 2), (8, 4), (1, 4), (2, 3)])
def test_spread_frames_are_videomaes(frames: int, stride: int) -> None:
    window = frames * stride
    for available in range(1, window + 1):  # shorter than the window, and as long
        theirs = official_spread(available, frames, stride, None)
        for rng in (None, np.random.default_rng(0)):
            assert list(frame_ids(available, spec(frames, stride, "spread"), rng)) == theirs
    available = window + 40
    theirs = {
        tuple(official_spread(available, frames, stride, end)) for end in range(window, available)
    }
    rng = np.random.default_rng(0)
    ours = [frame_ids(available, spec(frames, stride, "spread"), rng) for _ in range(600)]
    assert set(ours) == theirs  # every one that theirs may draw, and no other
    middle = frame_ids(available, spec(frames, stride, "spread"), None)
    assert list(middle) == official_spread(available, frames, stride, window + 20)


def test_the_step_of_spread_frames_is_no_whole_number() -> None:
    clip = linspace_frames(10, 100, 16, 4)
    assert clip == (10, 14, 18, 22, 27, 31, 35, 39, 44, 48, 52, 56, 61, 65, 69, 73)
    assert mean_step(100, spec(16, 4, "spread")) == pytest.approx(64 / 15)
    assert mean_step(100, spec(16, 4)) == 4
    assert mean_step(100, spec(16, 1, "segments")) == 100 / 16
    assert mean_step(1, spec(1, 1, "spread")) == 1  # an image


@given(st.integers(1, 300), st.integers(1, 32), st.integers(1, 8), st.integers(0, 2**31))
def test_spread_frames_of_any_video(available: int, frames: int, stride: int, seed: int) -> None:
    clip = frame_ids(available, spec(frames, stride, "spread"), np.random.default_rng(seed))
    window = frames * stride
    start = clip[0]
    theirs = official_spread(available, frames, stride, start + window)
    for place, (mine, other) in enumerate(zip(clip, theirs, strict=True)):
        # Where the exact place is a whole number, a product of floats may be a hair below it.
        steps = max(1, (frames if available > window else available // stride) - 1)
        whole = place * min(window, available) % steps == 0
        assert mine == other or (whole and mine == other + 1)
    if available > window:
        assert len(set(clip)) == frames
        assert 0 <= start < available - window


@pytest.mark.parametrize(
    ("rate", "first", "offsets"),
    [(25, None, range(-31, 30, 4)), (30, -32, range(-32, 29, 4)), (25, -33, range(-33, 28, 4))],
)
def test_centered_clips_are_those_of_the_ava_codes(
    rate: int, first: int | None, offsets: range
) -> None:
    """At the label's moment, in seconds: VideoMAE-Action-Detection's, and SlowFast's."""
    asked: list[float] = []

    def at(seconds: Sequence[float], late: float) -> Sequence[int]:
        asked.extend(seconds)
        assert late == 0.5 / rate
        return [round(100 + second * rate) for second in seconds]

    ava = DataSpec(name="x", frames=16, stride=4, sampling="centered", rate=rate, first=first)
    ids = frame_ids(1000, ava, None, 24.0, at)
    assert asked == [offset / rate for offset in offsets]
    assert ids == tuple(100 + offset for offset in offsets)
    plain = ava.model_copy(update={"rate": None})
    assert frame_ids(201, plain, None, 30.0) == tuple(100 + offset for offset in offsets)
    assert clip_frames(201, plain, 3, 30.0)[1] == frame_ids(201, plain, None, 30.0)


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 20))
def test_jitter_moves_each_frame_of_a_centered_clip(seed: int, stride: int, frames: int) -> None:
    calm = DataSpec(name="x", frames=frames, stride=stride, sampling="centered")
    shaken, rng = calm.model_copy(update={"jitter": True}), np.random.default_rng(seed)
    still = centered_offsets(calm, None)
    moved = centered_offsets(shaken, rng) - still
    assert moved.min() >= -(stride // 2)
    assert moved.max() <= (stride - 1) // 2
    assert (np.diff(centered_offsets(shaken, rng)) >= 0).all()
    np.testing.assert_array_equal(centered_offsets(shaken, None), still)
    if stride == 4 and frames > 8:
        assert len(set(moved.tolist())) > 1


def test_centered_clips_of_a_plain_video_follow_the_clock_to_its_ends() -> None:
    ava = DataSpec(name="x", frames=4, stride=10, sampling="centered", rate=25, first=-20)
    # Of 50 frames a second, every second one; frames that do not exist are the first and the last.
    assert frame_ids(101, ava, None, 50.0) == (10, 30, 50, 70)
    assert frame_ids(41, ava, None, 50.0) == (0, 0, 20, 40)
    with pytest.raises(ValidationError, match="first means nothing with sampling dense"):
        DataSpec(name="x", frames=4, first=-2)
    with pytest.raises(ValidationError, match="jitter means nothing with sampling timed"):
        DataSpec(name="x", frames=4, sampling="timed", jitter=True)
