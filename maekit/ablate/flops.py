"""Count the floating-point operations of one sample of pre-training, attention included.

The papers' "FLOPs" are multiply-adds of the forward pass, half of ``forward``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit import registry
from maekit.data.batch import Batch
from maekit.data.masks import MaskDraw
from maekit.engine.build import build_model, header_of, required_pretrain
from maekit.engine.flops import flop_counter
from maekit.engine.step import make_mask
from maekit.layers import Statistics

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import MaskerSpec, Recipe
    from maekit.tokens import Mask


@dataclass(frozen=True)
class Flops:
    """Operations of one sample.

    Attributes:
        encoder: of its forward pass.
        decoder: of its forward pass.
        total: of both, forward and backward.
    """

    encoder: int
    decoder: int
    total: int

    @property
    def forward(self) -> int:
        """Operations of the forward pass."""
        return self.encoder + self.decoder

    @property
    def ratio(self) -> float:
        """How many times the decoder's operations the encoder takes, forward."""
        return self.encoder / self.decoder


def count_flops(recipe: Recipe) -> Flops:
    """Count the operations of one sample, on the meta device: nothing is computed.

    Args:
        recipe: resolved for ``pretrain``.

    Raises:
        PartError: the parts do not fit together.
    """
    channels = recipe.data.channels
    header = header_of(recipe, Statistics((0.0,) * channels, (1.0,) * channels))
    with torch.device("meta"):
        model = build_model(header)
        pixels = torch.empty(1, channels, *header.clip)
    return _counted(model, pixels, drawn_mask(recipe, model).to("meta"))


def drawn_mask(recipe: Recipe, model: MaskedAutoencoder) -> Mask:
    """Draw the mask of one sample as pre-training would; all samples' have the same sizes."""
    pretrain = required_pretrain(recipe)
    frames, height, width = model.clip
    black = np.zeros((frames, height, width, recipe.data.channels), np.uint8)

    def drawing(spec: MaskerSpec, after: MaskDraw | None) -> MaskDraw:
        masker = registry.build(spec)
        return MaskDraw(masker, model.grid, model.backbone.mask_unit, black.shape, after=after)

    first = drawing(pretrain.masker, None)
    hidden, decode = first.draw(np.random.default_rng(0), black), None
    if pretrain.decoder_masker is not None:
        second = drawing(pretrain.decoder_masker, first)
        decode = second.draw(np.random.default_rng(0), black, hidden)[None]
    batch = Batch(
        views=(),
        hidden=hidden[None],
        decode=decode,
        weight=np.ones(1, np.float32),
        labels=(None,),
        keys=(),
        bad=(),
    )
    return make_mask(model, batch, pretrain.loss_on)


def _counted(model: MaskedAutoencoder, pixels: torch.Tensor, mask: Mask) -> Flops:
    with flop_counter() as counter:
        encoded = model.encode_for_decoder(pixels, mask)
        encoder = counter.get_total_flops()
        predicted = model.decode(encoded, mask)
        forward = counter.get_total_flops()
        predicted.sum().backward()
        total = counter.get_total_flops()
    return Flops(encoder, forward - encoder, total)
