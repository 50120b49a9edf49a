"""Targets with one fault each, by the promise that they break; and targets without."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import (
    Backbone,
    Grid,
    PartContext,
    PartOptions,
    PixelTarget,
    Target,
    View,
)
from maekit.tokens import Mask, gather, patchify


class Honest(PixelTarget):
    """The pixels of a patch."""

    class Options(PartOptions):
        scale: float = Field(1.0, gt=0, description="that pixels are multiplied by")

    def __init__(self, options: Any, context: PartContext) -> None:
        self.options, self.context = options, context
        pt, ph, pw = context.patch
        self.out_dim = pt * ph * pw * context.channels

    def patches(self, views: Sequence[Tensor]) -> Tensor:
        return patchify(views[0].float(), self.context.patch) * self.options.scale

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return gather(self.patches(views), mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred.float() - target).square().mean(-1)

    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        return pred.float() / self.options.scale


class AllTokens(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return self.patches(views)


class AtVisible(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        truth = gather(self.patches(views), mask.visible)
        count = mask.queries.shape[1]
        return truth.repeat(1, -(-count // truth.shape[1]), 1)[:, :count]


class OtherOrder(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return gather(self.patches(views), mask.queries.sort(dim=1).values)


class AsIfUnset(Honest):
    """Takes an option that is not written for another than the same one that is."""

    def patches(self, views: Sequence[Tensor]) -> Tensor:
        return super().patches(views) * (1 if self.options.model_fields_set else 2)


class ReversedOrder(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return super().encode(views, mask).flip(1)


class Neighbor(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return gather(self.patches(views), (mask.queries + 1) % mask.tokens)


class ScalarLoss(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(pred, target).mean()


class ExpandedLoss(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        each = super().loss(pred, target)
        return each.mean().expand_as(each)


class HalfLoss(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(pred, target).bfloat16()


class HalfUnderAutocast(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target.to(pred)).square().mean(-1)


class WidthOfOne(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return super().encode(views, mask).mean(-1, keepdim=True)


class OutDimOfOne(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.out_dim = 1


class HalfOfTheValues(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        half = self.out_dim // 2
        return super().loss(pred[..., :half], target[..., :half])


class InPlace(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        views[0].mul_(0.5)
        return super().encode(views, mask)


class DrawsInEncode(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        truth = super().encode(views, mask)
        return truth + 0.01 * torch.randn_like(truth)


class Fitted(Honest):
    """Subtracts the mean patch."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.mean = torch.zeros(self.out_dim)

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        self.mean = torch.cat([self.patches(v).flatten(0, 1) for v in batches]).mean(0)

    def state(self) -> Mapping[str, Tensor]:
        return {"mean": self.mean}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.mean = tensors["mean"]

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return super().encode(views, mask) - self.mean.to(views[0].device)

    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        return (pred.float() + self.mean.to(pred.device)) / self.options.scale


class ForgetsItsState(Fitted):
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class KeepsNothing(Fitted):
    def state(self) -> Mapping[str, Tensor]:
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class DividesByDeviation(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        truth = super().encode(views, mask)
        return (truth - truth.mean(-1, keepdim=True)) / truth.std(-1, keepdim=True)


class TrainedAndLost(Honest, nn.Module):
    def __init__(self, options: Any, context: PartContext) -> None:
        nn.Module.__init__(self)
        super().__init__(options, context)
        self.temperature = nn.Parameter(torch.ones(()))

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(pred * self.temperature, target)


class Frozen(Honest):
    """Projects patches by a fixed matrix."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.values, self.out_dim = self.out_dim, 16
        self.projection = torch.zeros(self.values, 16)

    def open(self) -> Mapping[str, object]:
        generator = torch.Generator().manual_seed(0)
        self.projection = torch.randn(self.values, 16, generator=generator)
        return {}

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        truth: Tensor = gather(self.patches(views), mask.queries)
        with torch.autocast(truth.device.type, enabled=False):
            return truth @ self.projection.to(truth.device)

    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        return pred.float() @ self.projection.to(pred.device).T


class AnotherNetworkEachTime(Frozen):
    def open(self) -> Mapping[str, object]:
        self.projection = torch.randn(self.values, 16)
        return {}


class PinsWhatItHasNot(Frozen):
    def open(self) -> Mapping[str, object]:
        super().open()
        return {"checksum": "0"}


class DrawnInTheConstructor(Frozen):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.projection = torch.randn(self.values, 16)

    def open(self) -> Mapping[str, object]:
        return {}


class LooksAtHidden(Honest):
    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        return pred.float() * pixels.std()


class WrongPainting(Honest):
    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        return pred[..., :-1]


class Detached(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(pred.detach(), target)


class DetachedHalf(Honest):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(0.5 * pred + 0.5 * pred.detach(), target)


class DeadOption(Honest):
    class Options(Honest.Options):
        eps: float = Field(1e-6, description="read by nobody")


class ItemInConstructor(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.half = torch.linspace(0, 1, 3)[1].item()


class MixesSamples(Honest):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        truth = super().encode(views, mask)
        return truth - truth.mean((0, 1))


class OnTheCPU(Honest):
    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.shift = torch.linspace(0, 1, self.out_dim)

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return super().encode(views, mask) + self.shift


class WantsNothing(Honest):
    def wants(self, grid: Grid) -> Any:
        return np.zeros(grid.tokens, dtype=np.bool_)


class Teacher(Honest):
    """Follows the encoder as a moving average, and predicts what it makes of whole clips."""

    teacher: Any = None
    kept: Mapping[str, Tensor] | None = None

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.out_dim = context.width

    def attach(self, backbone: Backbone) -> None:
        self.student = backbone
        self.teacher = copy.deepcopy(backbone).requires_grad_(False).eval()
        if self.kept:
            self.teacher.load_state_dict(dict(self.kept))

    def after_update(self, step: int, steps: int) -> None:
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for mine, its in pairs:
            mine.lerp_(its, 0.25)

    def state(self) -> Mapping[str, Tensor]:
        return {} if self.teacher is None else dict(self.teacher.state_dict())

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.kept = tensors
        if self.teacher is not None:
            self.teacher.load_state_dict(dict(tensors))

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        whole = Mask.nothing_hidden(len(views[0]), mask.tokens, views[0].device)
        tokens = self.teacher(views[0], whole).tokens[:, self.context.prefix_tokens :]
        return gather(tokens.float(), mask.queries)

    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        patch = self.context.patch
        size = patch[0] * patch[1] * patch[2] * self.context.channels
        return pred.float().mean(-1, keepdim=True).expand(-1, -1, size)


class TeacherStartsAnew(Teacher):
    """Resumes from the encoder instead of from its own average."""

    def attach(self, backbone: Backbone) -> None:
        self.kept = None
        super().attach(backbone)


REVIEWED: dict[type[Target], str] = {
    AllTokens: "encodes_the_queries",
    AtVisible: "follows_the_order_of_the_queries",
    OtherOrder: "follows_the_order_of_the_queries",
    ScalarLoss: "loss_is_one_number_for_each_query",
    HalfLoss: "loss_is_float32",
    OutDimOfOne: "truth_is_as_wide_as_predictions",
    WidthOfOne: "truth_is_as_wide_as_predictions",
    InPlace: "leaves_views_as_they_are",
    DrawsInEncode: "encodes_the_same_each_time",
    ForgetsItsState: "comes_back_from_its_state",
    KeepsNothing: "comes_back_from_its_state",
    DividesByDeviation: "is_finite_on_flat_pictures",
    TrainedAndLost: "trains_nothing_that_is_not_kept",
    AnotherNetworkEachTime: "opens_the_same_network_each_time",
    LooksAtHidden: "paints_from_what_is_visible",
    DeadOption: "every_option_is_read",
}
MORE: dict[type[Target], str] = {
    AsIfUnset: "is_the_same_from_a_resolved_recipe",
    ReversedOrder: "follows_the_order_of_the_queries",
    Neighbor: "encodes_what_is_at_the_queries",
    ExpandedLoss: "loss_is_one_number_for_each_query",
    HalfUnderAutocast: "loss_is_float32",
    HalfOfTheValues: "loss_trains_every_prediction",
    PinsWhatItHasNot: "opens_the_same_network_each_time",
    DrawnInTheConstructor: "comes_back_from_its_state",
    WrongPainting: "paints_whole_patches",
    Detached: "loss_trains_every_prediction",
    DetachedHalf: "loss_trains_every_prediction",
    ItemInConstructor: "is_built_on_the_meta_device",
    MixesSamples: "keeps_samples_apart",
    OnTheCPU: "computes_where_its_input_is",
    WantsNothing: "wants_are_tokens",
    TeacherStartsAnew: "comes_back_from_its_state",
}


class Larger(Honest):
    """Correct: asks for a view of twice the size."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        _, height, width = context.shape
        self.views = (View("larger", (2 * height, 2 * width)),)
        pt, ph, pw = context.patch
        self.large = (pt, 2 * ph, 2 * pw)
        self.out_dim *= 4

    def patches(self, views: Sequence[Tensor]) -> Tensor:
        return patchify(views[1].float(), self.large) * self.options.scale

    def decode(self, pred: Tensor, pixels: Tensor, mask: Mask, statistics: Any = "visible") -> Any:
        return pred.float()[..., ::4]


class Named(Honest):
    """Correct: names of its own beside the contract's, and options that are taken all at once."""

    def __init__(self, options: Any, context: PartContext) -> None:
        super().__init__(options, context)
        self.encoder = nn.Identity()
        self.settings = vars(options) | dict(options)


CORRECT = (Honest, Named, Fitted, Frozen, Larger, Teacher)
