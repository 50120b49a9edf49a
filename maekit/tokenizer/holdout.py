"""The held-out error of a discrete VAE, beside a picture that needs none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.engine.step import eval_mode, to_unit
from maekit.targets.dvae_networks import as_pictures

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.targets.dvae_networks import DVAE

KEYS = ("psnr", "mean_color_psnr", "codes_used", "codes_used_fraction", "perplexity")


@torch.no_grad()
def measure(model: DVAE, batches: Sequence[Batch], precision: Precision) -> dict[str, float | None]:
    """Rebuild held-out pictures from their most likely codes.

    ``psnr`` is in decibel, of the mean squared error over all values in [0, 1];
    ``mean_color_psnr`` the same of pictures whose every ``stride x stride`` square has its mean
    color; ``codes_used`` counts the codes that occur, ``perplexity`` is the exponential of the
    entropy of their frequencies. All None where every sample is bad.
    """
    device = next(model.parameters()).device
    errors, values = torch.zeros(2, dtype=torch.float64), 0
    counts = torch.zeros(model.sizes.vocabulary, dtype=torch.int64)
    with eval_mode(model):
        for batch in batches:
            good = batch.weight > 0
            if not good.any():
                continue
            pixels = as_pictures(to_unit(batch.views[0][good], device))
            with precision.autocast():
                rebuilt, codes = model.reconstruct(pixels)
            for place, guess in enumerate((rebuilt, mean_colors(pixels, model.sizes.stride))):
                errors[place] += (guess.float() - pixels).square().sum().cpu().double()
            values += pixels.numel()
            counts += torch.bincount(codes.flatten(), minlength=len(counts)).cpu()
    if not values:
        return dict.fromkeys(KEYS)
    used = int((counts > 0).sum())
    ours, plain = (psnr(error / values) for error in errors.tolist())
    return {
        "psnr": ours,
        "mean_color_psnr": plain,
        "codes_used": float(used),
        "codes_used_fraction": used / len(counts),
        "perplexity": perplexity(counts),
    }


def mean_colors(pixels: Tensor, stride: int) -> Tensor:
    """``[B, C, H, W]`` with the mean of each ``stride x stride`` square in all of it."""
    return F.interpolate(F.avg_pool2d(pixels, stride), scale_factor=stride, mode="nearest")


def psnr(mse: float) -> float:
    """Decibel of a mean squared error of values in [0, 1]; infinite where there is no error."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def perplexity(counts: Tensor) -> float:
    """How many equally frequent codes would be as hard to guess; counts are ``[V]``."""
    frequencies = counts.double() / counts.sum()
    return float(torch.special.entr(frequencies).sum().exp())
