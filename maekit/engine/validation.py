"""The held-out error: fixed views and fixed masks, so that steps and runs compare.

All errors are mean squared differences of [0, 1] pixels over hidden tokens. ``hidden_mse`` is the
model's, with what must be undone taken from visible patches only; the two fills are what a picture
without any model would reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maekit.contracts import PixelTarget
from maekit.engine import distributed
from maekit.engine.step import eval_mode, make_mask, to_device_float01
from maekit.stop import check
from maekit.tokens import (
    Mask,
    channel_means,
    flat_patches,
    gather,
    interpolate_from_visible,
    patchify,
)

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder


KEYS = ("loss", "hidden_mse", "mean_fill_mse", "interpolated_fill_mse")


@torch.no_grad()
def validation_errors(
    model: MaskedAutoencoder, batches: Sequence[Batch], precision: Precision
) -> dict[str, float | None]:
    """Measure ``loss`` (the target's own), and pixel errors where the target can paint.

    Those are ``hidden_mse`` and both fills; all None where no token counts.
    """
    paints = isinstance(model.target, PixelTarget)

    def own() -> Tensor:
        sums = torch.zeros(5, dtype=torch.float64)
        for batch in batches:
            check()
            mask = make_mask(model, batch).to(model.device)
            views = [to_device_float01(view, model.device) for view in batch.views]
            with precision.autocast():
                loss = model.masked_loss(views, mask)
            sums[0] += float(loss)
            sums[1] += float(mask.weight.sum())
            if paints:
                sums[2:] += _pixel_errors(model, views[0], mask, precision)
        return sums

    with eval_mode(model):
        parts = distributed.together(own)
    total, weight, *errors = torch.stack(parts).sum(dim=0).tolist()
    if weight == 0:
        return dict.fromkeys(KEYS)
    values: list[float | None] = [
        total / weight,
        *(error / weight if paints else None for error in errors),
    ]
    return dict(zip(KEYS, values, strict=True))


def _pixel_errors(
    model: MaskedAutoencoder, pixels: Tensor, mask: Mask, precision: Precision
) -> Tensor:
    with precision.autocast():
        painted = model.paint(pixels, mask)
    patches = patchify(pixels, model.backbone.patch)
    truth = gather(patches, mask.queries)
    seen = channel_means(gather(patches, mask.visible), pixels.shape[1])
    guesses = (
        painted,
        flat_patches(seen.mean(dim=1, keepdim=True), truth),
        flat_patches(interpolate_from_visible(seen, mask, model.grid), truth),
    )
    return torch.stack(
        [
            ((guess - truth).square().mean(-1) * mask.weight).sum().cpu().double()
            for guess in guesses
        ]
    )


def psnr(mse: float) -> float:
    """Return the peak signal-to-noise ratio in dB, of values in [0, 1]; infinite at no error."""
    if mse == 0:
        return math.inf
    return -10 * math.log10(mse)
