"""Movies of figures that each do something of their own, in known boxes.

As in ``motion``, no single frame tells what: a figure has a place across and down, a turn, a size
and a brightness, and in every movie a stretch of each. What it does says which of them runs along
its stretch; the others rest at a moment of theirs. Every movie has two acts of equal length, so
that what a figure does is not its own for good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maekit.datasets.drawing import backdrops
from maekit.datasets.drawing.brush import Brush, Pose
from maekit.datasets.drawing.chance import happens, one_of
from maekit.datasets.drawing.color import bright_palette
from maekit.datasets.drawing.motion import MOVERS
from maekit.datasets.drawing.scenes import Film

if TYPE_CHECKING:
    from collections.abc import Callable

    from maekit.datasets.drawing.backdrops import Backdrop

VERSION = 1  # raise it with every change of what is drawn: cached movies are then drawn anew

ACTS = 2
_ACROSS, _DOWN, _TURN, _NEAR = range(4)
# Which coordinate runs: back and forth, but a turn on and on.
_MOVES = {
    "sway": _ACROSS,
    "hop": _DOWN,
    "spin clockwise": _TURN,
    "spin anticlockwise": _TURN,
    "pulse": _NEAR,
}
POSES = (*_MOVES, "rest")  # exactly one of each figure
BLINK = "blink"  # beside any of them
ACTIONS = (*POSES, BLINK)
_BLINKS = 0.35  # share of figures
_PERIOD = (0.8, 1.4)  # seconds
_REACH = (0.4, 0.4, math.pi, 0.22)  # across and down in half-extents; radians; log of the scale
_DARK = 0.5  # of a figure's brightness, half of the time


class Doing(NamedTuple):
    """What a figure does for an act: coordinates of one period, and which actions that is."""

    places: np.ndarray  # [P, 4]
    light: np.ndarray  # [Q]: brightness over a period of its own
    actions: tuple[str, ...]


class Seen(NamedTuple):
    """A figure in one frame: corners x1, y1, x2, y2 as fractions, and what it does."""

    figure: int
    corners: tuple[float, float, float, float]
    actions: tuple[str, ...]


@dataclass(frozen=True)
class Movie:
    """A drawn movie, and what is seen in any of its frames."""

    frames: np.ndarray  # uint8 [T, H, W, 3]
    boxes: np.ndarray  # float64 [T, figures, 4]
    acts: tuple[tuple[tuple[str, ...], ...], ...]  # of each act, of each figure

    def seen(self, frame: int) -> list[Seen]:
        """Return the figures of a frame."""
        act = self.acts[min(frame * ACTS // len(self.frames), ACTS - 1)]
        corners = self.boxes[frame].tolist()
        return [Seen(n, tuple(corners[n]), does) for n, does in enumerate(act)]


def draw_movie(frames: int, rate: float, size: tuple[int, int], rng: np.random.Generator) -> Movie:
    """Draw a movie of two or three figures side by side before a backdrop that stands still.

    Args:
        frames: how many.
        rate: frames a second: what figures do takes as long at any.
        size: height and width in pixels; the width is the larger.
        rng: the same state draws the same movie.
    """
    height, width = size
    top = (width - height) // 2  # scenes are drawn square
    backdrop = one_of(rng, (backdrops.landscape, backdrops.room, backdrops.tabletop))(width, rng)
    film, count = Film.load(width, rng), int(rng.integers(2, 4))
    clip = np.repeat(backdrop.picture[None], frames, axis=0)
    boxes = np.empty((frames, count, 4))
    length = -(-frames // ACTS)
    acts: list[list[tuple[str, ...]]] = [[] for _ in range(ACTS)]
    for figure in range(count):
        scale = 0.36 / count * rng.uniform(0.75, 1.0)
        room = max(0.0, height / width / 2 - 1.3 * scale)
        home = ((figure + 0.5 + rng.uniform(-0.08, 0.08)) / count, 0.5 + rng.uniform(-room, room))
        paint = _painter(home, scale, width, backdrop, rng)
        for act in range(ACTS):
            doing = draw_doing(rate, rng)
            acts[act].append(doing.actions)
            brushes = [paint(place) for place in doing.places]
            for frame in range(act * length, min((act + 1) * length, frames)):
                brush = brushes[frame % len(brushes)]
                part = clip[frame][:, brush.rows, brush.columns]
                part *= 1 - brush.alpha
                part += brush.color * doing.light[frame % len(doing.light)]
                boxes[frame, figure] = _corners(brush, top, size)
    shown = np.stack([film.develop(picture)[top : top + height] for picture in clip])
    return Movie(shown, boxes, tuple(map(tuple, acts)))


def draw_doing(rate: float, rng: np.random.Generator) -> Doing:
    """Draw what a figure does; every action takes as much from ``rng``."""
    pose, blinks = one_of(rng, POSES), happens(rng, _BLINKS)
    period = round(rate * rng.uniform(*_PERIOD))
    start = rng.uniform(0, 2 * math.pi)
    phases = start + 2 * math.pi * np.arange(period) / period
    rest = rng.uniform(0, 2 * math.pi, len(_REACH))
    running = _MOVES.get(pose)
    places = np.empty((period if running is not None else 1, len(_REACH)))
    for axis, reach in enumerate(_REACH):
        at = phases if axis == running else np.full(len(places), rest[axis])
        if axis == _TURN:
            places[:, axis] = at if pose != "spin anticlockwise" else -at
        else:
            places[:, axis] = reach * np.sin(at)
    slow = round(rate * rng.uniform(*_PERIOD))
    light = np.where((np.arange(slow) + rng.integers(slow)) % slow < slow / 2, _DARK, 1.0)
    return Doing(places, light if blinks else light[:1], (pose, *([BLINK] if blinks else [])))


def _painter(
    home: tuple[float, float],
    scale: float,
    size: int,
    backdrop: Backdrop,
    rng: np.random.Generator,
) -> Callable[[np.ndarray], Brush]:
    """Return what paints one figure at any coordinates."""
    kind, palette, look = one_of(rng, MOVERS), bright_palette(rng), int(rng.integers(2**32))

    def paint(place: np.ndarray) -> Brush:
        across, down, turn, near = place.tolist()
        pose = Pose(home[0] + across * scale, home[1] + down * scale, scale * math.exp(near), turn)
        brush = Brush(size, pose, backdrop.light)
        kind.draw(brush, palette, np.random.default_rng(look))
        return brush

    return paint


def _corners(brush: Brush, top: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the corners of what a brush covers, as fractions of the shown part."""
    height, width = size
    rows = brush.rows.start - top + np.flatnonzero((brush.alpha > 0.5).any(axis=1))
    columns = brush.columns.start + np.flatnonzero((brush.alpha > 0.5).any(axis=0))
    y1, y2 = (min(max(row / height, 0.0), 1.0) for row in (rows[0], rows[-1] + 1))
    x1, x2 = (min(max(column / width, 0.0), 1.0) for column in (columns[0], columns[-1] + 1))
    return x1, y1, x2, y2
