"""Decoders with one fault each, by the promise that they break; and decoders without."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import Block
from maekit.tokens import Mask, gather

WIDTH = 16


class Honest(Decoder, nn.Module):
    """Queries, each the mask token at its place, and encoded tokens in one block."""

    class Options(PartOptions):
        heads: int = Field(2, ge=1, description="of attention")

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__()
        self.context = context
        self.embed = nn.Linear(context.width, WIDTH)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.table = nn.Parameter(torch.randn(context.grid.tokens, WIDTH))
        self.block = Block(WIDTH, options.heads)
        self.head = nn.Linear(WIDTH, context.out_dim)

    def places(self, mask: Mask) -> Tensor:
        return mask.queries

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        seen = self.embed(encoded.tokens)
        asked = self.token + self.table[self.places(mask)]
        x, _ = self.block(torch.cat([seen, asked], dim=1))
        pred: Tensor = self.head(x[:, seen.shape[1] :])
        return pred


class WrongShape(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(encoded, mask, grid)[..., :-1]


class WrongForClips(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        pred = super().forward(encoded, mask, grid)
        return pred if grid.t == 1 else pred[..., :-1]


class IgnoresOrder(Honest):
    def places(self, mask: Mask) -> Tensor:
        return mask.queries.sort(dim=1).values


class HiddenOnly(Honest):
    """Right only where the queries are what is hidden."""

    def places(self, mask: Mask) -> Tensor:
        everywhere = torch.arange(mask.tokens).expand(mask.queries.shape[0], -1)
        count = mask.tokens - mask.visible.shape[1]
        return everywhere[mask.hidden()].reshape(-1, count)


class MixesSamples(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        pred = super().forward(encoded, mask, grid)
        return pred - pred.mean((0, 1), keepdim=True)


class Detached(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(Encoded(encoded.tokens.detach()), mask, grid)


class DetachedHalf(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        pred = super().forward(encoded, mask, grid)
        return 0.5 * pred + 0.5 * pred.detach()


class Unused(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.spare = nn.Linear(4, 4)


class ItemInConstructor(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]


class IgnoresTokens(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(Encoded(encoded.tokens * 0), mask, grid)


class SamePlace(Honest):
    def places(self, mask: Mask) -> Tensor:
        return mask.queries * 0


class Dropout(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return torch.dropout(super().forward(encoded, mask, grid), 0.1, train=True)


class InPlace(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        with torch.no_grad():
            encoded.tokens.mul_(0.5)
        return super().forward(encoded, mask, grid)


class OnTheCPU(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.shift = [torch.randn(WIDTH)]
        self.constant = torch.linspace(0, 1, context.out_dim)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(encoded, mask, grid) + self.constant


class Unsaved(Honest):
    """Computes with random numbers that no weights hold."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.register_buffer("noise", torch.randn(context.out_dim), persistent=False)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(encoded, mask, grid) * self.noise  # type: ignore[operator]


class Float64(Honest):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(encoded, mask, grid).double()


class NoAutocast(Honest):
    """Joins its own float32 with what autocast made, where dtypes must agree."""

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        seen = self.embed(encoded.tokens)
        everything = self.token.expand(len(seen), mask.tokens, -1).clone()
        index = mask.visible[..., None].expand(-1, -1, WIDTH)
        whole = everything.scatter(1, index, seen[:, self.context.prefix_tokens :])
        x, _ = self.block(whole + self.table)
        pred: Tensor = self.head(gather(x, mask.queries))
        return pred


class UnknownNoDecay(Honest):
    def no_decay(self) -> list[str]:
        return ["mask_token"]


class LayersBeyond(Honest):
    layers = (0, 7)


REVIEWED: dict[type[Decoder], str] = {
    WrongShape: "predicts_every_hidden_token",
    IgnoresOrder: "follows_the_order_of_the_queries",
    HiddenOnly: "predicts_whatever_is_queried",
    MixesSamples: "keeps_samples_apart",
    Detached: "gradients_reach_the_encoder",
    ItemInConstructor: "is_built_on_the_meta_device",
}
MORE: dict[type[Decoder], str] = {
    WrongForClips: "predicts_every_hidden_token",
    DetachedHalf: "gradients_are_those_of_what_it_computes",
    Unused: "every_parameter_is_trained",
    IgnoresTokens: "depends_on_what_was_encoded",
    SamePlace: "depends_on_which_tokens_are_queried",
    Dropout: "predicts_the_same_each_time",
    InPlace: "leaves_tokens_as_they_are",
    OnTheCPU: "computes_where_its_input_is",
    Unsaved: "resumes_as_if_never_stopped",
    Float64: "predicts_every_hidden_token",
    NoAutocast: "computes_under_autocast",
    UnknownNoDecay: "no_decay_names_its_parameters",
    LayersBeyond: "asks_for_layers_that_there_are",
}


class Deep(Honest):
    """Correct: mixes in what the first block of the encoder returned."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.layers = (0,)
        self.early = nn.Linear(context.layer_widths[0], WIDTH)
        self.gate = nn.Parameter(torch.zeros(()))  # closed at first, as ControlNet's and ReZero's

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        asked = self.token + self.table[self.places(mask)]
        seen = self.embed(encoded.tokens) + self.gate * self.early(encoded.layers[0])
        x, _ = self.block(torch.cat([seen, asked], dim=1))
        pred: Tensor = self.head(x[:, seen.shape[1] :])
        return pred


class Convolved(Honest):
    """Correct: fills the grid, and mixes neighbors."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        del self.block
        self.options = options
        self.mix = nn.Conv3d(WIDTH, WIDTH, 3, padding=1, groups=options.heads)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        tokens = self.embed(encoded.tokens[:, self.context.prefix_tokens :])
        whole = tokens
        if self.context.returns == "visible":
            index = mask.visible[..., None].expand(-1, -1, WIDTH)
            blank = self.token.to(tokens.dtype).expand(len(tokens), mask.tokens, -1)
            whole = blank.scatter(1, index, tokens)
        placed = (whole + self.table).transpose(1, 2).unflatten(2, tuple(grid))
        mixed = placed + self.mix(placed)
        pred: Tensor = self.head(gather(mixed.flatten(2).transpose(1, 2), mask.queries))
        return pred


class OnlyImages(Honest):
    """Correct: refuses clips."""

    def __init__(self, options: Any, context: PartContext) -> None:
        if context.grid.t > 1:
            raise PartError("clips are beyond it", hint="data.train.frames: 1")
        super().__init__(options, context)


CORRECT = (Honest, Deep, Convolved, OnlyImages)
