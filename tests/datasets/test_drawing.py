"""The drawing itself: coverage, textures, and whether masking a scene is a real problem."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.datasets.drawing import noise, scenes, textures
from maekit.datasets.drawing.brush import Brush, Light, Pose
from maekit.datasets.drawing.color import rgb

LIGHT = Light.from_angle(-1.0, 0.5)
PATTERNS = [
    function
    for name, function in inspect.getmembers(textures, inspect.isfunction)
    if next(iter(inspect.signature(function).parameters)) == "u"
]
PATCH = 8


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """``[144, 64, 64, 3]`` in [0, 1], the kinds in turn."""
    kinds = sorted(scenes.KINDS) * 12
    drawn = [
        scenes.draw(kind, 64, np.random.default_rng([7, index])) for index, kind in enumerate(kinds)
    ]
    return np.stack(drawn).astype(np.float32) / 255


@pytest.mark.parametrize("kind", sorted(scenes.KINDS))
def test_a_scene_is_a_function_of_its_generator(kind: str) -> None:
    first, again, other = (scenes.draw(kind, 48, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 10


@pytest.mark.parametrize("kind", sorted(scenes.KINDS))
def test_an_object_fills_its_own_square(kind: str) -> None:
    for seed in range(8):
        brush = Brush(96, Pose(0.5, 0.5, 0.3), LIGHT)
        rng = np.random.default_rng(seed)
        scenes.KINDS[kind].draw(brush, scenes.bright_palette(rng), rng)
        inside = (np.abs(brush.x) < 1.08) & (np.abs(brush.y) < 1.08)
        assert brush.alpha[~inside].max() == 0
        assert brush.alpha.min() >= 0
        assert brush.alpha.max() <= 1 + 1e-5
        assert brush.alpha.sum() > 0.15 * inside.sum()


@pytest.mark.parametrize("kind", ["ball", "leaf"])
def test_the_foreground_never_hides_the_main_object(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curtain(brush: Brush, _rng: np.random.Generator) -> None:
        brush.fill(np.ones_like(brush.x, np.float32), rgb(1, 0, 0))

    for name in ("_fence", "_grass", "_rope"):
        monkeypatch.setattr(scenes, name, curtain)
    for seed in range(12):
        picture = scenes.draw(kind, 32, np.random.default_rng(seed))
        assert picture[..., 1:].max() > 0


def test_a_shadow_does_not_wrap_around_the_picture() -> None:
    picture = np.ones((3, 48, 48), np.float32)
    cover = np.zeros((48, 48), np.float32)
    cover[:, 40:] = 1
    scenes.drop_shadow(picture, cover, Light(-1, 0, 0), 0.4)
    assert picture[:, :, :24] == pytest.approx(1)
    assert picture[:, :, 46:].max() < 0.7


@given(
    pose=st.builds(
        Pose,
        st.floats(0.4, 0.6),
        st.floats(0.4, 0.6),
        st.floats(0.15, 0.25),
        st.floats(-3.2, 3.2),
    ),
    half=st.tuples(st.floats(0.2, 1.0), st.floats(0.2, 1.0)),
)
@settings(max_examples=40)
def test_coverage_is_area(pose: Pose, half: tuple[float, float]) -> None:
    brush = Brush(96, pose, LIGHT)
    across, down = half
    corners = np.array([[-across, -down], [across, -down], [across, down], [-across, down]])
    area = 4 * across * down * (pose.scale * 96) ** 2
    edge = 4 * (across + down) * pose.scale * 96
    assert brush.polygon(corners).sum() == pytest.approx(area, abs=0.3 * edge)
    rounded = np.pi / 4 * area
    assert brush.ellipse(0, 0, across, down).sum() == pytest.approx(rounded, abs=0.3 * edge)


def test_what_is_painted_last_is_in_front() -> None:
    brush = Brush(32, Pose(0.5, 0.5, 0.5), LIGHT)
    red, blue = rgb(1, 0, 0), rgb(0, 0, 1)
    brush.fill(brush.ellipse(0, 0, 0.9, 0.9), red)
    brush.fill(brush.ellipse(0, 0, 0.3, 0.3), blue)
    picture = np.ones((3, 32, 32), np.float32)
    brush.lay(picture)
    assert picture[:, 16, 16] == pytest.approx([0, 0, 1])
    assert picture[:, 16, 6] == pytest.approx([1, 0, 0])
    assert picture[:, 0, 0] == pytest.approx([1, 1, 1])


def test_an_object_at_the_edge_is_cut_off() -> None:
    picture = np.zeros((3, 32, 32), np.float32)
    brush = Brush(32, Pose(0.0, 1.0, 0.5), LIGHT)
    brush.fill(brush.ellipse(0, 0, 1, 1), rgb(1, 1, 1))
    brush.lay(picture)
    assert picture[:, -1, 0] == pytest.approx([1, 1, 1])
    assert picture[:, 0].max() == 0
    assert brush.spread().shape == (32, 32)


def test_the_light_turns_against_the_object() -> None:
    turned = Brush(32, Pose(0.5, 0.5, 0.5, np.pi / 2), Light(1, 0, 0)).light
    assert turned == pytest.approx((0, -1, 0), abs=1e-6)


@given(
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    pixel=st.floats(0.001, 4),
    number=st.integers(0, len(PATTERNS) - 1),
)
@settings(max_examples=80)
def test_patterns_stay_in_range(shift: tuple[float, float], pixel: float, number: int) -> None:
    line = np.arange(24, dtype=np.float32) * pixel
    u, v = np.meshgrid(line + shift[0], line + shift[1])
    pattern = PATTERNS[number](u, v, np.float32(pixel))
    assert pattern.shape == u.shape
    assert pattern.min() >= -0.1
    assert pattern.max() <= 1.1


@pytest.mark.parametrize("pattern", [textures.checker, textures.stripes, textures.dots])
def test_patterns_too_fine_to_see_fade(pattern: textures.Pattern) -> None:
    line = np.arange(64, dtype=np.float32) * 2.37
    u, v = np.meshgrid(line, line)
    assert pattern(u, v, np.float32(2.37)).std() < 0.1
    near = pattern(u / 100, v / 100, np.float32(0.0237))
    assert near.std() > 0.3


def test_noise_is_periodic_and_steady() -> None:
    u, v = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40))
    assert np.array_equal(noise.sample(2.0, u, v), noise.sample(2.0, u + 2, v - 1))
    assert noise.field(2.0).std() == pytest.approx(1, abs=1e-3)
    assert noise.field(2.0).mean() == pytest.approx(0, abs=1e-3)


def test_masking_is_a_real_problem_with_something_to_win(pictures: np.ndarray) -> None:
    """Interpolation gains on the mean color, yet most of what it misses lies between patches."""
    rng = np.random.default_rng(0)
    side = 64 // PATCH
    patches = pictures.reshape(-1, side, PATCH, side, PATCH, 3).swapaxes(2, 3)
    patches = patches.reshape(len(pictures), side * side, PATCH * PATCH, 3)
    means = patches.mean(axis=2)
    place = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    distance = np.square(place[:, None] - place).sum(axis=-1)
    flat, interpolated, between = [], [], []
    for clip, mean in zip(patches, means, strict=True):
        order = rng.permutation(side * side)
        visible, hidden = order[: side * side // 4], order[side * side // 4 :]
        weight = 1 / distance[hidden][:, visible]
        guess = weight @ mean[visible] / weight.sum(axis=1, keepdims=True)
        flat.append(np.square(clip[hidden] - mean[visible].mean(axis=0)).mean())
        interpolated.append(np.square(clip[hidden] - guess[:, None]).mean())
        between.append(np.square(mean[hidden] - guess).mean())
    assert np.mean(flat) > 0.02
    assert np.mean(interpolated) < 0.8 * np.mean(flat)
    assert np.mean(between) > 0.4 * np.mean(interpolated)


def test_raw_pixels_hardly_tell_the_kind(pictures: np.ndarray) -> None:
    flat = pictures[:, ::4, ::4].reshape(len(pictures), -1)
    apart = np.square(flat[:, None] - flat).sum(axis=-1)
    np.fill_diagonal(apart, np.inf)
    kind = np.arange(len(pictures)) % len(scenes.KINDS)
    assert (kind[apart.argmin(axis=1)] == kind).mean() < 0.4
