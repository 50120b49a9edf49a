"""Parts of another distribution that several ranks must get along with, or notice."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maekit.contracts import Backbone, Decoder, Encoded, Grid, PartContext, PartOptions, Target
from maekit.tokens import Mask, gather


class Follower(Target):
    """Features of a moving average of the encoder, which is told of each update."""

    class Options(PartOptions):
        """None."""

    def __init__(self, options: Options, context: PartContext) -> None:
        self.out_dim = context.width
        self.prefix = context.prefix_tokens

    def attach(self, backbone: Backbone) -> None:
        self.student = [backbone]
        self.teacher = copy.deepcopy(backbone).requires_grad_(False).eval()

    def after_update(self, step: int, steps: int) -> None:
        pairs = zip(self.teacher.parameters(), self.student[0].parameters(), strict=True)
        for mean, current in pairs:
            mean.lerp_(current, 0.5)

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        whole = Mask.nothing_hidden(len(views[0]), mask.tokens)
        return gather(self.teacher(views[0] - 0.5, whole).tokens[:, self.prefix :], mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred.float() - target).square().mean(dim=-1)


class Astray(Decoder, nn.Module):
    """Changes a parameter of its own by what it sees: no gradient tells other ranks."""

    class Options(PartOptions):
        """None."""

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        self.head = nn.Linear(context.width, context.out_dim)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        seen = encoded.tokens.mean(dim=1, keepdim=True)
        with torch.no_grad():
            self.head.bias.add_(seen.mean())
        return self.head(seen).expand(-1, mask.queries.shape[1], -1)
