"""Pixel targets: raw (MAE section 3) and normalized by each patch's own statistics.

MAE and VideoMAE disagree on how a patch is normalized; each disagreement is an option. Variances
are unbiased in both. Which frames of a clip are to be predicted is VideoMAE's table 1c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import Grid, PartContext, PartOptions, PixelTarget, View
from maekit.errors import PartError
from maekit.recipe.sections import american
from maekit.tokens import Mask, gather, interpolate_from_visible, patchify

LossName = Literal["mse", "l1", "smooth-l1"]
LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth-l1": F.smooth_l1_loss}


class Pixel(PixelTarget):
    """The pixels of a patch: ``pt*ph*pw*C`` values with c fastest.

    With ``frames: center`` there are ``ph*pw*C`` of the clip's frame ``T // 2``, and only the
    tokens of its time slot can be queries; with ``frames: double`` ``2*pt*ph*pw*C``, of twice the
    frames over the same time; with ``frames: first`` ``ph*pw*C``, of the first in each slot. With a
    number F of the T frames there are ``F*pt/T*ph*pw*C``.

    Raises:
        PartError: a number of frames that the clip does not have, or that its time slots do not
            share evenly.
    """

    class Options(PartOptions):
        space: Annotated[Literal["normalized", "unit"], BeforeValidator(american)] = Field(
            "normalized",
            description="normalized: after data.stats (MAE); unit: [0, 1] pixels (VideoMAE)",
        )
        loss: LossName = Field("mse", description="per value, averaged over a patch")
        frames: Literal["same", "center", "double", "first"] | Annotated[int, Field(ge=1)] = Field(
            "same",
            description="same: the clip that the encoder sees; center: its middle frame alone; "
            "double: twice the frames at half the stride (VideoMAE table 1c); first: the first of "
            "each time slot (PySlowFast: every second of 16); a number: as many of its frames, "
            "evenly from the first to the last (mae_st: 8 of 16)",
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        self.grid = context.grid
        self.patch = context.patch
        self.channels = context.channels
        frames, height, width = context.shape
        pt, ph, pw = context.patch
        self.slot = frames // 2 // max(1, pt)  # where the middle frame is
        if options.frames == "double":
            self.views = (View("double", (height, width), None, 2 * frames),)
            depth = 2 * pt
        else:
            # Of each time slot the frames that are predicted, by their place in it: int64 [t, d].
            self.places = _places(options.frames, frames, pt)
            depth = self.places.shape[1]
        self.values = depth * ph * pw * context.channels
        self.out_dim = self.values
        self.mean, self.std = context.mean, context.std

    def wants(self, grid: Grid) -> NDArray[np.bool_]:
        """Return bool ``[t, h, w]``: which tokens can be queries."""
        wanted = np.ones(grid, dtype=np.bool_)
        if self.options.frames == "center":
            wanted[:] = False
            wanted[self.slot] = True
        return wanted

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn clips ``[B, C, T, H, W]`` in [0, 1] into the truth ``[B, Q, out_dim]``."""
        return gather(self._truth(views), mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare ``[B, Q, out_dim]`` with the truth: float32 ``[B, Q]``."""
        each = LOSSES[self.options.loss](pred.float(), target, reduction="none")
        return each.mean(dim=-1)

    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,  # noqa: ARG002 (raw pixels have no statistics to undo)
        mask: Mask,  # noqa: ARG002
        statistics: Literal["visible", "truth"] = "visible",  # noqa: ARG002
    ) -> Tensor:
        """Turn predictions ``[B, Q, out_dim]`` into patches ``[B, Q, pt*ph*pw*C]`` in [0, 1].

        Of twice the frames, those that the clip has too; of fewer, each stands for its share of the
        slot.
        """
        return self._in_clip(self._to_unit(pred.float()))

    def _truth(self, views: Sequence[Tensor]) -> Tensor:
        """Return what any token may have to predict, ``[B, N, values]``, in the target's space."""
        if self.options.frames != "double":
            return self._patches(views[0])
        pt, ph, pw = self.patch
        return self._to_space(patchify(views[1].float(), (2 * pt, ph, pw)))

    def _patches(self, pixels: Tensor) -> Tensor:
        """Return all patches of the model's own clip in the target's space, ``[B, N, ...]``.

        Those of the frames that are predicted; with ``frames: center`` of each slot the one that
        stands where the middle frame does.
        """
        patches = self._to_space(patchify(pixels.float(), self.patch))
        pt = self.patch[0]
        if self.options.frames in ("same", "double"):
            return patches
        slots = patches.unflatten(1, (self.grid.t, -1)).unflatten(-1, (pt, -1))
        places = self.places.to(patches.device)
        chosen = slots[:, torch.arange(self.grid.t)[:, None], :, places]  # [t, d, B, h*w, ...]
        ordered: Tensor = chosen.permute(2, 0, 3, 1, 4)
        return ordered.flatten(1, 2).flatten(2)

    def _in_clip(self, patches: Tensor) -> Tensor:
        """Spread patches ``[B, Q, values]`` of the target's frames over those of the clip."""
        if self.options.frames == "same":
            return patches
        pt = self.patch[0]
        if self.options.frames == "double":
            source = torch.arange(pt) * 2
            depth = 2 * pt
        else:
            depth = self.places.shape[1]
            source = torch.arange(pt) * depth // pt
        shared: Tensor = patches.unflatten(-1, (depth, -1))[..., source.to(patches.device), :]
        return shared.flatten(-2)

    def _to_space(self, patches: Tensor) -> Tensor:
        if self.options.space == "unit":
            return patches
        return (patches - self._repeated(self.mean, patches)) / self._repeated(self.std, patches)

    def _to_unit(self, patches: Tensor) -> Tensor:
        if self.options.space == "unit":
            return patches
        return patches * self._repeated(self.std, patches) + self._repeated(self.mean, patches)

    def _repeated(self, per_channel: Sequence[float], like: Tensor) -> Tensor:
        return like.new_tensor(per_channel).repeat(like.shape[-1] // self.channels)


def _places(which: str | int, frames: int, pt: int) -> Tensor:
    """Return the frames of each time slot that are predicted: int64 ``[t, d]``, in 0..pt-1.

    Numbers of frames are spread as mae_st spreads them, ``linspace(0, T - 1, F)`` rounded down
    (models_mae.py, forward_loss): 0, 2, 4, 6, 8, 10, 12, 15 are 8 of 16.

    Raises:
        PartError: the clip has fewer, or its slots do not share them evenly.
    """
    slots = frames // max(1, pt)
    if which == "same":
        return torch.arange(pt).expand(slots, -1)
    if which == "first":
        return torch.zeros(slots, 1, dtype=torch.int64)
    if not isinstance(which, int):
        return torch.full((slots, 1), frames // 2 % max(1, pt))
    if which > frames or which % slots:
        msg = f"{which} of {frames} frames do not share out over {slots} time slots"
        fitting = range(slots, frames + 1, slots)
        hint = f"give {' or '.join(map(str, fitting))}, or same, first, center or double"
        raise PartError(msg, where="pretrain.target.frames", hint=hint)
    # PyTorch's float32 linspace, as there: computed exactly, a few clips would round otherwise.
    return torch.linspace(0, frames - 1, which).long().view(slots, -1) % pt


class NormPixel(Pixel):
    """The pixels of a patch, normalized by the mean and unbiased variance of that patch."""

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
        """Turn clips ``[B, C, T, H, W]`` in [0, 1] into the truth ``[B, Q, out_dim]``."""
        patches = gather(self._truth(views), mask.queries)
        mean, std = self._statistics(patches)
        return self._flat((self._grouped(patches) - mean) / std)

    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,
        mask: Mask,
        statistics: Literal["visible", "truth"] = "visible",
    ) -> Tensor:
        """Turn predictions ``[B, Q, out_dim]`` into patches ``[B, Q, pt*ph*pw*C]`` in [0, 1].

        ``visible`` interpolates each patch's mean and deviation from visible patches; ``truth``
        takes them from the hidden patches themselves: a picture that leaks the answer, for
        comparison only.
        """
        patches = self._patches(pixels)
        if statistics == "truth":
            mean, std = self._statistics(gather(patches, mask.queries))
        else:
            seen = self._statistics(gather(patches, mask.visible))
            mean, std = (
                interpolate_from_visible(value.flatten(2), mask, self.grid).unsqueeze(2)
                for value in seen
            )
        return self._in_clip(self._to_unit(self._flat(self._grouped(pred.float()) * std + mean)))

    def _grouped(self, patches: Tensor) -> Tensor:
        """Group values ``[B, Q, values, groups]``: all in one group, or one per channel."""
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
