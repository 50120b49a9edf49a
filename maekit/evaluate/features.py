"""Features of whole clips: nothing hidden, nothing random, whatever the batch.

B clips, C channels, T frames, H x W pixels; N patch tokens; D the width of a feature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from maekit.errors import PartError, RecipeError
from maekit.tokens import Mask, require_clips

if TYPE_CHECKING:
    from maekit.contracts import Backbone, Grid
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder

Pool = Literal["cls", "mean", "tokens"]


class Features(nn.Module):
    """Turns pixels in [0, 1] into features of an encoder that sees all of them.

    ``cls`` is the class token, ``mean`` the mean over patch tokens, ``tokens`` all patch tokens in
    raster order, ``[B, N, D]``; other prefix tokens are left out.

    Args:
        model: its encoder is used, in evaluation mode.
        pool: how tokens are pooled.
        layer: the block whose output is taken, from 1, or from -1 backwards; None: the encoder's
            output, after its last norm.
        pool_first: pool the last block's tokens and normalize what comes of it, as a classifier
            does, instead of pooling normalized tokens; for the class token it makes no difference.

    Raises:
        RecipeError: the encoder has no class token, or not so many blocks.
        PartError: ``pool_first`` with an encoder that has no last norm.
    """

    def __init__(
        self,
        model: MaskedAutoencoder,
        pool: Pool,
        layer: int | None,
        precision: Precision,
        *,
        pool_first: bool = False,
    ) -> None:
        super().__init__()
        if pool == "cls" and not model.backbone.prefix_tokens:
            msg = "this encoder has no class token (VideoMAE's has none)"
            raise RecipeError(msg, where="pool cls", hint="pool mean")
        self.model = model.eval()
        self.pool = pool
        self.block = None if layer is None else block_of(layer, len(model.backbone.blocks()))
        self.precision = precision
        self.norm = required_norm(model.backbone) if pool_first else None

    @property
    def width(self) -> int:
        """D."""
        return self.model.backbone.width

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """Compute float32 features ``[B, D]`` or ``[B, N, D]`` of pixels ``[B, C, T, H, W]``."""
        model = self.model
        if self.norm is not None:
            with self.precision.autocast():
                normalized = model.normalize(pixels)
                return pool_then_norm(
                    model.backbone, normalized, model.grid, self.pool, self.norm
                ).float()
        mask = Mask.nothing_hidden(len(pixels), model.grid.tokens, pixels.device)
        layers = () if self.block is None else (self.block,)
        with self.precision.autocast():
            encoded = model.encode_visible(model.normalize(pixels), mask, layers)
        tokens = (encoded.tokens if self.block is None else encoded.layers[0]).float()
        return pool_tokens(tokens, self.pool, model.backbone.prefix_tokens)


def pool_tokens(tokens: Tensor, pool: Pool, prefix: int) -> Tensor:
    """Pool tokens ``[B, prefix + N, D]`` to ``[B, D]``; ``tokens`` leaves patches ``[B, N, D]``."""
    if pool == "cls":
        return tokens[:, 0]
    patches = tokens[:, prefix:]
    return patches if pool == "tokens" else patches.mean(dim=1)


def pool_then_norm(
    backbone: Backbone, pixels: Tensor, grid: Grid, pool: Pool, norm: nn.Module
) -> Tensor:
    """Pool the last block's output for normalized pixels, then normalize: ``[B, D]``.

    The encoder's own last norm comes after the block and is not applied before pooling: a mean of
    normalized tokens is not the normalized mean.
    """
    mask = Mask.nothing_hidden(require_clips(pixels).shape[0], grid.tokens, pixels.device)
    last = len(backbone.blocks()) - 1
    encoded = backbone(pixels, mask, layers=(last,))
    normed: Tensor = norm(pool_tokens(encoded.layers[0], pool, backbone.prefix_tokens))
    return normed


def required_norm(backbone: Backbone) -> nn.Module:
    """Return the norm that an encoder applies to its last block's output.

    Raises:
        PartError: it has none.
    """
    norm = backbone.last_norm()
    if norm is None:
        msg = f"{type(backbone).__name__} has no last norm of its own"
        raise PartError(msg, where="norm: pretrained", hint="take norm: fresh")
    return norm


def block_of(layer: int, blocks: int) -> int:
    """Return the index of a block that is counted from 1, or from -1 backwards.

    Raises:
        RecipeError: there is no such block.
    """
    if layer == 0 or abs(layer) > blocks:
        msg = f"layer {layer}: the encoder has blocks 1 to {blocks} (or -{blocks} to -1)"
        raise RecipeError(msg, where="layer", hint="without it, features follow the last norm")
    return layer - 1 if layer > 0 else blocks + layer


def auto_pool(pool: Literal["auto", "cls", "mean"], prefix_tokens: int) -> Literal["cls", "mean"]:
    """Resolve ``auto``: the class token where there is one, else the mean over patches."""
    if pool != "auto":
        return pool
    return "cls" if prefix_tokens else "mean"
