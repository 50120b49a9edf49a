"""Targets ``data2vec`` and ``ijepa``: two ways to read off a teacher, and their losses."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import Backbone, PartContext, PartError
from maekit.tokens import Mask
from maekit_latent.teacher import LatentTarget, TeacherOptions


class Data2vec(LatentTarget):
    """The mean of the teacher's last blocks, normed before and after, by a smooth L1 loss.

    Blocks are taken with their residual (``layer_results end`` of the authors' code for vision).
    There each of them is normed, and their mean once more (``target_layer_norm_last``, by default,
    and ``--post_target_layer_norm``, in its commands).
    """

    class Options(TeacherOptions):
        layers: int = Field(6, ge=1, description="of the teacher, the last ones (ViT-B: 6 of 12)")
        norm: Literal["both", "layers", "mean", "none"] = Field(
            "both",
            description="what is normalized, token by token: each layer, their mean, or both",
        )
        beta: float = Field(
            2.0, gt=0, description="where the loss turns from a square into a line (2: ViT-B's)"
        )
        decay: float = Field(
            0.9998,
            ge=0,
            le=1,
            description="share of itself that the teacher keeps at each update; 0.9998 is for "
            "hundreds of thousands of updates",
        )

    options: Options

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__(options, context)
        widths = context.layer_widths
        if options.layers > len(widths):
            msg = f"layers: {options.layers}, and the encoder has {len(widths)} blocks"
            raise PartError(msg, hint=f"set layers to {len(widths)} or fewer")
        self._layers = range(len(widths) - options.layers, len(widths))
        if len({widths[index] for index in self._layers}) > 1:
            found = [widths[index] for index in self._layers]
            msg = f"the last {options.layers} blocks have widths {found}: they have no mean"
            raise PartError(msg, hint="set layers to those of the last stage")

    def latents(self, teacher: Backbone, pixels: Tensor, whole: Mask) -> Tensor:
        """Return the mean of the last layers, float32 ``[B, prefix + N, D]``."""
        taken = [each.float() for each in teacher(pixels, whole, self._layers).layers]
        if self.options.norm in ("layers", "both"):
            taken = [_normed(each) for each in taken]
        mean = torch.stack(taken).mean(dim=0)
        return _normed(mean) if self.options.norm in ("mean", "both") else mean

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the smooth L1 loss of each token: float32 ``[B, Q]``."""
        beta = self.options.beta
        return F.smooth_l1_loss(pred.float(), target, reduction="none", beta=beta).mean(dim=-1)


class IJEPA(LatentTarget):
    """The teacher's output, normalized token by token, by a smooth L1 loss (I-JEPA's code)."""

    class Options(TeacherOptions):
        decay_end: float | None = Field(
            1.0, ge=0, le=1, description="decay at the end of `ramp` (1: the teacher stands still)"
        )

    def latents(self, teacher: Backbone, pixels: Tensor, whole: Mask) -> Tensor:
        """Return the normalized output, float32 ``[B, prefix + N, D]``."""
        return _normed(teacher(pixels, whole).tokens.float())

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the smooth L1 loss of each token: float32 ``[B, Q]``."""
        return F.smooth_l1_loss(pred.float(), target, reduction="none").mean(dim=-1)


def _normed(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])
