"""The masked autoencoder, as the paper describes it: mask, encode, decode, loss.

B samples, C channels, T frames, H x W pixels; N tokens, of which K are visible and Q are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from maekit.contracts import Encoded, Grid, PixelTarget
from maekit.errors import WeightsError
from maekit.layers import Normalizer, Statistics
from maekit.origin import fault
from maekit.tokens import Mask, require_clips

if TYPE_CHECKING:
    from maekit.arrays import Reconstruction
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
        encoded = self.encode_for_decoder(require_clips(pixels), mask)
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
        pixels = self.normalize(views[0])
        given = _Untouched(pixels, mask.visible, mask.queries, mask.weight)
        encoded = self.encode_for_decoder(pixels, mask)
        given.check(self.backbone)
        given = _Untouched(encoded.tokens, *encoded.layers, mask.visible, mask.queries, mask.weight)
        pred = self.decode(encoded, mask)
        given.check(self.decoder)
        given = _Untouched(*views, mask.visible, mask.queries, mask.weight)
        loss = self.loss(pred, views, mask)
        given.check(self.target)
        return loss

    def loss(self, pred: Tensor, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Sum the weighted loss over queries; divided by the weights' sum, it is their mean.

        Args:
            pred: ``[B, Q, out_dim]``.
            views: float32 clips in [0, 1], the model's own ``[B, C, T, H, W]`` first, then those
                that the target needs.
            mask: which tokens are visible, and which are predicted.
        """
        target, queries = self.required_target(), tuple(mask.queries.shape)
        with torch.no_grad():
            truth = target.encode(views, mask)
        _check_shape(target, "encode", truth, (*queries, None), "batch, queries, ...", open_=True)
        if truth.ndim == 3 and truth.is_floating_point():
            widths = (truth.shape[2], target.out_dim)
            if widths[0] != widths[1] and 1 in widths:  # would be spread over the other silently
                what = f"encodes {widths[0]} values a token, and its out_dim is {widths[1]}"
                raise fault(target, what, "let them be the same number")
        loss = target.loss(pred, truth)
        _check_shape(target, "loss", loss, queries, "batch, queries")
        if loss.dtype != torch.float32:
            hint = "compute it of pred.float()"
            raise fault(target, f"must return a loss of float32, returned {loss.dtype}", hint)
        return (loss * mask.weight).sum()

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.normalizer.mean.device

    def encode_visible(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode what a mask leaves visible of normalized pixels."""
        encoded: Encoded = self.backbone(pixels, mask, layers, attention)
        backbone = self.backbone
        seen = mask.tokens if backbone.returns == "all" else mask.visible.shape[1]
        shape = (pixels.shape[0], backbone.prefix_tokens + seen, backbone.width)
        meant = f"batch, {backbone.prefix_tokens} prefix + {seen} {backbone.returns} tokens, width"
        _check_shape(backbone, "forward", encoded.tokens, shape, meant)
        if len(encoded.layers) != len(set(layers)):
            wanted, got = len(set(layers)), len(encoded.layers)
            raise fault(backbone, f"must return {wanted} layers as asked, returned {got}")
        return encoded

    def encode_for_decoder(self, pixels: Tensor, mask: Mask) -> Encoded:
        """Encode with the layers that the decoder wants."""
        return self.encode_visible(pixels, mask, self.required_decoder().layers)

    def decode(self, encoded: Encoded, mask: Mask) -> Tensor:
        """Predict what is queried, ``[B, Q, out_dim]``, of what ``encode_for_decoder`` returns."""
        decoder = self.required_decoder()
        predicted: Tensor = decoder(encoded, mask, self.grid)
        width = None if self.target is None else self.target.out_dim
        shape = (*mask.queries.shape, width)
        _check_shape(decoder, "forward", predicted, shape, "batch, queries, the target's out_dim")
        return predicted

    def encode(self, pixels: Tensor) -> Tensor:
        """Return features ``[B, prefix + N, D]`` of normalized pixels, with nothing hidden."""
        mask = Mask.nothing_hidden(require_clips(pixels).shape[0], self.grid.tokens, pixels.device)
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

    def reconstruct(
        self,
        image: Any,  # noqa: ANN401 - whatever numpy takes
        hidden: Any = None,  # noqa: ANN401 - likewise
        *,
        ratio: float | None = None,
        seed: int = 0,
    ) -> Reconstruction:
        """Hide a part of a picture or clip, and return what is predicted there, as arrays.

        Args:
            image: ``[H, W]``, ``[H, W, C]`` or ``[T, H, W, C]``, uint8 or float in [0, 1], a Pillow
                image, or what ``maekit.read(path, model)`` returns. Of another size its middle is
                resized; a picture stands still for a model of clips.
            hidden: bool, one value a token, True = hidden; default: drawn at random, the same in
                each slot of a clip.
            ratio: the share that is hidden then; default: 0.75, of clips 0.9.
            seed: of what is drawn.

        Raises:
            ValueError: the image has other channels or frames than the model takes.
            WeightsError: there is no decoder.
            TypeError: the target does not predict pixels.
        """
        from maekit.arrays import reconstruct

        return reconstruct(self, image, hidden, ratio=ratio, seed=seed)

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


def _check_shape(
    part: object,
    member: str,
    found: Tensor,
    shape: tuple[int | None, ...],
    meant: str,
    *,
    open_: bool = False,
) -> None:
    """Refuse what a part returned if it has another shape than the contract says.

    Args:
        part: that returned it.
        member: of the part.
        found: what it returned.
        shape: None stands for any size.
        meant: the axes, in words.
        open_: the last axis stands for any number of them.
    """
    if not isinstance(found, Tensor):
        raise fault(part, f"must return a tensor from {member}, returned {type(found).__name__}")
    wanted = shape[:-1] if open_ else shape
    got = tuple(found.shape)
    fits = len(got) >= len(wanted) if open_ else len(got) == len(wanted)
    if not fits or any(w is not None and w != g for w, g in zip(wanted, got, strict=False)):
        sizes = [*("any" if each is None else str(each) for each in wanted), *["..."] * open_]
        what = f"must return [{', '.join(sizes)}] from {member} ({meant}), returned {list(got)}"
        raise fault(part, what)


class _Untouched:
    """Tensors that a part is given, and has to leave as they are."""

    def __init__(self, *tensors: Tensor) -> None:
        self._before: list[tuple[Tensor, int]] = []
        if not torch.compiler.is_compiling():  # compiled code is the same, and looked at before
            self._before = [(each, each._version) for each in tensors if not each.is_inference()]  # noqa: SLF001

    def check(self, part: object) -> None:
        """Raise PartError where a part has changed one of them."""
        if any(each._version != before for each, before in self._before):  # noqa: SLF001
            raise fault(part, "changes in place what it is given", "work on a clone of it")
