"""Backbones with one fault each, by the promise that they break; and backbones without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Backbone, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import Block, PatchEmbedding, Positions
from maekit.tokens import Mask, gather, patchify

WIDTH = 16


class Honest(Backbone, nn.Module):
    """Two blocks over visible patches, and a class token."""

    class Options(PartOptions):
        depth: int = Field(2, ge=1, description="blocks")

    patch = (1, 8, 8)
    width = WIDTH
    prefix_tokens = 1

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__()
        self.embed = PatchEmbedding(context.channels, WIDTH, self.patch)
        self.positions = Positions("learned", self.grid(context.shape), WIDTH)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.layers = nn.ModuleList(Block(WIDTH, 2) for _ in range(options.depth))
        self.norm = nn.LayerNorm(WIDTH)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        if any(size % step for size, step in zip(shape, self.patch, strict=True)):
            raise PartError(f"{shape} does not divide into {self.patch}", hint="data.size")
        return Grid(*(size // step for size, step in zip(shape, self.patch, strict=True)))

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        x = self.embed(gather(patchify(pixels, self.patch), mask.visible))
        return x + self.positions()[mask.visible]  # type: ignore[no-any-return]

    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        x = self.embedded(pixels, mask)
        x = torch.cat([self.class_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        taken, maps = [], []
        for index, block in enumerate(self.layers):
            x, weights = block(x, attention)
            if index in layers:
                taken.append(x)
            if weights is not None:
                maps.append(weights)
        return Encoded(self.norm(x), tuple(taken), tuple(maps))

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def layer_of(self, parameter: str) -> int:
        if parameter.startswith("layers."):
            return int(parameter.split(".")[1]) + 1
        return len(self.layers) + 1 if parameter.startswith("norm.") else 0

    def last_norm(self) -> nn.Module:
        return self.norm


class Leaks(Honest):
    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        return super().embedded(pixels, mask) + pixels.mean((1, 2, 3, 4))[:, None, None]


class BatchNorm(Honest):
    """Normalizes by statistics of all pixels while training."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.bn = nn.BatchNorm3d(context.channels)

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        return super().embedded(self.bn(pixels), mask)


class ForgetsItsPrefix(Honest):
    def forward(self, pixels: Tensor, mask: Mask, layers: Any = (), attention: bool = False) -> Any:
        found = super().forward(pixels, mask, layers, attention)
        return replace(found, tokens=found.tokens[:, 1:])


class WrongOrder(Honest):
    def forward(self, pixels: Tensor, mask: Mask, layers: Any = (), attention: bool = False) -> Any:
        found = super().forward(pixels, mask, layers, attention)
        tokens = torch.cat([found.tokens[:, :1], found.tokens[:, 1:].flip(1)], dim=1)
        return replace(found, tokens=tokens)

    def last_norm(self) -> None:  # type: ignore[override]
        return None


class ItemInConstructor(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, options.depth)]


class Detached(Honest):
    def forward(self, pixels: Tensor, mask: Mask, layers: Any = (), attention: bool = False) -> Any:
        found = super().forward(pixels, mask, layers, attention)
        return replace(found, tokens=found.tokens.detach())


class DetachedPartly(Honest):
    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        x = super().embedded(pixels, mask)
        return torch.cat([x[:, :2], x[:, 2:].detach()], dim=1)


class Unused(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.spare = nn.Parameter(torch.zeros(3))


class InPlace(Honest):
    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        return super().embedded(pixels.mul_(0.5), mask)


class LumpsBlocks(Honest):
    def layer_of(self, parameter: str) -> int:
        return min(super().layer_of(parameter), 1)


class UnknownNoDecay(Honest):
    def no_decay(self) -> list[str]:
        return ["cls_token"]


class NeverRefuses(Honest):
    def grid(self, shape: tuple[int, int, int]) -> Grid:
        return Grid(*(size // step for size, step in zip(shape, self.patch, strict=True)))


class LayersReversed(Honest):
    def forward(self, pixels: Tensor, mask: Mask, layers: Any = (), attention: bool = False) -> Any:
        found = super().forward(pixels, mask, layers, attention)
        return replace(found, layers=found.layers[::-1])


class DrawsInEvaluation(Honest):
    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        return torch.dropout(super().embedded(pixels, mask), 0.1, train=True)


class MixesSamples(Honest):
    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        x = super().embedded(pixels, mask)
        return x - x.mean((0, 1), keepdim=True)


class WrongWidth(Honest):
    width = 2 * WIDTH


class WrongPatch(Honest):
    patch = (1, 8, 8)

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.patch = (1, 4, 4)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        t, h, w = shape
        if h % 8 or w % 8:
            raise PartError("does not divide", hint="data.size")
        return Grid(t, h // 8, w // 8)

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        x = self.embed(gather(patchify(pixels, (1, 8, 8)), mask.visible))
        return x + self.positions()[mask.visible]  # type: ignore[no-any-return]


class OnTheCPU(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.shift = torch.linspace(0, 1, WIDTH)

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        return super().embedded(pixels, mask) + self.shift


class NoAutocast(Honest):
    """Joins its own float32 with what autocast made, where dtypes must agree."""

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        patches = patchify(pixels, self.patch)
        everything = torch.zeros(
            len(pixels), mask.tokens, WIDTH, dtype=pixels.dtype, device=pixels.device
        )
        index = mask.visible[..., None].expand(-1, -1, WIDTH)
        x = self.embed(gather(patches, mask.visible))
        whole = everything.scatter(1, index, x)
        return gather(whole, mask.visible) + self.positions()[mask.visible]  # type: ignore[no-any-return]


class Float64(Honest):
    def forward(self, pixels: Tensor, mask: Mask, layers: Any = (), attention: bool = False) -> Any:
        found = super().forward(pixels, mask, layers, attention)
        return replace(found, tokens=found.tokens.double())


class Unsaved(Honest):
    """Computes with random numbers that no weights hold."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.register_buffer("noise", torch.randn(WIDTH), persistent=False)

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        return super().embedded(pixels, mask) * self.noise  # type: ignore[operator]


class Remembers(Honest):
    last: Any = None

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        x = super().embedded(pixels, mask)
        before, self.last = self.last, x.detach().mean((0, 1))
        return x if before is None else x + before


class SkipsABlock(Honest):
    def blocks(self) -> Sequence[nn.Module]:
        return [*self.layers, nn.Identity()]


class OtherNorm(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.other = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1.0)

    def last_norm(self) -> nn.Module:
        return self.other


class WrongAttention(Honest):
    def forward(self, pixels: Tensor, mask: Mask, layers: Any = (), attention: bool = False) -> Any:
        found = super().forward(pixels, mask, layers, attention)
        return replace(found, attention=tuple(2 * each for each in found.attention))


class DeadOption(Honest):
    class Options(Honest.Options):
        drop_rate: float = Field(0.0, description="read by nobody")


class UnitThatDoesNotDivide(Honest):
    mask_unit = (1, 5, 5)


REVIEWED: dict[type[Backbone], str] = {
    Leaks: "sees_nothing_that_is_hidden",
    BatchNorm: "sees_nothing_that_is_hidden_while_training",
    ForgetsItsPrefix: "returns_the_tokens_that_it_declares",
    WrongOrder: "tokens_stand_in_the_order_of_the_mask",
    ItemInConstructor: "is_built_on_the_meta_device",
    Detached: "gradients_are_those_of_what_it_computes",
    DetachedPartly: "gradients_are_those_of_what_it_computes",
    Unused: "every_parameter_is_trained",
    InPlace: "leaves_pixels_as_they_are",
    LumpsBlocks: "layer_of_follows_its_blocks",
    UnknownNoDecay: "no_decay_names_its_parameters",
    NeverRefuses: "refuses_a_clip_that_does_not_divide",
    LayersReversed: "layers_are_what_its_blocks_return",
    DrawsInEvaluation: "encodes_the_same_each_time",
}
MORE: dict[type[Backbone], str] = {
    MixesSamples: "keeps_samples_apart",
    WrongWidth: "returns_the_tokens_that_it_declares",
    WrongPatch: "patches_make_up_its_grid",
    OnTheCPU: "computes_where_its_input_is",
    NoAutocast: "computes_under_autocast",
    Float64: "returns_the_tokens_that_it_declares",
    Unsaved: "resumes_as_if_never_stopped",
    Remembers: "encodes_the_same_each_time",
    SkipsABlock: "blocks_are_called_in_their_order",
    OtherNorm: "last_norm_follows_the_last_block",
    WrongAttention: "attention_is_that_of_its_blocks",
    DeadOption: "every_option_is_read",
    UnitThatDoesNotDivide: "is_built_for_a_clip",
}


class Units(Honest):
    """Correct: hides units of two by two tokens, as Hiera's are."""

    mask_unit = (1, 2, 2)
    patch = (1, 4, 4)
    prefix_tokens = 0

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        del self.class_token
        self.class_token = nn.Parameter(torch.zeros(1, 0, WIDTH), requires_grad=False)


class Everything(Honest):
    """Correct: feeds the mask token to the encoder, and returns all tokens."""

    returns = "all"

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.mask_token = nn.Parameter(torch.randn(1, 1, WIDTH))

    def embedded(self, pixels: Tensor, mask: Mask) -> Tensor:
        x = self.embed(gather(patchify(pixels, self.patch), mask.visible))
        index = mask.visible[..., None].expand(-1, -1, WIDTH)
        everything = self.mask_token.to(x.dtype).expand(len(x), mask.tokens, -1)
        return everything.scatter(1, index, x) + self.positions()


class OfClips(Honest):
    """Correct: takes clips alone, two frames a patch."""

    patch = (2, 8, 8)


CORRECT = (Honest, Units, Everything, OfClips)
