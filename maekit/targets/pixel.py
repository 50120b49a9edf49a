"""Pixel targets: raw (MAE section 3) and normalised by each patch's own statistics.

MAE and VideoMAE disagree on how a patch is normalised; each disagreement is an option. Variances
are unbiased in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import PartContext, PartOptions, View
from maekit.tokens import Mask, gather, patchify, spread

LossName = Literal["mse", "l1", "smooth-l1"]
LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth-l1": F.smooth_l1_loss}


class Pixel:
    """The pixels of a patch, ``pt*ph*pw*C`` values with c fastest."""

    class Options(PartOptions):
        space: Literal["normalised", "unit"] = Field(
            "normalised",
            description="normalised: after data.stats (MAE); unit: [0, 1] pixels (VideoMAE)",
        )
        loss: LossName = Field("mse", description="per value, averaged over a patch")

    views: tuple[View, ...] = ()

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        self.grid = context.grid
        self.patch = context.patch
        self.channels = context.channels
        pt, ph, pw = context.patch
        self.out_dim = pt * ph * pw * context.channels
        self.mean, self.std = context.mean, context.std

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Clips ``[B, C, T, H, W]`` in [0, 1] to the truth ``[B, Q, out_dim]``."""
        return gather(self._patches(views[0]), mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """``[B, Q, out_dim]`` twice to float32 ``[B, Q]``."""
        each = LOSSES[self.options.loss](pred.float(), target, reduction="none")
        return each.mean(dim=-1)

    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,  # noqa: ARG002 (raw pixels have no statistics to undo)
        mask: Mask,  # noqa: ARG002
        statistics: Literal["visible", "truth"] = "visible",  # noqa: ARG002
    ) -> Tensor:
        """Predictions ``[B, Q, out_dim]`` to patches ``[B, Q, out_dim]`` in [0, 1] space."""
        return self._to_unit(pred.float())

    def _patches(self, pixels: Tensor) -> Tensor:
        """All patches ``[B, N, out_dim]`` in the target's space."""
        patches = patchify(pixels.float(), self.patch)
        if self.options.space == "unit":
            return patches
        return (patches - self._repeated(self.mean, patches)) / self._repeated(self.std, patches)

    def _to_unit(self, patches: Tensor) -> Tensor:
        if self.options.space == "unit":
            return patches
        return patches * self._repeated(self.std, patches) + self._repeated(self.mean, patches)

    def _repeated(self, per_channel: Sequence[float], like: Tensor) -> Tensor:
        return like.new_tensor(per_channel).repeat(self.out_dim // self.channels)


class NormPixel(Pixel):
    """The pixels of a patch, normalised by the mean and unbiased variance of that patch."""

    class Options(Pixel.Options):
        statistics: Literal["joint", "per-channel"] = Field(
            "joint", description="over all values of a patch (MAE), or each channel (VideoMAE)"
        )
        eps: Literal["inside", "outside"] = Field(
            "inside", description="inside: (var + eps)**0.5 (MAE); outside: var**0.5 + eps"
        )

    options: Options
    eps = 1e-6  # in both sources

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Clips ``[B, C, T, H, W]`` in [0, 1] to the truth ``[B, Q, out_dim]``."""
        patches = gather(self._patches(views[0]), mask.queries)
        mean, std = self._statistics(patches)
        return self._flat((self._grouped(patches) - mean) / std)

    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,
        mask: Mask,
        statistics: Literal["visible", "truth"] = "visible",
    ) -> Tensor:
        """Predictions ``[B, Q, out_dim]`` to patches ``[B, Q, out_dim]`` in [0, 1] space.

        ``visible`` interpolates each patch's mean and deviation from visible patches; ``truth``
        takes them from the hidden patches themselves: a picture that leaks the answer, for
        comparison only.
        """
        patches = self._patches(pixels)
        if statistics == "truth":
            mean, std = self._statistics(gather(patches, mask.queries))
        else:
            seen = self._statistics(gather(patches, mask.visible))
            mean, std = (spread(value.flatten(2), mask, self.grid).unsqueeze(2) for value in seen)
        return self._to_unit(self._flat(self._grouped(pred.float()) * std + mean))

    def _grouped(self, patches: Tensor) -> Tensor:
        """``[B, Q, values, groups]``: one group of all values, or one per channel."""
        groups = self.channels if self.options.statistics == "per-channel" else 1
        grouped: Tensor = patches.unflatten(-1, (-1, groups))
        return grouped

    def _flat(self, grouped: Tensor) -> Tensor:
        return grouped.flatten(-2)

    def _statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation ``[B, Q, 1, groups]``, epsilon included."""
        var, mean = torch.var_mean(self._grouped(patches), dim=-2, correction=1, keepdim=True)
        if self.options.eps == "inside":
            return mean, (var + self.eps).sqrt()
        return mean, var.sqrt() + self.eps
