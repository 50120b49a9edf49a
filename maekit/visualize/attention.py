"""Where the encoder looks: attention of the last layer, and rolled out over all of them.

Rollout: Abnar and Zuidema 2020 (arXiv 2005.00928): heads averaged, half of each layer is the
residual path, layers multiplied. Nothing is hidden from the encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from maekit.errors import PartError
from maekit.tokens import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from maekit.model import MaskedAutoencoder

COLUMNS = ("attention rollout", "attention, last layer")
# From none to most: dark blue, violet, red, orange, pale yellow; evenly spaced in lightness.
_HEAT = np.array(
    [[0.0, 0.0, 0.1], [0.35, 0.05, 0.45], [0.75, 0.2, 0.3], [0.98, 0.55, 0.05], [1.0, 1.0, 0.7]]
)
_OPACITY = 0.6


@torch.no_grad()
def attention_maps(model: MaskedAutoencoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute rollout and last layer, each ``[B, N]``, adding up to at most 1 in each sample.

    As seen by the first prefix (class) token, or where there is none by all tokens on average.
    Samples are looked at one by one: every layer's attention is kept until it is rolled out.

    Args:
        model: whose backbone gives its attention.
        pixels: ``[B, C, T, H, W]`` in [0, 1].

    Raises:
        PartError: the backbone does not give its attention.
    """
    maps = [_maps_of_one(model, each) for each in pixels.split(1)]
    rolled, last = (torch.cat(each) for each in zip(*maps, strict=True))
    return rolled, last


def _maps_of_one(model: MaskedAutoencoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``attention_maps`` of ``[1, C, T, H, W]``."""
    everything = Mask.nothing_hidden(1, model.grid.tokens, pixels.device)
    layers = model.encode_visible(model.normalize(pixels), everything, attention=True).attention
    if not layers:
        msg = f"{type(model.backbone).__name__} does not give its attention"
        raise PartError(msg, where="--attention", hint="leave --attention out")
    prefix = model.backbone.prefix_tokens
    return _seen(rollout(layers), prefix), _seen(layers[-1].float().mean(dim=1), prefix)


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Multiply attention ``[B, heads, S, S]`` of the layers to ``[B, S, S]``, outputs to inputs."""
    first = layers[0]
    identity = torch.eye(first.shape[-1], device=first.device)
    rolled = identity.expand(len(first), -1, -1)
    for layer in layers:
        rolled = (0.5 * layer.float().mean(dim=1) + 0.5 * identity) @ rolled
    return rolled


def _seen(weights: Tensor, prefix: int) -> Tensor:
    rows = weights[:, 0] if prefix else weights.mean(dim=1)
    return rows[:, prefix:]


def overlay(original: np.ndarray, seen: np.ndarray, depth: int) -> np.ndarray:
    """Color a gray version of a clip by how much of the attention each place gets.

    Args:
        original: ``[T, H, W, C]`` in [0, 1].
        seen: ``[t, h, w]``; the least and the most of the clip span the colors.
        depth: frames a token.

    Returns:
        ``[T, H, W, 3]``.
    """
    height, width = original.shape[1:3]
    low, high = float(seen.min()), float(seen.max())
    spread = ((seen - low) / (high - low) if high > low else np.zeros_like(seen)).repeat(depth, 0)
    smooth = [
        np.asarray(
            Image.fromarray(each.astype(np.float32)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for each in spread
    ]
    heat = _colored(np.stack(smooth))
    gray = np.clip(original.mean(axis=-1, keepdims=True), 0, 1)
    mixed: np.ndarray = (1 - _OPACITY) * gray + _OPACITY * heat
    return mixed.astype(np.float32)


def _colored(values: np.ndarray) -> np.ndarray:
    """``[...]`` in [0, 1] to ``[..., 3]``."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1)
