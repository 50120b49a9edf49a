"""What is known of a model beside its tensors: from its file, its folder, or the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# VideoMAE-Action-Detection, data/transforms.py:16-18, of values from 0 to 255.
CAFFE = ((122.7717 / 255, 115.9465 / 255, 102.9801 / 255), (57.375 / 255,) * 3)
KINETICS = ((0.45,) * 3, (0.225,) * 3)  # mae_st, util/kinetics.py


@dataclass(frozen=True)
class UserHints:
    """Facts that the user gives, as the file does not hold them.

    Attributes:
        target: "pixel" or "norm-pixel": what the decoder was trained to predict.
        heads, decoder_heads: attention heads, which no tensor's shape tells.
        clip: the model's own input in pixels, (T, H, W).
        classes: names of a classifier's outputs, in their order.
    """

    target: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    clip: tuple[int, int, int] | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FileHints:
    """The same, from the file or its folder; None where it does not say."""

    target: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    dropout: float | None = None  # of the features, before a classifier's head
    # Added to variances by norms: those of blocks; the encoder's last and the decoder's; the one
    # behind the pooling. None: the papers' 1e-6.
    eps: float | None = None
    last_eps: float | None = None
    decoder_last_eps: float | None = None
    pooled_eps: float | None = None
    # Of pixel targets, where they are not as the family's code computes them.
    space: Literal["normalized", "unit"] | None = None
    notes: tuple[str, ...] = ()
