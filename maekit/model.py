"""The masked autoencoder, as the paper tells it: mask, encode, decode, loss.

B samples, C channels, T frames, H x W pixels; N tokens, of which K are visible and Q are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from maekit.contracts import Encoded, Grid, Paints
from maekit.errors import WeightsError
from maekit.tokens import Mask

if TYPE_CHECKING:
    from maekit.contracts import Backbone, Decoder, Target


class Statistics(NamedTuple):
    """Mean and standard deviation per channel that pixels are normalized with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Output:
    """What one forward pass gives.

    Attributes:
        loss: the weighted mean over queries, a scalar; None for targets that need further views.
        pred: ``[B, Q, out_dim]`` in the order of the hidden tokens.
        encoded: ``[B, prefix + K, D]`` (N with the mask token in the encoder).
    """

    loss: Tensor | None
    pred: Tensor
    encoded: Tensor


class MaskedAutoencoder(nn.Module):
    """An encoder over what is visible, and a decoder that predicts what is not."""

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
        shape = (1, -1, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(statistics.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(shape), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor, hidden: Tensor) -> Output:
        """Predict what is hidden.

        Args:
            pixels: ``[B, C, T, H, W]`` in the model's normalized space; images have T = 1.
            hidden: bool ``[B, N]``, True = hidden, the same number in every row.
        """
        mask = Mask.build(hidden)
        encoded = self.encode_visible(pixels, mask)
        pred = self.decode(encoded.tokens, mask)
        loss = None
        if self.target is not None and not self.target.views:
            truth = self.target.encode([self.unnormalize(pixels)], mask)
            each = self.target.loss(pred, truth) * mask.weight
            loss = each.sum() / mask.weight.sum()
        return Output(loss, pred, encoded.tokens)

    def loss(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """The weighted sum of the loss over queries: divide by the weights of the whole batch.

        Args:
            views: float32 clips in [0, 1], the model's own ``[B, C, T, H, W]`` first, then those
                that the target asked for.
        """
        encoded = self.encode_visible(self.normalize(views[0]), mask)
        pred = self.decode(encoded.tokens, mask)
        target = self.required_target()
        with torch.no_grad():
            truth = target.encode(views, mask)
        return (target.loss(pred, truth) * mask.weight).sum()

    def encode_visible(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode what a mask leaves visible of normalized pixels."""
        return self.backbone(pixels, mask, layers, attention)

    def decode(self, encoded: Tensor, mask: Mask) -> Tensor:
        """Encoded tokens to predictions ``[B, Q, out_dim]``."""
        return self.required_decoder()(encoded, mask, self.grid)

    def encode(self, pixels: Tensor) -> Tensor:
        """Features ``[B, prefix + N, D]`` of normalized pixels, with nothing hidden."""
        mask = Mask.nothing_hidden(pixels.shape[0], self.grid.tokens, pixels.device)
        return self.encode_visible(pixels, mask).tokens

    def paint(
        self, pixels: Tensor, mask: Mask, statistics: Literal["visible", "truth"] = "visible"
    ) -> Tensor:
        """Predicted patches ``[B, Q, pt*ph*pw*C]`` in [0, 1] space, of pixels in [0, 1].

        Raises:
            TypeError: the target does not predict pixels.
        """
        target = self.required_target()
        if not isinstance(target, Paints):
            msg = f"the target {type(target).__name__} does not predict pixels"
            raise TypeError(msg)
        encoded = self.encode_visible(self.normalize(pixels), mask)
        return target.decode(self.decode(encoded.tokens, mask), pixels, mask, statistics)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] to the space that the encoder works in."""
        return (pixels - self.mean) / self.std

    def normalise(self, pixels: Tensor) -> Tensor:
        """Call ``normalize``, whose name this was; goes with the next release."""
        return self.normalize(pixels)

    def unnormalize(self, pixels: Tensor) -> Tensor:
        """The inverse of ``normalize``."""
        return pixels * self.std + self.mean

    def required_decoder(self) -> Decoder:
        """The decoder.

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
        """The target.

        Raises:
            WeightsError: the weights do not say what it is.
        """
        if self.target is None:
            msg = "these weights do not say what their decoder predicts (pixel or norm-pixel)"
            hint = (
                "give it: maekit weights convert SRC DST --to maekit --target norm-pixel (for "
                "mae_pretrain_*_full.pth and VideoMAE's; pixel for mae_visualize_*.pth)"
            )
            raise WeightsError(msg, hint=hint)
        return self.target
