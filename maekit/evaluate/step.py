"""The step of fine-tuning: from a loader's arrays to the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maekit.engine.step import to_unit

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.evaluate.augment import RandomErase
    from maekit.evaluate.classifier import Classifier
    from maekit.evaluate.mixing import Mixing
    from maekit.evaluate.tasks import Task


class FinetuneStep:
    """Normalizes, erases, mixes, classifies and compares; ``loss(batch) -> (sum, weight)``."""

    def __init__(
        self,
        model: Classifier,
        task: Task,
        precision: Precision,
        *,
        repeats: int = 1,
        smoothing: float = 0.0,
        erase: RandomErase | None = None,
        mixing: Mixing | None = None,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.task = task
        self.precision = precision
        self.repeats = repeats
        self.smoothing = smoothing
        self.erase = erase
        self.mixing = mixing
        # The bound method is compiled, not the module: saved keys stay as they are.
        self._logits: Callable[[Tensor], Tensor] = (
            torch.compile(model.forward) if compiled else model.forward
        )

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        """The sum of the loss over good rows, and how many there are."""
        device = self.model.device
        weight = torch.from_numpy(batch.weight)
        pixels = self.model.normalize(to_unit(batch.views[0], device))
        targets = self.task.targets([key.index for key in batch.keys], self.repeats).to(device)
        targets = self.task.smooth(targets, self.smoothing)
        if self.erase is not None:
            pixels = self.erase(pixels, batch.keys)
        if self.mixing is not None:
            mixed = self.mixing(pixels, batch.keys, batch.weight > 0)
            pixels, targets = mixed.pixels, mixed.targets(targets)
        with self.precision.autocast():
            logits = self._logits(pixels)
        each = self.task.loss(logits, targets)
        return (each * weight.to(device)).sum(), float(weight.sum())
