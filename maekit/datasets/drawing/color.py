"""Colors: triples in [0, 1], channels first so that they spread over a picture."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np

from maekit.datasets.drawing.chance import one_of


class Palette(NamedTuple):
    """The three colors of one thing, each ``[3, 1, 1]``."""

    base: np.ndarray
    accent: np.ndarray
    dark: np.ndarray


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """Return a color ``[3, 1, 1]``."""
    return np.array([red, green, blue], np.float32).reshape(3, 1, 1)


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return a color ``[3, 1, 1]``; hue in turns (0 red, 1/3 green, 2/3 blue), wrapped."""
    return rgb(*colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mix ``low [3, 1, 1]`` and ``high [3, 1, 1]`` by ``share [h, w]``: ``[3, h, w]``."""
    mixed: np.ndarray = low + (high - low) * share
    return mixed


def bright_palette(rng: np.random.Generator) -> Palette:
    """Draw colors for a painted thing.

    A strong base, an accent that stands out, a dark of the base.
    """
    hue = rng.uniform()
    base = hsv(hue, rng.uniform(0.45, 0.95), rng.uniform(0.65, 0.98))
    other = hsv(
        hue + one_of(rng, (0.08, 0.33, 0.5, 0.67)), rng.uniform(0.1, 0.9), rng.uniform(0.75, 1.0)
    )
    accent = 0.7 * other + 0.3 * base
    return Palette(base, accent, hsv(hue + 0.02, 0.7, rng.uniform(0.15, 0.35)))


def near(color: np.ndarray, rng: np.random.Generator, spread: float = 0.06) -> np.ndarray:
    """Draw a color that differs a little."""
    moved: np.ndarray = np.clip(color + rng.normal(0, spread, (3, 1, 1)).astype(np.float32), 0, 1)
    return moved
