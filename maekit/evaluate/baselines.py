"""What a representation must beat: the same encoder untrained, and the pixels themselves.

Of clips, the differences of their frames too: what moves shows in them without any learning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from maekit.engine.build import build_model

if TYPE_CHECKING:
    from maekit.evaluate.predictions import Extractor
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header


def reduced_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Shrink a height and a width so that neither exceeds ``side``; never enlarge them."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class PixelBaseline:
    """Raw pixels as features: every frame, reduced by area so that no side exceeds ``side``.

    They are normalized as the encoder gets them: pixels in [0, 1] have cosines near 1 whatever they
    show, and their nearest neighbors are a baseline that is too low.

    Args:
        side: pixels.
        normalize: pixels in [0, 1] to the encoder's space.
        tokens: give them as the one token of a sequence, ``[B, 1, D]``, for attentive probes.
    """

    def __init__(self, side: int, normalize: Extractor, *, tokens: bool = False) -> None:
        self.side = side
        self.normalize = normalize
        self.tokens = tokens

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn ``[B, C, T, H, W]`` into features ``[B, C*T*h*w]``, or ``[B, 1, C*T*h*w]``."""
        flat = self.reduce(pixels).flatten(1)
        return flat[:, None] if self.tokens else flat

    def reduce(self, pixels: Tensor) -> Tensor:
        """Normalize and shrink ``[B, C, T, H, W]`` to ``[B, C, T, h, w]``."""
        frames, height, width = pixels.shape[2:]
        size = (frames, *reduced_size(height, width, self.side))
        return functional.interpolate(self.normalize(pixels), size, mode="area")


class FrameDifferenceBaseline(PixelBaseline):
    """Each frame less the one before it, of clips of two frames and more."""

    def reduce(self, pixels: Tensor) -> Tensor:
        """Reduce ``[B, C, T, H, W]`` to differences ``[B, C, T - 1, h, w]``."""
        frames = super().reduce(pixels)
        return frames[:, :, 1:] - frames[:, :, :-1]


def untrained(header: Header, seed: int) -> MaskedAutoencoder:
    """Build the encoder that a header describes, at its random initialization."""
    bare = header.model_copy(update={"decoder": None, "target": None, "masker": None})
    return build_model(bare, seed)
