"""Plans of what to read of a sample: drawn once, then cut for each view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from maekit.recipe.sections import Interpolation


class Box(NamedTuple):
    """A rectangle of the upright picture, in pixels; fractions of a pixel are allowed."""

    top: float
    left: float
    height: float
    width: float


class ColorChange(NamedTuple):
    """One operation on colors, and how far it goes.

    A factor; for hue a share of the circle; for ``add-...`` what is added in HSV, of 1.
    """

    what: Literal["brightness", "contrast", "saturation", "hue", "add-saturation", "add-value"]
    amount: float


@dataclass(frozen=True)
class Plan:
    """Frames, box, flip and color of one view of one sample."""

    frame_ids: tuple[int, ...]
    box: Box
    # crop: cut a whole-pixel box first, so that nothing outside leaks in; context: the resizing
    # filter may look over the box's edge, as it does when a resized picture is cropped.
    edge: Literal["crop", "context"]
    flip: bool
    interpolation: Interpolation
    color: tuple[ColorChange, ...] = ()  # in this order, alike for all frames
