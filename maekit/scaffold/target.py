"""``my-part``: the mean color of every cell of a patch."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import PartContext, PartError, PartOptions, Target
from maekit.tokens import Mask, gather, patchify


class MyPart(Target):
    """Cuts each frame of a patch into cells, and predicts the mean of each, channel by channel."""

    class Options(PartOptions):
        """Options of ``my-part``."""

        cell: int = Field(4, ge=1, description="height and width of a cell, in pixels")

    def __init__(self, options: Options, context: PartContext) -> None:
        pt, ph, pw = context.patch
        if ph % options.cell or pw % options.cell:
            what = f"a patch of {ph}x{pw} pixels does not divide into cells of {options.cell}"
            raise PartError(what, hint="change cell, or the backbone's patch")
        self.cell = options.cell
        self.patch = (pt, ph // self.cell, pw // self.cell)  # in cells
        self.out_dim = pt * self.patch[1] * self.patch[2] * context.channels

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn pixels ``[B, C, T, H, W]`` in [0, 1] into the truth ``[B, Q, out_dim]``."""
        means = F.avg_pool3d(views[0].float(), (1, self.cell, self.cell))
        return gather(patchify(means, self.patch), mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare ``[B, Q, out_dim]`` with the truth: float32 ``[B, Q]``."""
        return (pred.float() - target).square().mean(dim=-1)
