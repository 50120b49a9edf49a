"""Mixup and CutMix of images and clips (arXiv 1710.09412, 1905.04899), keyed by sample.

The box of CutMix lies over height and width and goes through all frames; the weight of a label is
the share of pixels that are really its sample's. (timm's, given a clip, cuts time and height, and
its labels say 43 % where 20.5 % of pixels changed.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maekit.data.seeded import generator

if TYPE_CHECKING:
    from maekit.data.order import Key


class Drawn(NamedTuple):
    """How one row is mixed: ``own`` of every pixel outside the box, nothing of it inside."""

    own: float
    box: tuple[int, int, int, int]  # top, left, bottom, right; empty for mixup


@dataclass(frozen=True)
class Mixed:
    """A mixed batch.

    Attributes:
        pixels: ``[B, C, T, H, W]``.
        partner: int64 ``[B]``: whom each row is mixed with; itself where it is not.
        own: float32 ``[B]``: the weight of a row's own label, the partner has the rest.
    """

    pixels: Tensor
    partner: Tensor
    own: Tensor

    def targets(self, targets: Tensor) -> Tensor:
        """Targets ``[B, K]`` mixed as the pixels are."""
        own = self.own.to(targets)[:, None]
        return own * targets + (1 - own) * targets[self.partner]


@dataclass(frozen=True)
class Mixing:
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
    def on(self) -> bool:
        """Whether anything is ever mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def __call__(self, pixels: Tensor, keys: Sequence[Key], good: np.ndarray) -> Mixed:
        """Mix ``[B*R, C, T, H, W]`` of B samples with the batch in reverse order.

        Args:
            good: bool ``[B*R]``: rows that could be read; only these are mixed, with each other.
        """
        rows, height, width = len(pixels), pixels.shape[-2], pixels.shape[-1]
        draws = [
            self.draw(keys[row // self.repeats], row % self.repeats, height, width)
            for row in (range(rows) if self.per == "sample" else (0,))
        ]
        if self.per == "batch":
            draws *= rows
        partner = partners(good)
        own = np.array([own_share(draw, height, width) for draw in draws], np.float32)
        own[partner == np.arange(rows)] = 1.0
        index = torch.from_numpy(partner).to(pixels.device)
        mixed = _blend(pixels, pixels[index], draws)
        return Mixed(mixed, index, torch.from_numpy(own).to(pixels.device))

    def draw(self, key: Key, repeat: int, height: int, width: int) -> Drawn:
        """How a row is mixed, or with ``per: batch`` the micro-batch that it is the first of."""
        rng = generator(self.seed, purpose="mix", epoch=key.epoch, index=key.index, repeat=repeat)
        nothing = (0, 0, 0, 0)
        if rng.random() >= self.probability:
            return Drawn(1.0, nothing)
        cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < self.switch)
        if not cut:
            return Drawn(float(rng.beta(self.mixup, self.mixup)), nothing)
        side = float(np.sqrt(1 - rng.beta(self.cutmix, self.cutmix)))
        edges = []
        for limit in (height, width):
            half, center = int(limit * side) // 2, int(rng.integers(limit))
            edges.append((max(0, center - half), min(limit, center + half)))
        (top, bottom), (left, right) = edges
        return Drawn(1.0, (top, left, bottom, right))


def own_share(draw: Drawn, height: int, width: int) -> float:
    """The share of a picture that stays its own: what its label weighs."""
    top, left, bottom, right = draw.box
    outside = 1 - (bottom - top) * (right - left) / (height * width)
    return draw.own * outside


def partners(good: np.ndarray) -> np.ndarray:
    """Whom each row is mixed with, int64 ``[B]``: the good rows in reverse, others themselves."""
    partner = np.arange(len(good))
    partner[good] = np.flatnonzero(good)[::-1]
    return partner


def _blend(pixels: Tensor, others: Tensor, draws: Sequence[Drawn]) -> Tensor:
    """Each row with its partner ``[B, C, T, H, W]``, one formula for both kinds."""
    device, (height, width) = pixels.device, pixels.shape[-2:]
    own = torch.tensor([draw.own for draw in draws], device=device, dtype=pixels.dtype)
    boxes = torch.tensor([draw.box for draw in draws], device=device)
    top, left, bottom, right = (edge[:, None] for edge in boxes.unbind(dim=1))
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    down = (row >= top) & (row < bottom)  # [B, H]
    across = (column >= left) & (column < right)  # [B, W]
    inside = (down[:, :, None] & across[:, None, :])[:, None, None]
    weight = torch.where(inside, 0.0, own.view(-1, 1, 1, 1, 1))
    return weight * pixels + (1 - weight) * others
