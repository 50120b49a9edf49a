"""Meet updates again that were not finite: the captured weights over the samples of each.

A run that ends with exit 4 keeps weights, optimizer and the numbers of its last non-finite updates
in ``nan_capture/``. Samples, crops and masks hang on their keys, so that the same batch can be made
again. What a model draws itself (drop path, dropout) is drawn anew, and of updates with others
between them only the last had the weights that were kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from maekit.engine.loop import update
from maekit.errors import DataError, WeightsError
from maekit.weights.checkpoints import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from maekit.engine.job import Job
    from maekit.weights.checkpoints import CheckpointOnDisk

FOLDER = "nan_capture"
BATCHES = "batches.json"


class Capture(NamedTuple):
    """What a run kept of updates that were not finite."""

    checkpoint: CheckpointOnDisk
    steps: tuple[int, ...]


class Replayed(NamedTuple):
    """An update that was met again.

    Attributes:
        step: its number, from 1, as in metrics.jsonl.
        loss, norm: its mean loss and gradient norm; None where they are not finite.
        module: the first module of the forward pass whose output is not finite.
        samples: those whose own loss is not finite; None for all of the batch.
    """

    step: int
    loss: float | None
    norm: float | None
    module: str | None
    samples: list[str] | None

    @property
    def finite(self) -> bool:
        """Whether it is finite now."""
        return self.loss is not None and self.norm is not None


def read_capture(run: Path) -> Capture:
    """Read what a run kept.

    Raises:
        DataError: it kept nothing.
        WeightsError: what it kept is damaged.
    """
    folder = run / FOLDER
    if not folder.is_dir():
        hint = "a run has it that ended with exit 4, by too many non-finite updates"
        raise DataError(f"there is no {FOLDER}/ in this run", where=str(run), hint=hint)
    try:
        steps = json.loads((folder / BATCHES).read_bytes())["steps"]
        numbers = tuple(sorted(map(int, steps)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{BATCHES} cannot be read: {error}", where=str(folder)) from error
    return Capture(read_checkpoint(folder), numbers)


def replay(job: Job, capture: Capture, steps: Sequence[int]) -> Iterator[Replayed]:
    """Make each update again from the captured state, and yield what became of it.

    Args:
        job: built for the run's recipe and the captured checkpoint.
        capture: of the run.
        steps: numbers of updates, from 0.
    """
    for step in steps:
        job.prepare(capture.checkpoint)
        job.state.step = step
        job.model.train()
        with _watched(job.model) as failing, job.batches() as batches:
            made = update(job.state, job.step, next(iter(batches)))
        loss, norm = (_finite(float(value)) for value in (made.loss, made.norm))
        # An update without a finite loss was not applied: the weights are still those captured.
        samples = [] if loss is not None else job.nonfinite_samples(step)
        yield Replayed(step + 1, loss, norm, next(iter(failing), None), samples)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of modules whose output is not finite, in the order that they end in."""
    failing: list[str] = []

    def look(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and not output.isfinite().all():
            failing.append(name)

    handles = [
        module.register_forward_hook(lambda *ended, name=name: look(name, ended[-1]))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield failing
    finally:
        for handle in handles:
            handle.remove()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
