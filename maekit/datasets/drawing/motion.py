"""Clips of one motion each, made so that no single frame tells which.

What is seen has four coordinates: across, down, turn and nearness. In every clip each of them has
a stretch of its own; the class says which one runs along its stretch, and which way, while the
other three rest at a moment of theirs. A frame at a random moment therefore has all coordinates
distributed alike in every class, and what is drawn never depends on the class.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from maekit.datasets.drawing import backdrops
from maekit.datasets.drawing.brush import Brush, Pose
from maekit.datasets.drawing.chance import happens, one_of
from maekit.datasets.drawing.color import bright_palette
from maekit.datasets.drawing.scenes import KINDS, Film, Spot, drop_shadow, paint

VERSION = 1  # raise it with every change of what is drawn: cached clips are then drawn anew

Moving = Literal["either", "camera", "object"]

_ACROSS, _DOWN, _TURN, _NEAR = range(4)
# The coordinate that runs, and its sign: how the object, or the whole picture, is seen to move.
MOTIONS: dict[str, tuple[int, int]] = {
    "left": (_ACROSS, -1),
    "right": (_ACROSS, 1),
    "up": (_DOWN, -1),
    "down": (_DOWN, 1),
    "anticlockwise": (_TURN, -1),
    "clockwise": (_TURN, 1),
    "farther": (_NEAR, -1),
    "nearer": (_NEAR, 1),
}


class Range(NamedTuple):
    """Limits of the stretches of one coordinate."""

    least: float  # length of a stretch
    most: float
    spread: float  # its middle lies within +- this


# Of an object: sides of the picture, sides, radians (every angle alike), logarithm of the scale.
_OBJECT = (
    Range(0.3, 0.5, 0.15),
    Range(0.3, 0.5, 0.15),
    Range(1.6, 2.6, math.pi),
    Range(0.5, 0.8, 0.1),
)
_SCALE = 0.24  # half an object's extent at nearness 0, in sides
# Of a camera: the same for what it sees, but the picture is never turned far from upright.
_CAMERA = (
    Range(0.35, 0.6, 0.15),
    Range(0.35, 0.6, 0.15),
    Range(0.6, 1.0, 0.15),
    Range(0.35, 0.55, 0.08),
)
_WORLD = 3  # sides of a picture that a camera's scene measures
# Kinds that look different at every angle.
MOVERS = [KINDS[name] for name in ("fish", "flag", "ladder", "leaf", "star", "tree", "wheel")]


def draw_clip(
    motion: str, frames: int, size: int, rng: np.random.Generator, moving: Moving = "either"
) -> np.ndarray:
    """Draw a clip of this motion: uint8 ``[frames, size, size, 3]``.

    An object moves before a backdrop that stands still, or the camera over a scene; of ``either``,
    as chance has it. The same generator state gives the same clip; clips of two motions and one
    state are of the same things and share a frame, and opposite motions are each other's reverse.
    """
    by_chance = happens(rng, 0.5)
    if moving == "object" or (moving == "either" and by_chance):
        return _moving_object(track(motion, frames, _OBJECT, rng), size, rng)
    return _moving_camera(track(motion, frames, _CAMERA, rng), size, rng)


def track(
    motion: str, frames: int, ranges: tuple[Range, ...], rng: np.random.Generator
) -> np.ndarray:
    """Draw coordinates ``[frames, 4]`` over a clip.

    Every motion takes as much from ``rng``.
    """
    running, direction = MOTIONS[motion]
    moments = np.arange(frames)
    places = np.empty((frames, len(ranges)))
    for axis, (least, most, spread) in enumerate(ranges):
        length, middle = rng.uniform(least, most), rng.uniform(-spread, spread)
        resting = rng.integers(frames)
        at = moments[::direction] if axis == running else np.full(frames, resting)
        places[:, axis] = middle + length * (at / max(frames - 1, 1) - 0.5)
    return places


def _moving_object(places: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw an object that floats before a backdrop with up to two things that stand still."""
    settings = (backdrops.landscape, backdrops.room, backdrops.tabletop)
    backdrop = one_of(rng, settings)(size, rng)
    for _ in range(int(rng.integers(0, 3))):
        spot = Spot(rng.uniform(0.05, 0.95), rng.uniform(0.1, 0.18), 0.3)
        paint(backdrop.picture, backdrop, one_of(rng, list(KINDS.values())), spot, rng)
    mover, palette, film = one_of(rng, MOVERS), bright_palette(rng), Film.load(size, rng)
    look = int(rng.integers(2**32))
    clip = []
    for across, down, turn, near in places.tolist():
        pose = Pose(0.5 + across, 0.5 + down, _SCALE * math.exp(near), turn)
        brush = Brush(size, pose, backdrop.light)
        mover.draw(brush, palette, np.random.default_rng(look))  # the same object in every frame
        picture = backdrop.picture.copy()
        drop_shadow(picture, brush.spread(), backdrop.light, pose.scale)
        brush.lay(picture)
        clip.append(film.develop(picture))
    return np.stack(clip)


def _moving_camera(places: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a view that wanders over a scene larger than itself."""
    scene = Image.fromarray(_scene(_WORLD * size, rng))
    clip = []
    for across, down, turn, near in places.tolist():
        # From a pixel of the view to one of the scene: what is seen moves against the camera.
        cosine, sine = (math.exp(-near) * part for part in (math.cos(turn), math.sin(turn)))
        half, middle = size / 2, _WORLD * size / 2
        left = middle - size * across - half * (cosine + sine)
        top = middle - size * down - half * (cosine - sine)
        affine = (cosine, sine, left, -sine, cosine, top)
        view = scene.transform(
            (size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
        )
        clip.append(np.asarray(view))
    return np.stack(clip)


def _scene(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a backdrop with many small things, far ones first: uint8 ``[size, size, 3]``."""
    settings = (backdrops.landscape, backdrops.room, backdrops.tabletop)
    backdrop = one_of(rng, settings)(size, rng)
    kinds = list(KINDS.values())
    for nearness in sorted(rng.uniform(0.1, 1.0, int(rng.integers(14, 23))).tolist()):
        scale = rng.uniform(0.06, 0.1) * (0.6 + 0.6 * nearness)
        spot = Spot(rng.uniform(0.15, 0.85), scale, nearness)
        paint(backdrop.picture, backdrop, one_of(rng, kinds), spot, rng)
    return Film.load(size, rng).develop(backdrop.picture)
