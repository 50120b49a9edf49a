"""Materials: a pattern between two colors with a little grain, at any scale and angle.

A pattern is a function ``(u, v, pixel) -> [h, w]`` in [0, 1]: ``u, v`` are texture coordinates,
one unit a repeat, and ``pixel`` is how many units one pixel spans there, so that a pattern fades
to its mean where it is too fine to be seen (floors far away) instead of aliasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maekit.datasets.drawing import noise
from maekit.datasets.drawing.color import mix

Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def square(x: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return a square wave of period 2 in [-1, 1], its edges one pixel wide."""
    wave: np.ndarray = np.clip(np.sin(np.pi * x) / np.maximum(np.pi * pixel, 1e-3), -1, 1)
    return wave


def lines(x: np.ndarray, width: float, pixel: np.ndarray) -> np.ndarray:
    """Return 1 on lines of ``width`` at whole numbers, 0 between.

    Where lines are too fine: their mean.
    """
    distance = np.abs(x - np.round(x))
    sharp = np.clip((width / 2 - distance) / np.maximum(pixel, 1e-3) + 0.5, 0, 1)
    fine = np.clip(2 * pixel - 0.5, 0, 1)
    cover: np.ndarray = sharp + (width - sharp) * fine
    return cover


def plain(u: np.ndarray, _v: np.ndarray, _pixel: np.ndarray) -> np.ndarray:
    """Return nothing but grain."""
    return np.full_like(u, 0.5)


def checker(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return a chessboard."""
    board: np.ndarray = 0.5 + 0.5 * square(u, pixel) * square(v, pixel)
    return board


def stripes(u: np.ndarray, _v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return even bands along v."""
    bands: np.ndarray = 0.5 + 0.5 * square(u, pixel)
    return bands


def gingham(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return two crossing sets of bands, as on a tablecloth."""
    cloth: np.ndarray = 0.5 + 0.25 * (square(u, pixel) + square(v, pixel))
    return cloth


def zigzag(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return chevrons."""
    fold = 2 * np.abs(u / 2 - np.round(u / 2))
    chevrons: np.ndarray = 0.5 + 0.5 * square(v + fold, pixel * math.sqrt(2))
    return chevrons


def dots(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Round spots in staggered rows."""
    row = np.round(v)
    shifted = u + 0.5 * (row % 2)
    distance = np.hypot(shifted - np.round(shifted), v - row)
    sharp = np.clip((0.3 - distance) / np.maximum(pixel, 1e-3) + 0.5, 0, 1)
    spots: np.ndarray = sharp + (0.28 - sharp) * np.clip(2 * pixel - 0.5, 0, 1)
    return spots


def bricks(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return a bond of bricks, each of its own tone, in light mortar (the low color)."""
    row = np.floor(2 * v)
    along = u + 0.5 * (row % 2)
    joint = np.maximum(lines(along, 0.07, pixel), lines(2 * v, 0.14, 2 * pixel))
    wall: np.ndarray = (1 - joint) * (0.82 + 0.18 * noise.cells(row, np.floor(along)))
    return wall


def tiles(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return square tiles with narrow joints."""
    joint = np.maximum(lines(u, 0.08, pixel), lines(v, 0.08, pixel))
    floor: np.ndarray = (1 - joint) * (0.88 + 0.12 * noise.cells(np.floor(v), np.floor(u)))
    return floor


def planks(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return boards along u, each of its own tone, with streaks of grain."""
    row = np.floor(v)
    along = u / 4 + 0.37 * row
    joint = np.maximum(lines(v, 0.06, pixel), lines(along, 0.02, pixel / 4))
    streak = 0.08 * noise.sample(1.5, u / 24 + 0.17 * row, v / 3)
    tone = 0.7 + 0.25 * noise.cells(row, np.floor(along)) + streak * np.clip(1 - 2 * pixel, 0, 1)
    boards: np.ndarray = np.clip((1 - joint) * tone, 0, 1)
    return boards


def wood(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return growth rings cut lengthwise."""
    bend = v + 0.35 * noise.sample(2.4, u / 16, v / 5)
    rings: np.ndarray = 0.5 + 0.4 * np.sin(2 * np.pi * bend) * np.clip(1 - 1.5 * pixel, 0, 1)
    return rings


def marble(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return veins bent by noise."""
    bend = u + 0.7 * noise.sample(2.4, u / 6, v / 6)
    vein = 1 - np.abs(np.sin(np.pi * bend))
    stone: np.ndarray = 1 - vein**2 * np.clip(1 - pixel, 0, 1)
    return stone


def ripples(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return water: two crossing trains of waves, bent."""
    bend = 0.3 * noise.sample(2.4, u / 8, v / 8)
    waves = np.sin(2 * np.pi * (v + bend)) + 0.6 * np.sin(2 * np.pi * (0.6 * v + 0.35 * u - bend))
    water: np.ndarray = 0.5 + 0.3 * waves * np.clip(1 - 1.5 * pixel, 0, 1)
    return water


def patches(u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return cloudy noise: grass, sand, moss, felt."""
    rough = 0.16 * noise.sample(2.0, u / 6, v / 6)
    cloud: np.ndarray = np.clip(0.5 + rough * np.clip(1.2 - pixel, 0.2, 1), 0, 1)
    return cloud


@dataclass(frozen=True)
class Material:
    """A pattern laid at a scale, an angle and an offset, between two colors."""

    pattern: Pattern
    low: np.ndarray  # [3, 1, 1], where the pattern is 0
    high: np.ndarray  # [3, 1, 1], where it is 1
    repeats: float = 4.0  # per unit of the coordinates given
    angle: float = 0.0  # radians
    offset: tuple[float, float] = (0.0, 0.0)  # in repeats
    grain: float = 0.03  # relative depth of the noise on top

    def __call__(self, x: np.ndarray, y: np.ndarray, pixel: np.ndarray | float) -> np.ndarray:
        """Return colors ``[3, h, w]`` at ``x, y [h, w]``; ``pixel`` is one pixel's span."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        u = self.repeats * (cosine * x + sine * y) + self.offset[0]
        v = self.repeats * (cosine * y - sine * x) + self.offset[1]
        span = np.asarray(self.repeats * pixel, np.float32)
        color = mix(self.low, self.high, self.pattern(u, v, span))
        if self.grain:
            speckle = noise.sample(1.5, x / 3 + self.offset[0], y / 3 + self.offset[1])
            color *= 1 + self.grain * speckle
        return color
