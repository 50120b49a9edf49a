"""A whole scene: a backdrop, a main object that gives the label, others, and what hides a part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from maekit.datasets.drawing import backdrops, figures, solids
from maekit.datasets.drawing.brush import Brush, Light, Pose
from maekit.datasets.drawing.chance import happens, one_of, sign
from maekit.datasets.drawing.color import Palette, bright_palette, hsv, near, rgb

if TYPE_CHECKING:
    from collections.abc import Callable

    from maekit.datasets.drawing.backdrops import Backdrop

VERSION = 1  # raise it with every change of what is drawn: cached pictures are then drawn anew
_LARGE = 0.2  # half-extent from which an object is kept near the middle
_LEAST_SHOWN = 0.65  # of the main object, where something is put in the foreground


class Kind(NamedTuple):
    """One class of objects."""

    draw: Callable[[Brush, Palette, np.random.Generator], None]
    stands: bool = True  # has a foot on the ground; otherwise it may hang anywhere
    spin: float = 0.08  # largest turn from upright while it stands or hangs, radians
    lies: bool = True  # may lie on a table at any angle


KINDS: dict[str, Kind] = {
    "ball": Kind(solids.ball, spin=math.pi),
    "box": Kind(solids.box, spin=0.0, lies=False),
    "fish": Kind(figures.fish, stands=False, spin=0.5),
    "flag": Kind(figures.flag),
    "house": Kind(figures.house, spin=0.03, lies=False),
    "ladder": Kind(solids.ladder, spin=0.3),
    "leaf": Kind(figures.leaf, stands=False, spin=math.pi),
    "mug": Kind(solids.mug, spin=0.03, lies=False),
    "ring": Kind(solids.ring, stands=False, spin=math.pi),
    "star": Kind(figures.star, stands=False, spin=math.pi),
    "tree": Kind(figures.tree),
    "wheel": Kind(solids.wheel, spin=math.pi),
}


class Spot(NamedTuple):
    """Place in a scene for an object."""

    x: float  # the center, in sides of the picture
    scale: float  # half the extent, in sides
    nearness: float  # of its foot: 0 at the horizon, 1 at the lower edge


def draw(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one scene with a main object of this kind: uint8 ``[size, size, 3]``.

    The main object is the largest, stands before most others, and is never hidden by more than
    about a third. The same generator state gives the same picture.
    """
    settings = (backdrops.landscape, backdrops.room, backdrops.tabletop)
    backdrop = one_of(rng, settings)(size, rng)
    picture = backdrop.picture
    kinds = list(KINDS.values())
    for _ in range(int(rng.integers(0, 3))):
        spot = Spot(rng.uniform(0.05, 0.95), rng.uniform(0.1, 0.18), 0.3)
        paint(picture, backdrop, one_of(rng, kinds), spot, rng)
    main = Spot(rng.uniform(0.36, 0.64), rng.uniform(0.28, 0.42), rng.uniform(0.6, 1.0))
    whole = paint(picture, backdrop, KINDS[kind], main, rng)
    shown = whole
    if happens(rng, 0.35):
        beside = main.x + sign(rng) * main.scale * rng.uniform(0.8, 1.3)
        spot = Spot(beside, rng.uniform(0.09, 0.14), 1.0)
        shown = whole * (1 - paint(picture, backdrop, one_of(rng, kinds), spot, rng))
    if happens(rng, 0.3):
        brush = _foreground(size, backdrop.light, rng)
        if (shown * (1 - brush.alpha)).sum() >= _LEAST_SHOWN * whole.sum():
            brush.lay(picture)
    if happens(rng, 0.5):  # mugs and fish face both ways
        picture = picture[:, :, ::-1]
    return Film.load(size, rng).develop(picture)


def _pose(kind: Kind, backdrop: Backdrop, spot: Spot, rng: np.random.Generator) -> Pose:
    """Draw how an object of this kind lies, stands or hangs at a spot."""
    angle = rng.uniform(-kind.spin, kind.spin)
    if backdrop.horizon is None:
        # Seen from above: things lie at any angle, but for what is drawn in perspective.
        turned = rng.uniform(-math.pi, math.pi) if kind.lies else angle
        height = rng.uniform(0.36, 0.64) if spot.scale >= _LARGE else rng.uniform(0.05, 0.95)
        return Pose(spot.x, height, spot.scale, turned)
    if not kind.stands and happens(rng, 0.7):
        height = rng.uniform(spot.scale, max(0.95 - spot.scale, spot.scale + 0.05))
        return Pose(spot.x, height, spot.scale, angle)
    foot = backdrop.horizon + (0.97 - backdrop.horizon) * spot.nearness * rng.uniform(0.7, 1.0)
    foot = max(foot, 2 * spot.scale + 0.02)
    return Pose(spot.x, foot - spot.scale, spot.scale, angle)


def paint(
    picture: np.ndarray, backdrop: Backdrop, kind: Kind, spot: Spot, rng: np.random.Generator
) -> np.ndarray:
    """Paint an object and its shadow, in place; returns its coverage ``[size, size]``."""
    pose = _pose(kind, backdrop, spot, rng)
    brush = Brush(picture.shape[-1], pose, backdrop.light)
    kind.draw(brush, bright_palette(rng), rng)
    cover = brush.spread()
    if backdrop.horizon is None or not kind.stands:
        drop_shadow(picture, cover, backdrop.light, pose.scale)
    else:
        _cast_shadow(picture, backdrop.light, pose)
    brush.lay(picture)
    return cover


def drop_shadow(picture: np.ndarray, cover: np.ndarray, light: Light, scale: float) -> None:
    """Darken in place, and softly, what lies behind, away from the light."""
    size = picture.shape[-1]
    away = 0.22 * scale * size
    shift = (round(-light.x * away), round(-light.y * away))
    sheet = Image.new("L", (size, size))
    sheet.paste(Image.fromarray((cover * 255).astype(np.uint8)), shift)
    soft = np.asarray(sheet.filter(ImageFilter.BoxBlur(max(0.06 * scale * size, 0.5))), np.float32)
    picture *= 1 - 0.4 * soft / 255


def _cast_shadow(picture: np.ndarray, light: Light, pose: Pose) -> None:
    """Darken in place a soft flat ellipse at the foot, drawn out away from the light."""
    size = picture.shape[-1]
    foot, reach = pose.y + pose.scale, pose.scale * 1.1
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    across = (line - pose.x + 0.5 * light.x * pose.scale) / reach
    down = (line - foot + 0.02 * pose.scale) / (0.22 * pose.scale)
    depth = np.clip(1.2 - across[None, :] ** 2 - down[:, None] ** 2, 0, 1)
    picture *= 1 - 0.5 * depth


def _foreground(size: int, light: Light, rng: np.random.Generator) -> Brush:
    """Paint posts, blades of grass or cords before everything, over the whole picture."""
    brush = Brush(size, Pose(0.5, 0.5, 0.5), light)
    one_of(rng, (_fence, _grass, _rope))(brush, rng)
    return brush


def _fence(brush: Brush, rng: np.random.Generator) -> None:
    """Paint upright posts with a rail across."""
    color = near(hsv(rng.uniform(0.05, 0.12), rng.uniform(0.05, 0.5), rng.uniform(0.4, 0.9)), rng)
    spacing, half = rng.uniform(0.35, 0.6), rng.uniform(0.05, 0.08)
    top = rng.uniform(0.1, 0.5)
    x = (brush.x + rng.uniform()) / spacing
    off = (x - np.round(x)) * spacing
    rail = np.abs(brush.y - top - 0.18) - 0.05
    brush.fill(brush.inside(rail), color * 0.85)
    post = np.maximum(np.abs(off) - half, top - brush.y + np.abs(off))
    brush.fill(brush.inside(post), color * (1 + 0.25 * off / half * brush.light.x))


def _grass(brush: Brush, rng: np.random.Generator) -> None:
    """Paint a fringe of bent blades along the lower edge."""
    green = hsv(rng.uniform(0.2, 0.36), rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.6))
    for root in np.linspace(-1, 1, int(rng.integers(7, 13))):
        height, bend = rng.uniform(0.2, 0.6), rng.normal(0, 0.15)
        tip = [root + bend, 1 - height]
        blade = np.array(
            [
                [root - 0.06, 1.02],
                [root + bend * 0.4 - 0.04, 1 - height / 2],
                tip,
                [root + bend * 0.4 + 0.04, 1 - height / 2],
                [root + 0.06, 1.02],
            ]
        )
        brush.fill(brush.polygon(blade), near(green, rng, 0.04))


def _rope(brush: Brush, rng: np.random.Generator) -> None:
    """Paint one or two sagging cords from side to side."""
    color = hsv(rng.uniform(), rng.uniform(0.1, 0.7), rng.uniform(0.3, 0.9))
    for _ in range(int(rng.integers(1, 3))):
        level, sag, tilt = rng.uniform(-0.8, 0.6), rng.uniform(-0.2, 0.2), rng.uniform(-0.4, 0.4)
        off = brush.y - level - tilt * brush.x - sag * brush.x**2
        half = rng.uniform(0.04, 0.08)
        brush.fill(brush.inside(np.abs(off) - half), color * (1 - 0.3 * off / half))


class Film(NamedTuple):
    """Look of a picture: light that falls to a side and to the corners, warmth, exposure."""

    light: np.ndarray  # [size, size]
    tint: np.ndarray  # [3, 1, 1]

    @classmethod
    def load(cls, size: int, rng: np.random.Generator) -> Film:
        """Draw some film for pictures of ``size`` pixels a side."""
        line = np.linspace(-1, 1, size, dtype=np.float32)
        toward, fall = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.4)
        light = 1 + fall * (math.sin(toward) * line[:, None] + math.cos(toward) * line[None, :])
        light *= 1 - rng.uniform(0, 0.2) * (line[:, None] ** 2 + line[None, :] ** 2)
        warm, exposure = rng.uniform(-0.07, 0.07), rng.uniform(0.85, 1.1)
        return cls(light, rgb(1 + warm, 1, 1 - warm) * exposure)

    def develop(self, picture: np.ndarray) -> np.ndarray:
        """Develop ``[3, size, size]`` to uint8 ``[size, size, 3]``."""
        exposed = np.clip(picture * self.light * self.tint, 0, 1)
        return np.ascontiguousarray((exposed * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
