"""Fine-tuning's changes of pixels: RandAugment (timm's, in loader workers), erasing, mixing.

Erasing follows timm's RandomErasing in ``pixel`` mode as MAE and VideoMAE use it
(random_erasing.py): noise of a normal distribution on normalized values. For clips it is VideoMAE's
``cube``: one box for all frames, fresh noise in each.

Mixup and CutMix (arXiv 1710.09412, 1905.04899) are keyed by sample. The box of CutMix lies over
height and width and goes through all frames; the weight of a label is the share of pixels that are
really its sample's. (timm's, given a clip, cuts time and height, and its labels say 43 % where
20.5 % of pixels changed.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from maekit.data.rng import generator
from maekit.engine.step import send
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
    """Make a change of one frame ``[H, W, C]`` uint8 (C = 1 or 3), drawn from global generators.

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
    """Keep the highest bits of each value; with none, the picture is black.

    timm's increasing policies ask for 0 bits at full magnitude, which Pillow 13 refuses.
    """
    if bits == 0:
        return image.point(lambda _: 0)
    return ImageOps.posterize(image, bits)


def erased_box(
    height: int, width: int, probability: float, rng: np.random.Generator
) -> Erased | None:
    """Draw the box that is erased of a picture, or None.

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
        """Erase in normalized pixels ``[B*R, C, T, H, W]`` of B samples, in place."""
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


class MixParams(NamedTuple):
    """How one row is mixed: ``lam`` of every pixel outside the box, nothing of it inside."""

    lam: float
    box: tuple[int, int, int, int]  # top, left, bottom, right; empty for mixup


@dataclass(frozen=True)
class Mixed:
    """A mixed batch.

    Attributes:
        pixels: ``[B, C, T, H, W]``.
        index: int64 ``[B]``: the row that each row is mixed with; its own index if none.
        lam: float32 ``[B]``: the weight of a row's own label; the other row's has the rest.
    """

    pixels: Tensor
    index: Tensor
    lam: Tensor

    def targets(self, targets: Tensor) -> Tensor:
        """Mix targets ``[B, K]`` as the pixels are."""
        lam = self.lam.to(targets)[:, None]
        return lam * targets + (1 - lam) * targets[self.index]


@dataclass(frozen=True)
class Mixup:
    """Draws how a batch is mixed.

    Args:
        mixup: alpha of the Beta distribution of mixup's weight; 0: no mixup.
        cutmix: that of the area which CutMix keeps; 0: no CutMix.
        probability: that a batch (or a row) is mixed at all.
        switch: probability of CutMix where both are on.
        per: one draw for a micro-batch, as the papers' codes do, or one for each row.
        seed: the recipe's seed.
        repeats: rows of each sample.
    """

    mixup: float
    cutmix: float
    probability: float
    switch: float
    per: Literal["batch", "sample"]
    seed: int
    repeats: int = 1

    @property
    def enabled(self) -> bool:
        """Whether anything is ever mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def __call__(self, pixels: Tensor, keys: Sequence[Key], good: np.ndarray) -> Mixed:
        """Mix the rows of B samples with the batch in reverse order.

        Args:
            pixels: ``[B*R, C, T, H, W]``.
            keys: of the B samples.
            good: bool ``[B*R]``: rows that could be read; only these are mixed, with each other.
        """
        rows, height, width = len(pixels), pixels.shape[-2], pixels.shape[-1]
        draws = [
            self.draw(keys[row // self.repeats], row % self.repeats, height, width)
            for row in (range(rows) if self.per == "sample" else (0,))
        ]
        if self.per == "batch":
            draws *= rows
        others = mixed_with(good)
        lam = np.array([effective_lam(draw, height, width) for draw in draws], np.float32)
        lam[others == np.arange(rows)] = 1.0
        index = send(torch.from_numpy(others), pixels.device)
        mixed = _blend(pixels, pixels[index], draws)
        return Mixed(mixed, index, send(torch.from_numpy(lam), pixels.device))

    def draw(self, key: Key, repeat: int, height: int, width: int) -> MixParams:
        """Draw how a row is mixed; with ``per: batch``, all of the batch as its first row."""
        rng = generator(self.seed, purpose="mix", epoch=key.epoch, index=key.index, repeat=repeat)
        nothing = (0, 0, 0, 0)
        if rng.random() >= self.probability:
            return MixParams(1.0, nothing)
        cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < self.switch)
        if not cut:
            return MixParams(float(rng.beta(self.mixup, self.mixup)), nothing)
        side = float(np.sqrt(1 - rng.beta(self.cutmix, self.cutmix)))
        edges = []
        for limit in (height, width):
            half, center = int(limit * side) // 2, int(rng.integers(limit))
            edges.append((max(0, center - half), min(limit, center + half)))
        (top, bottom), (left, right) = edges
        return MixParams(1.0, (top, left, bottom, right))


def effective_lam(draw: MixParams, height: int, width: int) -> float:
    """Return the share of a picture that stays its own, which is the weight of its label."""
    top, left, bottom, right = draw.box
    outside = 1 - (bottom - top) * (right - left) / (height * width)
    return draw.lam * outside


def mixed_with(good: np.ndarray) -> np.ndarray:
    """Return the row that each row is mixed with, int64 ``[B]``.

    Good rows are mixed in reverse order, as in the papers' codes; others with themselves.
    """
    index = np.arange(len(good))
    index[good] = np.flatnonzero(good)[::-1]
    return index


def _blend(pixels: Tensor, others: Tensor, draws: Sequence[MixParams]) -> Tensor:
    """Mix rows ``[B, C, T, H, W]`` with others, by one formula for mixup and CutMix."""
    device, (height, width) = pixels.device, pixels.shape[-2:]
    lam = send(torch.tensor([draw.lam for draw in draws], dtype=pixels.dtype), device)
    boxes = send(torch.tensor([draw.box for draw in draws]), device)
    top, left, bottom, right = (edge[:, None] for edge in boxes.unbind(dim=1))
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    down = (row >= top) & (row < bottom)  # [B, H]
    across = (column >= left) & (column < right)  # [B, W]
    inside = (down[:, :, None] & across[:, None, :])[:, None, None]
    weight = torch.where(inside, 0.0, lam.view(-1, 1, 1, 1, 1))
    return weight * pixels + (1 - weight) * others
