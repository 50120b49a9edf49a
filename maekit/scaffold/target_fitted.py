"""``my-part``: patches, as deviations from the mean patch of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from maekit.contracts import PartContext, PartError, PartOptions, Target, WeightsError
from maekit.tokens import Mask, gather, patchify


class MyPart(Target):
    """Fits mean and deviation of every pixel of a patch, and predicts what differs from them."""

    class Options(PartOptions):
        """Options of ``my-part``."""

        least: float = Field(0.01, gt=0, description="deviation that is taken where it is smaller")

    def __init__(self, options: Options, context: PartContext) -> None:
        self.least = options.least
        self.patch = context.patch
        pt, ph, pw = context.patch
        self.out_dim = pt * ph * pw * context.channels
        self.fitted: dict[str, Tensor] = {}

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Take mean and deviation over all patches of the first batches."""
        patches = [patchify(views[0].float(), self.patch).flatten(0, 1) for views in batches]
        if not patches:
            raise PartError("there is nothing to fit to", hint="look at data.train")
        std, mean = torch.std_mean(torch.cat(patches), dim=0)
        self.load_state({"mean": mean, "std": std.clamp_min(self.least)})

    def state(self) -> Mapping[str, Tensor]:
        """Return what was fitted, ``mean`` and ``std``: it is kept with the weights."""
        return dict(self.fitted)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``state`` returned."""
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != {"mean": (self.out_dim,), "std": (self.out_dim,)}:
            raise WeightsError(f"this target has mean and std of {self.out_dim}, not {shapes}")
        self.fitted = dict(tensors)

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn pixels ``[B, C, T, H, W]`` in [0, 1] into the truth ``[B, Q, out_dim]``."""
        patches = gather(patchify(views[0].float(), self.patch), mask.queries)
        mean, std = (self.fitted[name].to(patches.device) for name in ("mean", "std"))
        return (patches - mean) / std

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare ``[B, Q, out_dim]`` with the truth: float32 ``[B, Q]``."""
        return (pred.float() - target).square().mean(dim=-1)
