"""The named ways to draw a Plan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from maekit.data.clips import frame_ids
from maekit.data.plan import Box, ColorChange, Plan
from maekit.data.rendering import fitted_box, largest_box
from maekit.recipe.sections import (
    ColorJitter,
    FixedCrop,
    MultiScaleCrop,
    NoAugment,
    RandomCrop,
    SingleTryCrop,
)

if TYPE_CHECKING:
    import numpy as np

    from maekit.contracts import Source
    from maekit.recipe.schema import DataSpec
    from maekit.recipe.sections import Augment, Fit

_TRIES = 10  # as torchvision
# Quarters of the room that a multi-scale crop leaves, (down, right): a 5 x 5 lattice's corners,
# middles of the sides and center, and the centers of its quarters.
_PLACES = [(row, column) for row in range(5) for column in range(5) if (row + column) % 2 == 0]
_ROUNDING = 1e-6  # a resized side that is whole but for floating point is whole
_NEARLY = 3  # pixels: a crop so close to the output's size is taken at that size, unresized


def draw_plan(
    augment: Augment,
    source: Source,
    spec: DataSpec,
    size: tuple[int, int],
    rng: np.random.Generator | None,
    fit: Fit = "crop",
) -> Plan:
    """Draw what to read of one opened sample.

    Args:
        augment: the way of drawing.
        source: the sample; only its header is looked at.
        spec: how a clip is sampled.
        size: height and width of the model's own view, in pixels.
        rng: the sample's generator; None for the fixed view of held-out samples: the clip in the
            middle, no flip. A random crop has no fixed view.
        fit: how a view that is not drawn at random shows a sample of another aspect.
    """
    ids = frame_ids(source.info.frames, spec, rng, source.info.fps, source.at)
    if isinstance(augment, NoAugment):
        box = fitted_box(source.info.height, source.info.width, size, fit)
        flip = rng is not None and bool(rng.random() < augment.flip)
        return Plan(ids, box, "context", flip, augment.interpolation)
    if rng is None:
        what = f"{augment.name} needs a generator; held-out samples use augment none"
        raise ValueError(what)
    if isinstance(augment, FixedCrop):
        box = _fixed_box(source.info.height, source.info.width, size, augment, rng)
        flip = bool(rng.random() < augment.flip)
        hsv = () if augment.hsv is None else _hsv(augment.hsv, rng)
        return Plan(ids, box, "context", flip, augment.interpolation, hsv)
    if isinstance(augment, MultiScaleCrop):
        box = _multi_scale_box(source.info.height, source.info.width, size, augment, rng)
    else:
        box = _random_box(source.info.height, source.info.width, augment, rng)
    flip = bool(rng.random() < augment.flip)
    color = _color(augment, rng) if isinstance(augment, ColorJitter) else ()
    return Plan(ids, box, "crop", flip, augment.interpolation, color)


def _color(augment: ColorJitter, rng: np.random.Generator) -> tuple[ColorChange, ...]:
    """Draw four changes in random order, as torchvision's ColorJitter does."""

    def factor(strength: float) -> float:
        return rng.uniform(max(0.0, 1 - strength), 1 + strength)

    changes = (
        ColorChange("brightness", factor(augment.brightness)),
        ColorChange("contrast", factor(augment.contrast)),
        ColorChange("saturation", factor(augment.saturation)),
        ColorChange("hue", rng.uniform(-augment.hue, augment.hue)),
    )
    return tuple(changes[place] for place in rng.permutation(len(changes)))


def _hsv(limits: tuple[int, int, int], rng: np.random.Generator) -> tuple[ColorChange, ...]:
    """Draw whole numbers for hue, saturation and value, as VideoMAE-Action-Detection does."""
    hue, saturation, value = (int(rng.integers(-limit, limit + 1)) for limit in limits)
    return (
        ColorChange("hue", hue / 180),
        ColorChange("add-saturation", saturation / 255),
        ColorChange("add-value", value / 255),
    )


def _fixed_box(
    height: int, width: int, size: tuple[int, int], augment: FixedCrop, rng: np.random.Generator
) -> Box:
    """Draw a box of the output's aspect, at a whole pixel of the picture resized for it."""
    enlarge = augment.enlarge
    if augment.enlarge_most is not None:
        short = min(size)
        shorts = (round(short * enlarge), round(short * augment.enlarge_most) + 1)
        enlarge = int(rng.integers(*shorts)) / short
    largest = largest_box(height, width, size)
    places = []
    for side, limit, output in zip(largest, (height, width), size, strict=True):
        pixel = side / (output * enlarge)  # of the resized picture, in this one's
        spare = max(0, int(limit / pixel + _ROUNDING) - output)
        length = output * pixel
        places.append((max(0.0, min(rng.integers(spare + 1) * pixel, limit - length)), length))
    (top, box_height), (left, box_width) = places
    return Box(top, left, box_height, box_width)


def _multi_scale_box(
    height: int,
    width: int,
    size: tuple[int, int],
    augment: MultiScaleCrop,
    rng: np.random.Generator,
) -> Box:
    """Draw VideoMAE's GroupMultiScaleCrop with fixed places (transforms.py:91-161).

    Where the official code would cut up to two pixels beyond a picture's edge, the box ends there.
    """
    largest = largest_box(height, width, size)
    heights, widths = (
        [_crop_side(side * scale, output, limit) for scale in augment.scales]
        for side, output, limit in zip(largest, size, (height, width), strict=True)
    )
    pairs = [
        (box_height, box_width)
        for i, box_height in enumerate(heights)
        for j, box_width in enumerate(widths)
        if abs(i - j) <= augment.max_distort
    ]
    box_height, box_width = pairs[rng.integers(len(pairs))]
    down, right = _PLACES[rng.integers(len(_PLACES))]
    top, left = down * ((height - box_height) // 4), right * ((width - box_width) // 4)
    return Box(top, left, box_height, box_width)


def _crop_side(side: float, output: int, limit: int) -> int:
    """Return a side of a multi-scale crop in whole pixels, at least one, within the picture."""
    whole = int(side)
    if abs(whole - output) < _NEARLY:
        whole = output
    return max(1, min(whole, limit))


def _random_sides(
    height: int, width: int, augment: RandomCrop, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw height and width of a box of random area and aspect, which may not fit."""
    low, high = (math.log(ratio) for ratio in augment.ratio)
    area = height * width * rng.uniform(*augment.scale)
    aspect = math.exp(rng.uniform(low, high))
    return round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))


def _random_box(height: int, width: int, augment: RandomCrop, rng: np.random.Generator) -> Box:
    """Draw the box of torchvision's RandomResizedCrop: ten tries, then the center.

    A single-try crop instead takes the first box, its sides at most the picture's.
    """
    single = isinstance(augment, SingleTryCrop)
    for _ in range(1 if single else _TRIES):
        box_height, box_width = _random_sides(height, width, augment, rng)
        if single:
            box_height, box_width = (
                max(1, min(side, limit))
                for side, limit in ((box_height, height), (box_width, width))
            )
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return Box(top, left, box_height, box_width)
    narrowest, widest = augment.ratio
    box_height, box_width = height, width
    if width / height < narrowest:
        box_height = max(1, min(height, round(width / narrowest)))
    elif width / height > widest:
        box_width = max(1, min(width, round(height * widest)))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
