"""Features of whole clips: nothing hidden, nothing random, whatever the batch.

B clips, C channels, T frames, H x W pixels; N patch tokens; D the width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from maekit.errors import RecipeError
from maekit.tokens import Mask

if TYPE_CHECKING:
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder

Pool = Literal["cls", "mean", "tokens"]
Featurize = Callable[[Tensor], Tensor]  # float32 pixels in [0, 1], [B, C, T, H, W]; to [B, ...]


class Features(nn.Module):
    """Pixels in [0, 1] to features of an encoder that sees all of them.

    ``cls`` is the class token, ``mean`` the mean over patch tokens, ``tokens`` all patch tokens in
    raster order, ``[B, N, D]``; other prefix tokens are left out.

    Args:
        model: its encoder is used, in evaluation mode.
        pool: what becomes of the tokens.
        layer: the block whose output is taken, from 1, or from -1 backwards; None: the encoder's
            output, after its last norm.

    Raises:
        RecipeError: the encoder has no class token, or not so many blocks.
    """

    def __init__(
        self, model: MaskedAutoencoder, pool: Pool, layer: int | None, precision: Precision
    ) -> None:
        super().__init__()
        if pool == "cls" and not model.backbone.prefix_tokens:
            msg = "this encoder has no class token (VideoMAE's has none)"
            raise RecipeError(msg, where="pool cls", hint="pool mean")
        self.model = model.eval()
        self.pool = pool
        self.block = None if layer is None else block_of(layer, len(model.backbone.blocks()))
        self.precision = precision

    @property
    def width(self) -> int:
        """D."""
        return self.model.backbone.width

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` to float32 ``[B, D]``, or ``[B, N, D]``."""
        model = self.model
        mask = Mask.nothing_hidden(len(pixels), model.grid.tokens, pixels.device)
        layers = () if self.block is None else (self.block,)
        with self.precision.autocast():
            encoded = model.encode_visible(model.normalize(pixels), mask, layers)
        tokens = (encoded.tokens if self.block is None else encoded.layers[0]).float()
        if self.pool == "cls":
            return tokens[:, 0]
        patches = tokens[:, model.backbone.prefix_tokens :]
        return patches if self.pool == "tokens" else patches.mean(dim=1)


def block_of(layer: int, blocks: int) -> int:
    """The index of a block that is counted from 1, or from -1 backwards.

    Raises:
        RecipeError: there is no such block.
    """
    if layer == 0 or abs(layer) > blocks:
        msg = f"layer {layer}: the encoder has blocks 1 to {blocks} (or -{blocks} to -1)"
        raise RecipeError(msg, where="layer", hint="without it, features follow the last norm")
    return layer - 1 if layer > 0 else blocks + layer


def auto_pool(pool: Literal["auto", "cls", "mean"], prefix_tokens: int) -> Literal["cls", "mean"]:
    """``auto``: the class token where there is one, else the mean over patches."""
    if pool != "auto":
        return pool
    return "cls" if prefix_tokens else "mean"
