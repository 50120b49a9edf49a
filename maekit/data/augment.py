"""The named ways to draw a Plan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from maekit.data.clips import frame_ids
from maekit.data.plan import Box, Plan
from maekit.recipe.schema import RandomResizedCrop

if TYPE_CHECKING:
    import numpy as np

    from maekit.contracts import Source
    from maekit.recipe.schema import Augment, DataSpec

_TRIES = 10  # as torchvision


def draw_plan(
    augment: Augment,
    source: Source,
    spec: DataSpec,
    size: tuple[int, int],
    rng: np.random.Generator | None,
) -> Plan:
    """Draw what to read of one opened sample.

    Args:
        augment: the way of drawing.
        source: the sample; only its header is looked at.
        spec: how a clip is sampled.
        size: height and width of the model's own view, in pixels.
        rng: the sample's generator; None for the fixed view of held-out samples: the clip in the
            middle, no flip. A random crop has no fixed view.
    """
    ids = frame_ids(source.frames, spec, rng)
    if not isinstance(augment, RandomResizedCrop):
        box = _centre_box(source.height, source.width, size)
        flip = rng is not None and bool(rng.random() < augment.flip)
        return Plan(ids, box, "context", flip, augment.interpolation)
    if rng is None:
        what = f"{augment.name} needs a generator; held-out samples use augment none"
        raise ValueError(what)
    box = _random_box(source.height, source.width, augment, rng)
    flip = bool(rng.random() < augment.flip)
    return Plan(ids, box, "crop", flip, augment.interpolation)


def _centre_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """The largest centred box of the output's aspect: resize the short side, cut the centre."""
    scale = min(height / size[0], width / size[1])
    box_height, box_width = min(height, size[0] * scale), min(width, size[1] * scale)
    return Box((height - box_height) / 2, (width - box_width) / 2, box_height, box_width)


def _random_box(
    height: int, width: int, augment: RandomResizedCrop, rng: np.random.Generator
) -> Box:
    """The box of torchvision's RandomResizedCrop: ten tries, then the centre."""
    low, high = (math.log(ratio) for ratio in augment.ratio)
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*augment.scale)
        aspect = math.exp(rng.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
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
