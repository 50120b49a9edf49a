"""Everything that a training needs to go on, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.schedule import Schedule


class Step(Protocol):
    """What the loop trains: pre-training, fine-tuning, probes and the tokenizer each bring one."""

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        """The weighted sum of a micro-batch's loss, and the sum of its weights."""
        ...


@dataclass
class TrainState:
    """A training between two updates.

    Attributes:
        model: what is trained, uncompiled.
        optimizer: its groups name their parameters under ``"names"``.
        step: finished updates.
        visited: the last step whose occasions were run.
        streak: non-finite updates in a row, on the device so that nothing waits for it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    samples_per_step: int
    steps_per_epoch: float
    scaler: torch.amp.GradScaler | None = None
    clip_grad: float | None = None
    max_nonfinite: int = 10
    step: int = 0
    visited: int = -1
    streak: Tensor = field(default_factory=lambda: torch.zeros(()))
    extra: dict[str, Any] = field(default_factory=dict)  # plain values that a verb keeps

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self.step >= self.schedule.steps

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimizer changes."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
