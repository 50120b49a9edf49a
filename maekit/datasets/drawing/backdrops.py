"""Backdrops: a landscape, a room, or a surface seen from above."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from maekit.datasets.drawing import noise, textures
from maekit.datasets.drawing.brush import Brush, Light, Pose
from maekit.datasets.drawing.chance import happens, one_of, sign
from maekit.datasets.drawing.color import hsv, mix, near, rgb
from maekit.datasets.drawing.textures import Material

_SUN = rgb(1.0, 0.95, 0.75)
_CLOUD = rgb(1.0, 0.99, 0.97)


@dataclass(frozen=True)
class Backdrop:
    """An empty scene.

    ``horizon`` is where the ground ends, in sides from the top; None: a surface seen from above.
    """

    picture: np.ndarray  # [3, size, size] float32
    light: Light
    horizon: float | None


def _coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(line, line)
    return x, y


def _floor(picture: np.ndarray, material: Material, horizon: float, vanish: float) -> None:
    """Lay the material on the ground below ``horizon`` in perspective, in place."""
    size = picture.shape[-1]
    x, y = _coordinates(size)
    first = math.ceil(horizon * size)
    x, y = x[first:], y[first:]
    depth = (1 - horizon) / (y - horizon + 0.02)
    pixel = depth**2 / size
    color = material((x - vanish) * depth, depth, pixel)
    haze = np.clip((depth - 2) / 14, 0, 0.6)
    far = picture[:, first - 1].mean(axis=1).reshape(3, 1, 1)
    picture[:, first:] = color * (1 - haze) + haze * far


def _ground(rng: np.random.Generator) -> Material:
    """Draw a material for open ground."""
    offset = (rng.uniform(), rng.uniform())
    grass = hsv(rng.uniform(0.2, 0.33), rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.6))
    sand = hsv(rng.uniform(0.08, 0.13), rng.uniform(0.25, 0.5), rng.uniform(0.7, 0.9))
    stone = hsv(rng.uniform(), 0.06, rng.uniform(0.35, 0.65))
    sea = hsv(rng.uniform(0.5, 0.6), rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.65))
    choices = (
        Material(textures.patches, grass * 0.7, grass * 1.15, 3, 0.0, offset),
        Material(textures.stripes, grass * 0.85, grass * 1.05, rng.uniform(2, 5), 0.0, offset),
        Material(textures.patches, sand * 0.85, sand * 1.1, 3, 0.0, offset),
        Material(textures.tiles, stone * 0.6, stone, rng.uniform(3, 6), 0.0, offset),
        Material(textures.ripples, sea * 0.75, sea * 1.2, rng.uniform(2, 4), 0.0, offset, 0.0),
        Material(textures.checker, stone * 0.75, stone * 1.15, rng.uniform(3, 5), 0.0, offset),
    )
    return one_of(rng, choices)


def landscape(size: int, rng: np.random.Generator) -> Backdrop:
    """Paint sky, perhaps clouds, sun and hills, over ground in perspective."""
    x, y = _coordinates(size)
    horizon = rng.uniform(0.38, 0.66)
    hue, evening = rng.uniform(0.54, 0.63), happens(rng, 0.25)
    zenith = hsv(hue, rng.uniform(0.35, 0.7), rng.uniform(0.65, 0.98))
    low = hsv(rng.uniform(0.02, 0.12) if evening else hue - 0.03, 0.5 if evening else 0.15, 0.97)
    picture = mix(zenith, low, np.clip(y / horizon, 0, 1) ** rng.uniform(0.8, 1.6))
    side = sign(rng)
    angle = -np.pi / 2 + side * rng.uniform(0.3, 1.1)
    if happens(rng, 0.35):
        sun = np.hypot(x - 0.5 - side * rng.uniform(0.2, 0.4), y - rng.uniform(0.08, 0.25))
        glow = np.clip((rng.uniform(0.05, 0.09) - sun) * size + 0.5, 0, 1) + 0.4 * np.exp(-8 * sun)
        picture += (_SUN - picture) * np.clip(glow, 0, 1)
    if happens(rng, 0.55):
        cloud = noise.sample(2.0, x / 3 + rng.uniform(), y / 1.4 + rng.uniform())
        cover = np.clip(cloud * 0.9 - rng.uniform(-0.1, 0.5), 0, 0.9)
        picture += (_CLOUD - picture) * cover * np.clip(1.3 - y / horizon, 0, 1)
    far = near(hsv(rng.uniform(0.25, 0.65), 0.3, 0.6), rng)
    for share in (0.4, 0.75)[: int(rng.integers(0, 3))]:
        crest = horizon - rng.uniform(0.03, 0.13) * (1.3 - share)
        turns = x * rng.uniform(0.5, 2) + rng.uniform()
        wave = rng.uniform(0.02, 0.05) * np.sin(2 * np.pi * turns)
        ridge = np.clip((y - crest - wave) * size + 0.5, 0, 1)
        picture += (far * (1.15 - share * 0.5) + 0.25 * (1 - share) - picture) * ridge
    picture = picture.astype(np.float32)
    _floor(picture, _ground(rng), horizon, rng.uniform(0.2, 0.8))
    return Backdrop(picture, Light.from_angle(angle, rng.uniform(0.4, 0.7)), horizon)


def room(size: int, rng: np.random.Generator) -> Backdrop:
    """Paint a wall of paper, tiles, panels or bricks over a floor, with light from one side."""
    x, y = _coordinates(size)
    horizon = rng.uniform(0.5, 0.72)
    offset = (rng.uniform(), rng.uniform())
    wall = hsv(rng.uniform(), rng.uniform(0.08, 0.45), rng.uniform(0.6, 0.92))
    brick = hsv(rng.uniform(0.0, 0.06), rng.uniform(0.3, 0.65), rng.uniform(0.5, 0.75))
    accent = near(wall, rng, 0.1)
    walls = (
        Material(textures.plain, wall, wall, 1, 0.0, offset),
        Material(textures.stripes, wall, accent, rng.uniform(5, 10), 0.0, offset),
        Material(textures.zigzag, wall, accent, rng.uniform(4, 7), 0.0, offset),
        Material(textures.dots, wall, accent * 0.8, rng.uniform(4, 7), 0.0, offset),
        Material(textures.bricks, brick * 0.5 + 0.35, brick, rng.uniform(3, 5), 0.0, offset),
        Material(textures.tiles, wall * 0.75, wall, rng.uniform(4, 7), 0.0, offset, 0.01),
        Material(textures.planks, wall * 0.7, wall, rng.uniform(5, 8), math.pi / 2, offset),
    )
    picture = one_of(rng, walls)(x, y, 1 / size).astype(np.float32)
    oak = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.7))
    tone = hsv(rng.uniform(), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.85))
    floors = (
        Material(textures.planks, oak * 0.6, oak * 1.1, rng.uniform(4, 7), math.pi / 2, offset),
        Material(textures.checker, tone * 0.75, tone * 1.1, rng.uniform(3, 5), 0.0, offset),
        Material(textures.tiles, tone * 0.6, tone, rng.uniform(3, 5), 0.0, offset),
        Material(textures.patches, tone * 0.8, tone * 1.05, 5, 0.0, offset),
        Material(textures.stripes, tone * 0.75, near(tone, rng), rng.uniform(3, 6), 0.0, offset),
    )
    _floor(picture, one_of(rng, floors), horizon, rng.uniform(0.2, 0.8))
    board = rng.uniform(0.02, 0.05)
    skirting = np.clip((board / 2 - np.abs(y - horizon + board / 2)) * size + 0.5, 0, 1)
    picture += (wall * 0.5 + 0.35 - picture) * skirting
    side = sign(rng)
    picture *= 0.92 + 0.6 * side * (x - 0.5)
    if happens(rng, 0.35):
        _sunbeam(picture, rng)
    angle = -np.pi / 2 + side * rng.uniform(0.6, 1.2)
    return Backdrop(picture, Light.from_angle(angle, rng.uniform(0.4, 0.7)), horizon)


def tabletop(size: int, rng: np.random.Generator) -> Backdrop:
    """Paint wood, cloth, stone, paper, water or tiles, seen from straight above."""
    x, y = _coordinates(size)
    hue = rng.uniform()
    pale = hsv(hue, rng.uniform(0.1, 0.5), rng.uniform(0.7, 0.95))
    other = np.clip(near(pale, rng, 0.1) * rng.uniform(0.7, 0.9), 0, 1)
    oak = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.35, 0.6), rng.uniform(0.5, 0.8))
    sea = hsv(rng.uniform(0.48, 0.6), rng.uniform(0.4, 0.7), rng.uniform(0.6, 0.85))
    angle, offset = rng.uniform(0, 2 * np.pi), (rng.uniform(), rng.uniform())
    materials = (
        Material(textures.wood, oak * 0.75, oak * 1.1, rng.uniform(3, 6), angle, offset),
        Material(textures.planks, oak * 0.6, oak * 1.1, rng.uniform(3, 6), angle, offset),
        Material(textures.gingham, pale, other, rng.uniform(4, 8), angle, offset, 0.02),
        Material(textures.checker, pale, other, rng.uniform(3, 6), angle, offset, 0.01),
        Material(textures.stripes, pale, other, rng.uniform(3, 7), angle, offset),
        Material(textures.zigzag, pale, other, rng.uniform(3, 6), angle, offset),
        Material(textures.marble, pale * 0.75, pale, rng.uniform(1.5, 3), angle, offset, 0.0),
        Material(textures.patches, pale * 0.75, pale, rng.uniform(3, 6), angle, offset),
        Material(textures.ripples, sea * 0.8, sea * 1.15, rng.uniform(3, 6), angle, offset, 0.0),
        Material(textures.tiles, pale * 0.65, pale, rng.uniform(3, 6), angle, offset, 0.01),
    )
    picture = one_of(rng, materials)(x, y, 1 / size).astype(np.float32)
    toward = rng.uniform(0, 2 * np.pi)
    slope = math.cos(toward) * (x - 0.5) + math.sin(toward) * (y - 0.5)
    picture *= 0.95 + 0.6 * slope
    if happens(rng, 0.25):
        _sunbeam(picture, rng)
    return Backdrop(picture, Light.from_angle(toward, rng.uniform(0.4, 0.7)), None)


def _sunbeam(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Brighten in place where light falls through a window: a slanted field with a cross."""
    pose = Pose(rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.35))
    brush = Brush(picture.shape[-1], pose, Light(0, 0, 1))
    x = brush.x + rng.uniform(-0.6, 0.6) * brush.y
    bars = np.minimum(np.abs(x), np.abs(brush.y)) - 0.06
    field = np.maximum(np.maximum(np.abs(x) - 0.9, np.abs(brush.y) - 0.9), -bars)
    warm = rgb(0.4, 0.35, 0.22) * rng.uniform(0.6, 1.0)
    picture[:, brush.rows, brush.columns] *= 1 + warm * brush.inside(field)
