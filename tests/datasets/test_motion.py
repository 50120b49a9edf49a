"""Motion clips: a class is in the change, never in a frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.datasets.drawing import backdrops, motion, scenes
from maekit.datasets.drawing.brush import Brush, Light
from maekit.datasets.drawing.color import rgb
from maekit.datasets.drawing.motion import MOTIONS, draw_clip, track

NAMES = sorted(MOTIONS)
OPPOSITES = [("left", "right"), ("up", "down"), ("clockwise", "anticlockwise")]
OPPOSITES += [("farther", "nearer")]
RANGES = {"object": motion._OBJECT, "camera": motion._CAMERA}
FRAMES, SIZE, TRAIN, VAL = 8, 32, 240, 120


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """``[TRAIN + VAL, 8, 32, 32, 3]`` in [0, 1], the motions in turn."""
    drawn = [
        draw_clip(NAMES[index % len(NAMES)], FRAMES, SIZE, np.random.default_rng([5, index]))
        for index in range(TRAIN + VAL)
    ]
    return np.stack(drawn).astype(np.float32) / 255


def nearest_neighbors(features: np.ndarray) -> float:
    """10-NN accuracy of the last VAL among the first TRAIN; chance is 1/8."""
    flat = features.reshape(len(features), -1)
    known, asked = flat[:TRAIN], flat[TRAIN:]
    apart = np.square(known).sum(axis=1) - 2 * asked @ known.T
    label = np.arange(len(flat)) % len(NAMES)
    nearest = label[np.argsort(apart, axis=1)[:, :10]]
    votes = np.stack([np.bincount(row, minlength=len(NAMES)) for row in nearest])
    return float((votes.argmax(axis=1) == label[TRAIN:]).mean())


def motion_energy(clips: np.ndarray) -> np.ndarray:
    """How frame differences go with gradients, in 4 x 4 fields: the normal flow, roughly."""
    gray = clips.mean(axis=-1)
    change, between = np.diff(gray, axis=1), (gray[:, 1:] + gray[:, :-1]) / 2
    slopes = np.stack(np.gradient(between, axis=(2, 3)), axis=-1)
    field = SIZE // 4
    shape = (len(clips), 4, field, 4, field, 2)
    along = (-change[..., None] * slopes).sum(axis=1).reshape(shape).sum(axis=(2, 4))
    steep = np.square(slopes).sum(axis=1).reshape(shape).sum(axis=(2, 4, 5))
    return np.asarray(along / (steep[..., None] + 0.01))


def test_no_frame_tells_the_motion_but_differences_do(clips: np.ndarray) -> None:
    at = np.random.default_rng(0).integers(FRAMES, size=len(clips))
    frame = clips[np.arange(len(clips)), at]
    coarse = frame.reshape(len(clips), SIZE // 4, 4, SIZE // 4, 4, 3).mean(axis=(2, 4))
    assert nearest_neighbors(frame) < 0.22  # chance 0.125, three standard errors 0.09
    assert nearest_neighbors(coarse) < 0.22
    assert nearest_neighbors(motion_energy(clips)) > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_is_a_function_of_its_generator(name: str) -> None:
    first, again, other = (draw_clip(name, 3, 48, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.shape == (3, 48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(8))
def test_every_clip_moves(seed: int) -> None:
    for name in NAMES:
        clip = draw_clip(name, 6, 32, np.random.default_rng(seed)).astype(float)
        assert (np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3)) > 0.1).all(), name


@pytest.mark.parametrize("pair", OPPOSITES)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_opposites_are_each_others_reverse(pair: tuple[str, str], seed: int) -> None:
    one, other = (draw_clip(name, 5, 32, np.random.default_rng(seed)) for name in pair)
    assert np.array_equal(one, other[::-1])
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(6))
def test_all_motions_of_one_generator_share_a_frame(seed: int) -> None:
    """Nothing but the motion depends on the class."""
    seen = [
        {frame.tobytes() for frame in draw_clip(name, 5, 32, np.random.default_rng(seed))}
        for name in NAMES
    ]
    assert set.intersection(*seen)


@given(
    name=st.sampled_from(NAMES),
    moved=st.sampled_from(sorted(RANGES)),
    frames=st.integers(2, 40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_one_coordinate_runs_and_the_others_rest(
    name: str, moved: str, frames: int, seed: int
) -> None:
    places = track(name, frames, RANGES[moved], np.random.default_rng(seed))
    running, direction = MOTIONS[name]
    steps = np.diff(places, axis=0)
    assert (steps[:, running] * direction > 0).all()
    assert np.ptp(steps[:, running]) < 1e-9
    assert not np.delete(steps, running, axis=1).any()
    length = abs(places[-1, running] - places[0, running])
    assert RANGES[moved][running].least <= length <= RANGES[moved][running].most


# Where a dot to the right of what moves is seen to go: (right, down).
GOES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
GOES |= {"clockwise": (0, 1), "anticlockwise": (0, -1), "nearer": (1, 0), "farther": (-1, 0)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("moved", sorted(RANGES))
def test_motions_are_what_they_are_called(
    name: str, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(size: int, _rng: np.random.Generator) -> np.ndarray:
        picture = np.zeros((size, size, 3), np.uint8)
        picture[94:98, 110:114] = 255
        return picture

    def dot(brush: Brush, *_: object) -> None:
        brush.fill(brush.ellipse(0.8, 0, 0.2, 0.2), rgb(1, 1, 1))

    def dark(size: int, _rng: np.random.Generator) -> backdrops.Backdrop:
        return backdrops.Backdrop(np.zeros((3, size, size), np.float32), Light(0, 0, 1), None)

    monkeypatch.setattr(motion, "_scene", scene)
    monkeypatch.setattr(motion, "MOVERS", [scenes.Kind(dot)])
    monkeypatch.setattr(motion, "paint", lambda *_: None)
    for setting in ("landscape", "room", "tabletop"):
        monkeypatch.setattr(backdrops, setting, dark)
    axis, direction = MOTIONS[name]
    places = np.zeros((2, 4))
    places[:, axis] = [-0.1 * direction, 0.1 * direction]
    draw = {"object": motion._moving_object, "camera": motion._moving_camera}[moved]
    bright = draw(places, 64, np.random.default_rng(0)).mean(axis=-1)
    line = np.arange(64)
    total = bright.sum(axis=(1, 2))
    right, down = (bright @ line).sum(1) / total, (bright.swapaxes(1, 2) @ line).sum(1) / total
    went = np.array([right[1] - right[0], down[1] - down[0]])
    assert went @ GOES[name] > 1
    assert np.abs(went - (went @ GOES[name]) * np.array(GOES[name])).max() < 0.5


@pytest.mark.parametrize("moved", sorted(RANGES))
def test_frames_are_distributed_alike_in_every_class(moved: str) -> None:
    """Each coordinate at a random moment has the same quantiles, running or resting."""
    at_random = {
        name: np.concatenate(
            [track(name, 6, RANGES[moved], np.random.default_rng(seed)) for seed in range(1500)]
        )
        for name in NAMES
    }
    shares = np.linspace(0.05, 0.95, 7)
    everything = np.concatenate(list(at_random.values()))
    width = np.ptp(everything, axis=0)
    expected = np.quantile(everything, shares, axis=0)
    for name, places in at_random.items():
        off = np.abs(np.quantile(places, shares, axis=0) - expected) / width
        assert off.max() < 0.04, name


def test_the_camera_never_leaves_its_scene() -> None:
    """Outside of it there is nothing to see: Pillow would fill with black."""
    across, down, turn, near = (spread + most / 2 for _, most, spread in motion._CAMERA)
    half = np.exp(near) / 2 * np.sqrt(2) * np.cos(np.pi / 4 - turn)
    assert max(across, down) + half <= motion._WORLD / 2
