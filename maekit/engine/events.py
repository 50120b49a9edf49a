"""Events of a run, which listeners print and reporters store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maekit.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Note:
    """A message to the user."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Throughput:
    """Speed of a run, since the last event that had it."""

    total_steps: int
    samples_per_second: float
    data_wait: float  # fraction of the time spent waiting for the loader
    memory: float  # peak bytes of the device, or of this process on a CPU
    seconds_left: float
    skipped_steps: int = 0  # of the run so far, as they were not finite


@dataclass(frozen=True)
class StepDone:
    """One update. ``step`` counts finished updates, from 1."""

    step: int
    epoch: float
    loss: float  # weighted mean over the effective batch; not finite where the step was skipped
    lr: float
    grad_norm: float  # before clipping
    skipped: str | None = None  # why the update was not applied: one of ``skipped.WORDS``
    throughput: Throughput | None = None  # with the last of the steps that are emitted together


@dataclass(frozen=True)
class Measured:
    """Measurements at a step: ``name`` is holdout, online_probe ..."""

    step: int
    name: str
    values: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """A file or folder was written: ``kind`` is checkpoint, weights, picture, time-lapse."""

    step: int
    kind: str
    path: str
    image: Image | None = field(default=None, compare=False, repr=False)  # of a picture
    name: str = "reconstructions"  # of what a picture shows


@dataclass(frozen=True)
class Ended:
    """A run ended, well or not: ``result`` is what result.json holds."""

    result: Mapping[str, Any] = field(repr=False)


Event = Note | StepDone | Measured | Saved | Ended | Progress
Emit = Callable[[Event], None]
