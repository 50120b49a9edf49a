"""Which frames make a clip."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maekit.data.clips import frame_ids, resample
from maekit.recipe.schema import DataSpec


def spec(frames: int, stride: int = 1, sampling: str = "dense") -> DataSpec:
    return DataSpec(name="videos", frames=frames, stride=stride, sampling=sampling)


@given(
    st.integers(1, 400), st.integers(1, 32), st.integers(1, 8),
    st.sampled_from(["dense", "segments"]), st.booleans(),
)  # fmt: skip
def test_any_clip_of_any_video_is_readable(
    available: int, frames: int, stride: int, sampling: str, fixed: bool
) -> None:
    rng = None if fixed else np.random.default_rng(available)
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
    assert resample(clip, 16) == clip
    assert resample(clip, 8) == tuple(range(10, 72, 8))
    double = resample(clip, 32)
    assert len(double) == 32
    assert (double[0], double[-1]) == (8, 68)
    assert set(np.diff(double[1:-1])) == {2}
    assert resample((0,), 4) == (0, 0, 0, 0)
