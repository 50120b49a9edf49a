"""Boxes moved with the pixels: the one place that knows how.

Corners are fractions of what they lie in: of the picture as a data set gives it, then of a view. A
box that a view cuts away stays, with its labels, as one without extent on the view's edge
(VideoMAE-Action-Detection's bounding_box.py:182-186), so that a clip's persons are the same in
every crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from maekit.contracts import Boxes

if TYPE_CHECKING:
    from maekit.data.rendering import Placed

Range = tuple[float, float]

EMPTY = Boxes(np.zeros((0, 4)), ())


def unnamed(action: int) -> str:
    """Return what an action is called of which lists only say the number: its own, from 1."""
    return f"action {action + 1}"


@dataclass(frozen=True)
class BoxDraw:
    """How boxes are changed at random where a model learns from them.

    Attributes:
        jitter: how far each corner moves (x1, y1, x2, y2), as a share of the box's width or height,
            drawn evenly from a range for each; None: not at all.
        most: boxes of a clip, the first ones; None: all.
    """

    jitter: tuple[Range, Range, Range, Range] | None = None
    most: int | None = None

    def __call__(self, boxes: Boxes, size: tuple[int, int], rng: np.random.Generator) -> Boxes:
        """Draw a clip's boxes anew.

        Args:
            boxes: in fractions of the view.
            size: height and width of the view in pixels.
            rng: of the sample.
        """
        if self.most is not None and len(boxes) > self.most:
            boxes = boxes.only(np.arange(len(boxes)) < self.most)
        if self.jitter is None:
            return boxes
        return replace(boxes, corners=jittered(boxes.corners, size, self.jitter, rng))


def moved(
    boxes: Boxes, picture: tuple[int, int], where: Placed, view: tuple[int, int], *, flip: bool
) -> Boxes:
    """Move boxes to where a view shows what is in them.

    Args:
        boxes: in fractions of the picture.
        picture: its height and width in pixels.
        where: what of the picture the view shows, and where in the view.
        view: height and width of the view in pixels.
        flip: whether the view is then flipped, left to right.
    """
    corners = np.empty_like(boxes.corners)
    box = where.box
    axes = (
        ((1, 3), picture[0], box.top, box.height, where.rows, view[0]),
        ((0, 2), picture[1], box.left, box.width, where.columns, view[1]),
    )
    for pair, side, start, length, shown, size in axes:
        first, last = shown.start / size, shown.stop / size
        share = (boxes.corners[:, pair] * side - start) / length
        corners[:, pair] = np.clip(first + share * (last - first), first, last)
    if flip:
        corners = flipped(corners)
    return replace(boxes, corners=corners)


def flipped(corners: np.ndarray) -> np.ndarray:
    """Flip corners ``[P, 4]`` left to right."""
    x1, y1, x2, y2 = corners.T
    return np.stack([1 - x2, y1, 1 - x1, y2], axis=1)


def jittered(
    corners: np.ndarray,
    size: tuple[int, int],
    jitter: tuple[Range, Range, Range, Range],
    rng: np.random.Generator,
) -> np.ndarray:
    """Move each corner by a share of its box, within the view; a box is at least a pixel wide.

    Args:
        corners: ``[P, 4]``, in fractions of the view.
        size: height and width of the view in pixels.
        jitter: ranges of the shares, for x1, y1, x2 and y2.
        rng: draws four numbers for each box.
    """
    pixel = np.array([1 / size[1], 1 / size[0]])
    extent = np.maximum(corners[:, 2:] - corners[:, :2], pixel)
    low, high = np.array(jitter).T
    drawn = corners + rng.uniform(low, high, (len(corners), 4)) * np.tile(extent, 2)
    first = np.clip(drawn[:, :2], 0, 1 - pixel)
    last = np.clip(drawn[:, 2:], first + pixel, 1)
    return np.concatenate([first, last], axis=1)


def widened(corners: np.ndarray, across: float, down: float) -> np.ndarray:
    """Widen boxes by a share of their width and height, half on each side, within the view."""
    more = (corners[:, 2:] - corners[:, :2]) * np.array([across, down]) / 2
    wide: np.ndarray = np.clip(corners + np.concatenate([-more, more], axis=1), 0, 1)
    return wide


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes ``[..., 4]``, pair by pair; 0 of empty ones.

    Leading dimensions broadcast: ``[P, 1, 4]`` and ``[1, Q, 4]`` give ``[P, Q]``.
    """
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = (np.clip(each[..., 2:] - each[..., :2], 0, None).prod(-1) for each in (first, second))
    union = sum(areas) - shared
    found: np.ndarray = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return found
