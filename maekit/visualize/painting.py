"""What a model paints where a mask hides: with what is visible, and with the answer's help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.contracts import PixelTarget
from maekit.errors import WeightsError
from maekit.tokens import patchify, unpatchify
from maekit.visualize.panel import masked, paste

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.model import MaskedAutoencoder
    from maekit.tokens import Mask

COLUMNS = ("original", "masked", "prediction", "prediction in the visible part")
LEAKING = "the same, uses ground-truth mean/variance"
_DEVIATIONS = 3  # from black to the mean, and from there to white, of pixels in no known range


@dataclass(frozen=True)
class Painting:
    """Patches ``[B, Q, pt*ph*pw*C]`` at a mask's queries, in [0, 1] space.

    Attributes:
        honest: what must be undone (patch mean and variance) is taken from visible patches only.
        leaking: it is taken from the hidden patches themselves; None where nothing must be undone.
        zero: as ``honest``, of a prediction of zeros: what can be had without a model.
    """

    honest: Tensor
    leaking: Tensor | None
    zero: Tensor


def can_paint(model: MaskedAutoencoder) -> bool:
    """Whether the model's target predicts pixels."""
    return isinstance(model.target, PixelTarget)


def painter_of(model: MaskedAutoencoder) -> PixelTarget:
    """The model's target, which paints.

    Raises:
        WeightsError: there is no decoder, or what it predicts is unknown or not pixels.
    """
    model.required_decoder()
    target = model.required_target()
    if not isinstance(target, PixelTarget):
        msg = f"the target {type(target).__name__} does not predict pixels: no picture of it"
        raise WeightsError(msg, hint="use weights pre-trained with pixel, norm-pixel or pca")
    return target


@torch.no_grad()
def paint(model: MaskedAutoencoder, pixels: Tensor, mask: Mask) -> Painting:
    """Predict once, and paint the prediction both ways.

    Args:
        pixels: ``[B, C, T, H, W]`` in [0, 1].

    Raises:
        WeightsError: as ``painter_of``.
    """
    target = painter_of(model)
    encoded = model.encode_visible(model.normalize(pixels), mask)
    pred = model.decode(encoded, mask)
    honest = target.decode(pred, pixels, mask, "visible").float()
    leaking = target.decode(pred, pixels, mask, "truth").float()
    zero = target.decode(torch.zeros_like(pred), pixels, mask, "visible").float()
    return Painting(honest, None if torch.equal(honest, leaking) else leaking, zero)


@torch.no_grad()
def ceiling(model: MaskedAutoencoder, views: Sequence[Tensor], mask: Mask) -> Tensor:
    """What the target's own truth paints with the statistics of visible patches, ``[B, Q, P]``.

    A perfect model's picture. For norm-pixel it is far from the original, as a patch's mean and
    variance are guessed; for pixel it is the original.
    """
    target = painter_of(model)
    truth = model.target.encode(views, mask)  # type: ignore[union-attr]  # painter_of looked
    return target.decode(truth, views[0], mask, "visible").float()


def in_place(model: MaskedAutoencoder, patches: Tensor, pixels: Tensor, mask: Mask) -> np.ndarray:
    """Patches ``[B, Q, P]`` where they belong, the original elsewhere: ``[B, T, H, W, C]``."""
    return picture(model, laid(patchify(pixels, model.backbone.patch), patches, mask))


def laid(canvas: Tensor, patches: Tensor, mask: Mask) -> Tensor:
    """All patches ``[B, N, P]``, with those given ``[B, Q, P]`` at the mask's queries."""
    return canvas.scatter(1, mask.queries[..., None].expand(-1, -1, canvas.shape[-1]), patches)


def picture(model: MaskedAutoencoder, canvas: Tensor) -> np.ndarray:
    """Patches ``[B, N, P]`` as pixels ``[B, T, H, W, C]``."""
    return channels_last(unpatchify(canvas, model.grid, model.backbone.patch))


def asked_of(mask: Mask) -> Tensor:
    """Bool ``[B, N]``: hidden tokens whose prediction counts."""
    asked = torch.zeros_like(mask.hidden())
    return asked.scatter(1, mask.queries, mask.weight > 0) & mask.hidden()


def stages(
    original: np.ndarray,
    painted: Sequence[np.ndarray],
    hidden: np.ndarray,
    asked: np.ndarray,
    patch: tuple[int, int, int],
) -> list[np.ndarray]:
    """The columns of a sample: original, masked, prediction alone, each prediction pasted in.

    Hatching is where there is nothing: what is hidden, and beside a prediction what is visible.

    Args:
        original: ``[T, H, W, C]``, shown as it is.
        painted: pictures of that shape; the first one is also shown alone.
        hidden: bool ``[t, h, w]``, not seen by the encoder.
        asked: bool ``[t, h, w]``, predicted; what is hidden and not predicted stays hatched.
        patch: pixels a token.
    """
    seen = masked(original, hidden, patch)
    alone = masked(painted[0], ~asked, patch)
    return [original, seen, alone, *(paste(seen, picture, asked, patch) for picture in painted)]


def shown_range(
    model: MaskedAutoencoder, clips: np.ndarray
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """What is shown as black and as white: 0 and 1, or for data beyond them per channel ``[C]``.

    Then it is the data's own range, three of the model's deviations about its mean.
    """
    if clips.min() >= 0 and clips.max() <= 1:
        return 0.0, 1.0
    mean, std = (np.asarray(values, np.float32) for values in model.statistics)
    return mean - _DEVIATIONS * std, mean + _DEVIATIONS * std


def channels_last(pixels: Tensor) -> np.ndarray:
    """``[B, C, T, H, W]`` to ``[B, T, H, W, C]``, float32 on the CPU."""
    array: np.ndarray = pixels.float().permute(0, 2, 3, 4, 1).cpu().numpy()
    return array
