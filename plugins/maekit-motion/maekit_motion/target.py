"""Target ``frame-difference``: how the pixels of a patch change from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import PartContext, PartError, PartOptions, Target
from maekit.tokens import Mask, gather, patchify


class FrameDifference(Target):
    """The difference of each frame of a patch to the next one: ``pt*ph*pw*C`` values, c fastest.

    The clip's last frame has none after it, and takes the difference before it. Differences have a
    sign, and are of pixels in [0, 1].
    """

    class Options(PartOptions):
        norm: bool = Field(
            True,
            description="divide each patch's differences by their own deviation, so that slow "
            "motion counts as much as fast; false: as they are",
        )
        still: float = Field(
            0.01,
            gt=0,
            description="deviation that is added (in squares) to each patch's own: below it, a "
            "patch is taken to stand still, and its noise is not blown up",
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        self.patch = context.patch
        if context.shape[0] < 2:
            msg = "one frame has no difference to the next"
            raise PartError(msg, hint="set data.train.frames to 2 or more")
        pt, ph, pw = context.patch
        self.out_dim = pt * ph * pw * context.channels

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn clips ``[B, C, T, H, W]`` in [0, 1] into differences ``[B, Q, out_dim]``."""
        steps = views[0].float().diff(dim=2)
        steps = torch.cat([steps, steps[:, :, -1:]], dim=2)
        patches = gather(patchify(steps, self.patch), mask.queries)
        if not self.options.norm:
            return patches
        spread = patches.var(dim=-1, keepdim=True, correction=0)
        return patches / (spread + self.options.still**2).sqrt()

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of each token: float32 ``[B, Q]``."""
        return F.mse_loss(pred.float(), target, reduction="none").mean(dim=-1)
