"""Choose the frames of a video that make a clip. An image is a video of one frame."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from maekit.recipe.schema import RATE, SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from maekit.recipe.schema import DataSpec

    At = Callable[[Sequence[float], float], Sequence[int]]


def frame_ids(
    available: int,
    spec: DataSpec,
    rng: np.random.Generator | None,
    fps: float | None = None,
    at: At | None = None,
) -> tuple[int, ...]:
    """Draw the frames of one clip.

    Args:
        available: frames in the video, at least 1.
        spec: frames, stride and sampling of the clip.
        rng: None for the clip in the middle, which held-out samples are measured on.
        fps: the video's frames a second, which timed clips follow; None where it does not say.
        at: of a label that is of one moment, the frames at times around it (``Source.at``).

    Returns:
        ``spec.frames`` frame numbers, never falling, each in ``range(available)``.
    """
    if spec.sampling == "centered":
        return centered_frames(available, spec, rng, fps, at=at)
    if spec.sampling == "segments-floor" and rng is not None:
        return _floored_segments(available, spec.frames, rng)
    if spec.sampling in SEGMENTS:
        return _segments(available, spec.frames, rng)
    if spec.sampling == "spread":
        return _spread(available, spec.frames, spec.stride, rng)
    if spec.sampling == "timed":
        window = timed_window(spec, fps)
        spare = max(available - window, 0.0)
        start = float(spare // 2) if rng is None else rng.uniform(0, spare)
        return timed_frames(start, available, spec.frames, window)
    return _dense(available, spec.frames, spec.stride, rng)


def mean_step(available: int, spec: DataSpec, fps: float | None = None) -> float:
    """Return the mean distance of two frames of a clip, where the video is long enough."""
    if spec.sampling == "timed":
        return (timed_window(spec, fps) - 1) / max(1, spec.frames - 1)
    if spec.sampling == "centered" and fps and spec.rate:
        return spec.stride * fps / spec.rate
    if spec.sampling in SEGMENTS:  # of a clip of a test
        return available / spec.frames
    if spec.sampling == "spread":
        return spec.frames * spec.stride / max(1, spec.frames - 1)
    return spec.stride


def linspace_frames(start: int, available: int, frames: int, stride: int) -> tuple[int, ...]:
    """Spread frames evenly over the window of ``frames * stride`` that begins at ``start``.

    ``linspace(start, start + window, frames)``, rounded down, the last one brought into the window:
    of 16 frames at stride 4, 64/15 apart and not 4 (VideoMAE kinetics.py:251-267). A video that is
    no longer than the window shows ``available // stride`` frames, spread over all of it, and then
    its last one as often as is needed.
    """
    window = frames * stride
    shown = frames
    if available <= window:
        start, window, shown = 0, available, available // stride
    steps = max(1, shown - 1)
    ids = [start + min(place * window // steps, window - 1) for place in range(shown)]
    return (*ids, *[available - 1] * (frames - shown))


def centered_offsets(spec: DataSpec, rng: np.random.Generator | None) -> np.ndarray:
    """Return where a centered clip's frames lie from its moment, in frames of its own rate.

    Unjittered ones are VideoMAE-Action-Detection's (data/ava.py:150-187).
    """
    stride, first = spec.stride, spec.first
    if first is None:
        first = -(spec.frames * stride // 2) + (stride - 1) // 2
    offsets = first + stride * np.arange(spec.frames)
    if spec.jitter and rng is not None:  # as MMAction (loading.py:764-766)
        offsets = offsets + rng.integers(-(stride // 2), (stride + 1) // 2, spec.frames)
    return offsets


def centered_frames(
    available: int,
    spec: DataSpec,
    rng: np.random.Generator | None,
    fps: float | None,
    middle: int | None = None,
    at: At | None = None,
) -> tuple[int, ...]:
    """Choose the frames of a centered clip.

    Around the moment that ``at`` knows of; else around a frame; else around the video's middle one.
    """
    rate = spec.rate or fps or RATE
    if at is not None:
        return tuple(at((centered_offsets(spec, rng) / rate).tolist(), 0.5 / rate))
    if middle is None:
        middle = (available - 1) // 2
    # A frame that comes half a frame of the clip's too late still counts: so does FFmpeg's `fps`.
    apart = (centered_offsets(spec, rng) + 0.5) * (fps or rate) / rate
    ids = middle + np.ceil(apart).astype(np.int64) - 1
    return tuple(np.clip(ids, 0, available - 1).tolist())


def timed_window(spec: DataSpec, fps: float | None) -> float:
    """Return how many of a video's frames a timed clip spans; a fraction may be left over."""
    rate = spec.rate or RATE
    return spec.frames * spec.stride / rate * (fps or rate)


def timed_frames(start: float, available: int, frames: int, window: float) -> tuple[int, ...]:
    """Spread frames evenly from ``start`` to a frame before the window's end, rounded down.

    As mae_st does (util/decoder/decoder.py, temporal_sampling), in float32 as there: an exact
    product that falls a hair short of a whole frame is the frame before. What lies beyond the video
    is its last frame.
    """
    first, last = np.float32(start), np.float32(start + window - 1)
    places = np.arange(frames, dtype=np.float32)
    step = (last - first) / np.float32(max(1, frames - 1))
    # From both ends, as torch.linspace.
    ids = np.where(places < frames // 2, first + step * places, last - step * places[::-1])
    if frames == 1:
        ids = np.array([first])
    return tuple(np.clip(ids, 0, available - 1).astype(np.int64).tolist())


def resample(ids: Sequence[int], frames: int, available: int) -> tuple[int, ...]:
    """Return the frames of a view that takes more or fewer of the same clip.

    A multiple has the clip's own frames, and between each and the next as many as it has more;
    after the last one it goes on at the last step (2T x tau/2, VideoMAE table 1c). Other numbers
    are spread evenly over the clip, each in the middle of its share.

    Args:
        ids: the clip's frames.
        frames: how many the view wants.
        available: frames in the video; none beyond it is taken.
    """
    if frames == len(ids):
        return tuple(ids)
    if frames % len(ids) == 0:
        step = ids[-1] - ids[-2] if len(ids) > 1 else 0
        knots = [*ids, ids[-1] + step]
        places = np.arange(frames) * (len(ids) / frames)
    else:
        knots = list(ids)
        places = (np.arange(frames) + 0.5) * (len(ids) / frames) - 0.5
    between = np.interp(places, np.arange(len(knots)), knots).astype(np.int64)
    return tuple(np.minimum(between, available - 1).tolist())


def _dense(
    available: int, frames: int, stride: int, rng: np.random.Generator | None
) -> tuple[int, ...]:
    """Take frames at the stride from a random start (VideoMAE kinetics.py:515-556).

    A video that is too short is padded by its last frame at the stride. (The official code stops
    one step earlier where the stride meets the last frame exactly, and never shows that frame.)
    """
    spare = max(0, available - frames * stride)
    start = spare // 2 if rng is None or not spare else int(rng.integers(spare + 1))
    last = (available - 1 - start) // stride
    return tuple(start + min(step, last) * stride for step in range(frames))


def _spread(
    available: int, frames: int, stride: int, rng: np.random.Generator | None
) -> tuple[int, ...]:
    """Draw a window at a random start, and spread frames over it.

    As in the official code a window never ends with the video's last frame, unless it is the whole
    video: the end is drawn from [window, available).
    """
    spare = max(0, available - frames * stride)
    if rng is None or spare == 0:
        return linspace_frames(spare // 2, available, frames, stride)
    return linspace_frames(int(rng.integers(spare)), available, frames, stride)


def _segments(available: int, frames: int, rng: np.random.Generator | None) -> tuple[int, ...]:
    """Draw a frame from each of ``frames`` equal segments (TSN, arXiv 1608.00859).

    Without ``rng``, the one in the middle (VideoMAE ssv2.py:134-151). A video with fewer frames
    shows some of them more than once.
    """
    if rng is None:
        return tuple(available * (2 * place + 1) // (2 * frames) for place in range(frames))
    edges = [available * segment // frames for segment in range(frames + 1)]
    return tuple(int(rng.integers(low, max(low + 1, high))) for low, high in pairwise(edges))


def _floored_segments(available: int, frames: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a frame from each of ``frames`` segments of whole length (VideoMAE ssv2.py:250-260)."""
    length = available // frames
    if length == 0:
        return (0,) * frames
    return tuple((np.arange(frames) * length + rng.integers(length, size=frames)).tolist())
