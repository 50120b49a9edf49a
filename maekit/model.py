"""The masked autoencoder, as the paper describes it: mask, encode, decode, loss.

B samples, C channels, T frames, H x W pixels; N tokens, of which K are visible and Q are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from maekit.contracts import Encoded, Grid, PixelTarget
from maekit.errors import WeightsError
from maekit.layers import Normalizer, Statistics
from maekit.tokens import Mask

if TYPE_CHECKING:
    from maekit.contracts import Backbone, Decoder, Target


@dataclass(frozen=True)
class Output:
    """Output of one forward pass.

    Attributes:
        loss: the weighted mean over queries, a scalar; None for targets that need further views.
        pred: ``[B, Q, out_dim]`` in the order of the hidden tokens.
        encoded: ``[B, prefix + K, D]`` (N with the mask token in the encoder).
    """

    loss: Tensor | None
    pred: Tensor
    encoded: Tensor


class MaskedAutoencoder(nn.Module):
    """An encoder of visible tokens, and a decoder that predicts hidden ones."""

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder | None,
        target: Target | None,
        clip: tuple[int, int, int],
        statistics: Statistics,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.target = target
        self.clip = clip
        self.grid: Grid = backbone.grid(clip)
        self.statistics = statistics
        self.normalizer = Normalizer(statistics)

    def forward(self, pixels: Tensor, hidden: Tensor) -> Output:
        """Predict what is hidden.

        Args:
            pixels: ``[B, C, T, H, W]`` in the model's normalized space; images have T = 1.
            hidden: bool ``[B, N]``, True = hidden, the same number in every row.
        """
        mask = Mask.build(hidden)
        encoded = self.encode_for_decoder(pixels, mask)
        pred = self.decode(encoded, mask)
        loss = None
        if self.target is not None and not self.target.views:
            loss = self.loss(pred, [self.unnormalize(pixels)], mask) / mask.weight.sum()
        return Output(loss, pred, encoded.tokens)

    def masked_loss(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Compute a batch's loss from raw views: mask, encode, decode and compare.

        Args:
            views: as ``loss`` takes them.
            mask: which tokens are visible, and which are predicted.

        Returns:
            What ``loss`` returns: a sum, as a batch may come in parts.
        """
        encoded = self.encode_for_decoder(self.normalize(views[0]), mask)
        return self.loss(self.decode(encoded, mask), views, mask)

    def loss(self, pred: Tensor, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Sum the weighted loss over queries; divided by the weights' sum, it is their mean.

        Args:
            pred: ``[B, Q, out_dim]``.
            views: float32 clips in [0, 1], the model's own ``[B, C, T, H, W]`` first, then those
                that the target needs.
            mask: which tokens are visible, and which are predicted.
        """
        target = self.required_target()
        with torch.no_grad():
            truth = target.encode(views, mask)
        return (target.loss(pred, truth) * mask.weight).sum()

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.normalizer.mean.device

    def encode_visible(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode what a mask leaves visible of normalized pixels."""
        encoded: Encoded = self.backbone(pixels, mask, layers, attention)
        return encoded

    def encode_for_decoder(self, pixels: Tensor, mask: Mask) -> Encoded:
        """Encode with the layers that the decoder wants."""
        return self.encode_visible(pixels, mask, self.required_decoder().layers)

    def decode(self, encoded: Encoded, mask: Mask) -> Tensor:
        """Predict what is queried, ``[B, Q, out_dim]``, of what ``encode_for_decoder`` returns."""
        predicted: Tensor = self.required_decoder()(encoded, mask, self.grid)
        return predicted

    def encode(self, pixels: Tensor) -> Tensor:
        """Return features ``[B, prefix + N, D]`` of normalized pixels, with nothing hidden."""
        mask = Mask.nothing_hidden(pixels.shape[0], self.grid.tokens, pixels.device)
        return self.encode_visible(pixels, mask).tokens

    def paint(
        self, pixels: Tensor, mask: Mask, statistics: Literal["visible", "truth"] = "visible"
    ) -> Tensor:
        """Predict patches ``[B, Q, pt*ph*pw*C]`` in [0, 1], of pixels in [0, 1].

        Raises:
            TypeError: the target does not predict pixels.
        """
        target = self.required_target()
        if not isinstance(target, PixelTarget):
            msg = f"the target {type(target).__name__} does not predict pixels"
            raise TypeError(msg)
        encoded = self.encode_for_decoder(self.normalize(pixels), mask)
        return target.decode(self.decode(encoded, mask), pixels, mask, statistics)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Map pixels in [0, 1] to the space that the encoder works in."""
        normalized: Tensor = self.normalizer(pixels)
        return normalized

    def normalise(self, pixels: Tensor) -> Tensor:
        """Call ``normalize``, whose name this was; goes with the next release."""
        return self.normalize(pixels)

    def unnormalize(self, pixels: Tensor) -> Tensor:
        """Invert ``normalize``."""
        return self.normalizer.invert(pixels)

    def required_decoder(self) -> Decoder:
        """Return the decoder, where there is one.

        Raises:
            WeightsError: the weights hold none.
        """
        if self.decoder is None:
            msg = "no decoder weights in this file: it encodes, it cannot reconstruct"
            hint = (
                "use weights that hold a decoder: a maekit run, mae_pretrain_*_full.pth or "
                "mae_visualize_*.pth of MAE, a pre-training checkpoint of VideoMAE"
            )
            raise WeightsError(msg, hint=hint)
        return self.decoder

    def required_target(self) -> Target:
        """Return the target, where there is one.

        Raises:
            WeightsError: the weights do not say what it is.
        """
        if self.target is None:
            msg = "these weights do not say what their decoder predicts (pixel or norm-pixel)"
            hint = (
                "convert them with --target norm-pixel (mae_pretrain_*_full.pth and VideoMAE's) "
                "or --target pixel (mae_visualize_*.pth)"
            )
            raise WeightsError(msg, hint=hint)
        return self.target
