"""What a representation must beat: the same encoder untrained, and the pixels themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from maekit.engine.build import build_model

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header


class Pixels:
    """Raw pixels as features: every frame, reduced by area so that no side exceeds ``side``.

    Args:
        side: pixels.
        tokens: give them as the one token of a sequence, ``[B, 1, D]``, for attentive probes.
    """

    def __init__(self, side: int, *, tokens: bool = False) -> None:
        self.side = side
        self.tokens = tokens

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is left of a clip: never more than it has."""
        scale = min(1.0, self.side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __call__(self, pixels: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C*T*h*w]``, or ``[B, 1, C*T*h*w]``."""
        height, width = self.size(*pixels.shape[3:])
        frames = pixels.shape[2]
        small = functional.interpolate(pixels, (frames, height, width), mode="area")
        flat = small.flatten(1)
        return flat[:, None] if self.tokens else flat


def untrained(header: Header, seed: int) -> MaskedAutoencoder:
    """The encoder that a header describes, at its random initialisation."""
    bare = header.model_copy(update={"decoder": None, "target": None, "masker": None})
    return build_model(bare, seed)
