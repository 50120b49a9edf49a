"""Fine-tuning's changes of pixels: RandAugment (timm's, in loader workers) and random erasing.

Erasing follows timm's RandomErasing in ``pixel`` mode as MAE and VideoMAE use it
(random_erasing.py): noise of a normal distribution on normalized values. For clips it is VideoMAE's
``cube``: one box for all frames, fresh noise in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from maekit.data.seeded import generator
from maekit.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from maekit.data.order import Key

RAND_AUGMENT = "maekit.evaluate.augment:rand_augment"  # as a worker finds it
_TRANSLATE = 0.45  # of the shorter side, at most (timm's create_transform, VideoMAE's too)
_AREA = (0.02, 1 / 3)  # of the picture
_RATIO = (0.3, 1 / 0.3)  # height / width
_TRIES = 10


class Erased(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def rand_augment(
    *, policy: str, size: tuple[int, int], mean: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """A change of one frame ``[H, W, C]`` uint8 (C = 1 or 3), drawn from global generators.

    Args:
        policy: timm's words for it, as ``rand-m9-mstd0.5-inc1``.
        size: height and width that translations are measured by.
        mean: per channel, of [0, 1] pixels: what is moved in from outside is filled with it.

    Raises:
        RecipeError: timm does not understand the policy.
    """
    from timm.data.auto_augment import posterize, rand_augment_transform

    fill = tuple(min(255, round(255 * value)) for value in mean)
    settings = {
        "translate_const": int(min(size) * _TRANSLATE),
        "img_mean": fill if len(fill) == 3 else fill * 3,
        "interpolation": Image.Resampling.BICUBIC,  # in both codes, however crops are resized
    }
    try:
        change = rand_augment_transform(policy, settings)
    except (AssertionError, KeyError, ValueError) as error:
        msg = f"timm does not understand the policy '{policy}'"
        hint = "as rand-m9-mstd0.5-inc1 (MAE) or rand-m7-n4-mstd0.5-inc1 (VideoMAE)"
        raise RecipeError(msg, where="finetune.rand_augment", hint=hint) from error

    for operation in change.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterized

    def apply(frame: np.ndarray) -> np.ndarray:
        gray = frame.shape[-1] == 1
        image = Image.fromarray(np.repeat(frame, 3, axis=-1) if gray else frame)
        changed = np.asarray(change(image))
        return changed[..., :1] if gray else changed

    return apply


def _posterized(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """The highest bits of each value; none of them is black.

    timm's increasing policies ask for 0 bits at full magnitude, which Pillow 13 refuses.
    """
    if bits == 0:
        return image.point(lambda _: 0)
    return ImageOps.posterize(image, bits)


def erased_box(
    height: int, width: int, probability: float, rng: np.random.Generator
) -> Erased | None:
    """The box that is erased of a picture; None where there is none.

    Where no box of ten fits, none is erased.
    """
    if rng.random() >= probability:
        return None
    low, high = (math.log(ratio) for ratio in _RATIO)
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*_AREA)
        ratio = math.exp(rng.uniform(low, high))
        sides = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < sides[0] < height and 0 < sides[1] < width:
            top = int(rng.integers(height - sides[0] + 1))
            left = int(rng.integers(width - sides[1] + 1))
            return Erased(top, left, *sides)
    return None


class RandomErase:
    """Puts noise into a box of each clip with a probability.

    Boxes and noise are keyed by (seed, epoch, sample, repeat); noise is drawn on the device.
    """

    def __init__(self, probability: float, seed: int, repeats: int = 1) -> None:
        self.probability = probability
        self.seed = seed
        self.repeats = repeats

    def __call__(self, pixels: Tensor, keys: Sequence[Key]) -> Tensor:
        """Normalized pixels ``[B*R, C, T, H, W]`` of B samples; changed in place."""
        _, channels, frames, height, width = pixels.shape
        for row in range(len(pixels)):
            key, repeat = keys[row // self.repeats], row % self.repeats
            rng = generator(
                self.seed, purpose="erase", epoch=key.epoch, index=key.index, repeat=repeat
            )
            box = erased_box(height, width, self.probability, rng)
            if box is None:
                continue
            top, left, tall, wide = box
            noise = torch.randn(
                (channels, frames, tall, wide), generator=_noise(rng, pixels.device),
                device=pixels.device,
            )  # fmt: skip
            pixels[row, :, :, top : top + tall, left : left + wide] = noise.to(pixels.dtype)
        return pixels


def _noise(rng: np.random.Generator, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(rng.integers(2**62)))
