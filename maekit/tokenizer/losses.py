"""The relaxed evidence lower bound of a discrete VAE (arXiv 2102.12092, section 2.1, appendix A).

n pictures of C x H x W pixels in [0, 1], codes on h x w places, V codes in the codebook. All is
computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.data.rng import generator
from maekit.engine import distributed
from maekit.engine.step import eval_mode, to_device_float01
from maekit.engine.validation import psnr
from maekit.stop import check
from maekit.targets.dvae_networks import as_pictures, map_pixels, unmap_pixels

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.data.order import Key
    from maekit.engine.precision import Precision
    from maekit.recipe.tokenizer import KLWeight, Temperature
    from maekit.targets.dvae_networks import DVAE


Reconstruction = Literal["logit-laplace", "mse", "l1"]


def annealed(ramp: Temperature | KLWeight, step: int, budget: int) -> float:
    """Return a ramp's value at an update.

    It follows half a cosine from start to end over ``ramp.steps``, then stays.

    Args:
        ramp: the recipe's start, end and length.
        step: finished updates.
        budget: all updates of the training; a longer ramp is cut to it.
    """
    steps = min(ramp.steps, budget)
    done = min(1.0, step / steps) if steps else 1.0
    return ramp.end + (ramp.start - ramp.end) * 0.5 * (1 + math.cos(math.pi * done))


def gumbel_noise(
    keys: Sequence[Key], shape: tuple[int, ...], seed: int, device: torch.device
) -> Tensor:
    """Draw standard Gumbel noise ``[n, *shape]``: a function of each sample's key.

    So it is the same however a batch is split, and after a restart.
    """
    noise = torch.empty(len(keys), *shape, device=device)
    source = torch.Generator(device)
    for row, key in zip(noise, keys, strict=True):
        rng = generator(seed, purpose="gumbel", epoch=key.epoch, index=key.index)
        source.manual_seed(int(rng.integers(2**63)))
        row.exponential_(generator=source)
    # -log of a standard exponential; its smallest value, 0, would become infinite.
    return -noise.clamp_min_(torch.finfo(noise.dtype).tiny).log()


def relaxed(logits: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Draw a relaxed sample of codes ``[n, V, h, w]`` (arXiv 1611.00712, 1611.01144)."""
    return ((logits.float() + noise) / temperature).softmax(dim=1)


def divergence(logits: Tensor) -> Tensor:
    """Compute the KL from the uniform distribution, in nats, summed over places: ``[n]``."""
    log_probabilities = logits.float().log_softmax(dim=1)
    above_uniform = log_probabilities + math.log(logits.shape[1])
    return (log_probabilities.exp() * above_uniform).sum(dim=(1, 2, 3))


def reconstruction(
    kind: Reconstruction, location: Tensor, log_scale: Tensor, pixels: Tensor
) -> Tensor:
    """Compute the error of pixels, a mean over values: ``[n]``.

    Args:
        kind: logit-laplace is the negative log-likelihood of the mapped pixels (appendix A.3);
            mse and l1 are the errors of the decoder's picture in [0, 1] space.
        location: the decoder's, ``[n, C, H, W]``.
        log_scale: likewise.
        pixels: ``[n, C, H, W]``.
    """
    if kind == "logit-laplace":
        mapped = map_pixels(pixels)
        distance = (torch.logit(mapped) - location).abs() * (-log_scale).exp()
        each = distance + log_scale + (2 * mapped * (1 - mapped)).log()
    else:
        error = {"mse": F.mse_loss, "l1": F.l1_loss}[kind]
        each = error(unmap_pixels(location.sigmoid()), pixels, reduction="none")
    return each.mean(dim=(1, 2, 3))


def relaxed_bound(
    model: DVAE,
    kind: Reconstruction,
    pixels: Tensor,
    noise: Tensor,
    temperature: Tensor,
    kl_weight: Tensor,
) -> Tensor:
    """Compute the loss that is minimized, per picture: ``[n]``.

    Both terms are divided by the values of a picture, as DALL-E does: at 8 x 8 x 3 values a code
    the divergence of a code weighs ``kl_weight / 192``.
    """
    logits = model.logits(pixels)
    location, log_scale = model.distribution(relaxed(logits, noise, temperature))
    values = pixels[0].numel()
    return reconstruction(kind, location, log_scale, pixels) + (
        kl_weight * divergence(logits) / values
    )


KEYS = ("psnr", "mean_color_psnr", "codes_used", "codes_used_fraction", "perplexity")


@torch.no_grad()
def validation_errors(
    model: DVAE, batches: Sequence[Batch], precision: Precision
) -> dict[str, float | None]:
    """Rebuild held-out pictures from their most likely codes.

    ``psnr`` is in decibel, of the mean squared error over all values in [0, 1];
    ``mean_color_psnr`` the same of pictures whose every ``stride x stride`` square has its mean
    color; ``codes_used`` counts the codes that occur, ``perplexity`` is the exponential of the
    entropy of their frequencies. All None where every sample is bad.
    """
    device = next(model.parameters()).device

    def own() -> tuple[Tensor, Tensor]:
        sums = torch.zeros(3, dtype=torch.float64)  # of both errors, and values
        counts = torch.zeros(model.sizes.vocabulary, dtype=torch.int64)
        for batch in batches:
            check()
            good = batch.weight > 0
            if not good.any():
                continue
            pixels = as_pictures(to_device_float01(batch.views[0][good], device))
            with precision.autocast():
                rebuilt, codes = model.reconstruct(pixels)
            for place, guess in enumerate((rebuilt, mean_colors(pixels, model.sizes.stride))):
                sums[place] += (guess.float() - pixels).square().sum().cpu().double()
            sums[2] += pixels.numel()
            counts += torch.bincount(codes.flatten(), minlength=len(counts)).cpu()
        return sums, counts

    with eval_mode(model):
        parts = distributed.together(own)
    *summed, values = torch.stack([sums for sums, _ in parts]).sum(dim=0).tolist()
    counts = torch.stack([counts for _, counts in parts]).sum(dim=0)
    if not values:
        return dict.fromkeys(KEYS)
    used = int((counts > 0).sum())
    ours, plain = (psnr(error / values) for error in summed)
    return {
        "psnr": ours,
        "mean_color_psnr": plain,
        "codes_used": float(used),
        "codes_used_fraction": used / len(counts),
        "perplexity": perplexity(counts),
    }


def mean_colors(pixels: Tensor, stride: int) -> Tensor:
    """Fill each ``stride x stride`` square of ``[B, C, H, W]`` with its mean."""
    return F.interpolate(F.avg_pool2d(pixels, stride), scale_factor=stride, mode="nearest")


def perplexity(counts: Tensor) -> float:
    """Return how many equally frequent codes would be as hard to guess; counts are ``[V]``."""
    frequencies = counts.double() / counts.sum()
    return float(torch.special.entr(frequencies).sum().exp())
