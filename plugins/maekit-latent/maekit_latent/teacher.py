"""A teacher that follows the encoder: an exponential moving average of its parameters."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maekit.contracts import Backbone, PartContext, PartError, PartOptions, Target, WeightsError
from maekit.layers import Positions
from maekit.tokens import Mask, gather

if TYPE_CHECKING:
    from typing import Self


class TeacherOptions(PartOptions):
    """How the teacher follows."""

    decay: float = Field(
        0.996, ge=0, le=1, description="share of itself that the teacher keeps at each update"
    )
    decay_end: float | None = Field(
        None, ge=0, le=1, description="the same at the end of `ramp`; unset: as `decay`"
    )
    ramp: float = Field(
        1.0, gt=0, le=1, description="share of the run's updates in which decay goes to decay_end"
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.decay_end is not None and self.decay_end < self.decay:
            raise ValueError(f"decay_end: {self.decay_end} is below decay, {self.decay}")
        return self

    def decay_at(self, step: int, steps: int) -> float:
        """Return the decay of an update, numbered from 1."""
        end = self.decay if self.decay_end is None else self.decay_end
        return self.decay + (end - self.decay) * min(1.0, step / (self.ramp * steps))


class LatentTarget(Target):
    """Predicts what the encoder's moving average makes of the whole, unmasked clip.

    The average is a copy of the encoder (positions and buffers included) and is kept with every
    checkpoint and with the weights, so that a resumed run goes on as it was.
    """

    def __init__(self, options: TeacherOptions, context: PartContext) -> None:
        self.options = options
        self.prefix_tokens = context.prefix_tokens
        self.mean, self.std = context.mean, context.std
        self.out_dim = context.width
        self._teacher: Backbone | None = None
        self._student: Backbone | None = None
        self._loaded: dict[str, Tensor] = {}

    def attach(self, backbone: Backbone) -> None:
        """Copy the encoder; a resumed run brings the average that it was.

        Raises:
            WeightsError: what was loaded is of another encoder.
        """
        teacher = copy.deepcopy(backbone).eval().requires_grad_(requires_grad=False)
        if self._loaded:
            try:
                teacher.load_state_dict(self._fitted(backbone))
            except RuntimeError as error:
                what = "the teacher's tensors are not those of this encoder"
                hint = "go on with the model that these weights are of; other sizes are no matter"
                raise WeightsError(what, hint=hint) from error
        self._teacher, self._student = teacher, backbone

    def _fitted(self, backbone: Backbone) -> dict[str, Tensor]:
        """Return what was loaded; of another size, with the encoder's positions, fitted already."""
        own = backbone.state_dict()
        places = {
            f"{name}.{each}"
            for name, module in backbone.named_modules()
            if isinstance(module, Positions)
            for each in module.state_dict()
        }
        here = {name for name in places & self._loaded.keys() if name in own}
        if all(own[name].shape == self._loaded[name].shape for name in here):
            return self._loaded
        return self._loaded | {name: own[name] for name in here}

    def after_update(self, step: int, steps: int) -> None:
        """Move every parameter a little toward the encoder's; take its buffers as they are."""
        if self._teacher is None or self._student is None:
            return
        decay = self.options.decay_at(step, steps)
        student = self._student
        for mine, theirs in zip(self._teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs.to(mine), 1 - decay)
        for kept, fresh in zip(self._teacher.buffers(), student.buffers(), strict=True):
            kept.copy_(fresh)

    def state(self) -> Mapping[str, Tensor]:
        """Return the average's tensors."""
        return self._loaded if self._teacher is None else self._teacher.state_dict()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``state`` returned, for when the encoder is there."""
        self._loaded = {name: tensor.clone() for name, tensor in tensors.items()}
        if self._teacher is not None:
            self._teacher.load_state_dict(self._loaded)

    @torch.no_grad()
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn clips ``[B, C, T, H, W]`` in [0, 1] into latents ``[B, Q, D]``."""
        if self._teacher is None:
            msg = "there is no teacher: it is a copy of the encoder that is trained"
            raise PartError(msg, hint="call attach(backbone) first")
        pixels = views[0]
        shape = (1, -1, 1, 1, 1)
        mean, std = (pixels.new_tensor(each).view(shape) for each in (self.mean, self.std))
        whole = Mask.nothing_hidden(len(pixels), mask.tokens, pixels.device)
        tokens = self.latents(self._teacher, (pixels - mean) / std, whole)
        return gather(tokens[:, self.prefix_tokens :], mask.queries)

    @abstractmethod
    def latents(self, teacher: Backbone, pixels: Tensor, whole: Mask) -> Tensor:
        """Return what is predicted of each token, float32 ``[B, prefix + N, D]``."""
