"""A training in a run folder: what pre-training, the tokenizer and later verbs have in common.

A verb brings a ``Training`` of its own: what it trains, how that is saved and loaded, and what is
measured. Reading, budget, optimizer, checkpoints and resuming are the same for all.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from maekit.data.bad_files import BadFiles
from maekit.engine.checkpoint import Checkpoints, Loaded, restore
from maekit.engine.events import Emit, Note, Saved
from maekit.engine.feed import (
    TrainBatches,
    open_dataset,
    stream_of,
    tell_classes,
    tell_watch,
    workers_of,
)
from maekit.engine.loop import Occasion
from maekit.engine.precision import Precision
from maekit.engine.schedule import BatchSplit, make_schedule, total_steps
from maekit.engine.state import TrainState
from maekit.errors import DataError, RecipeError
from maekit.weights.file import write_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from maekit.contracts import Dataset
    from maekit.data.order import Stream
    from maekit.data.reader import SampleReader
    from maekit.engine.state import Step
    from maekit.recipe.schema import Recipe
    from maekit.recipe.training import TrainingSection
    from maekit.weights.header import FileHeader


@dataclass(frozen=True)
class Basis:
    """What a training has before it has a model: the recipe's section, data sets, batches."""

    recipe: Recipe
    verb: str
    section: TrainingSection
    device: torch.device
    emit: Emit
    precision: Precision
    split: BatchSplit
    train: Dataset
    val: Dataset | None
    stream: Stream
    bad_files: Path | None  # where unreadable files are recorded

    @classmethod
    def of(
        cls, recipe: Recipe, verb: str, device: torch.device, emit: Emit, bad_files: Path | None
    ) -> Basis:
        """Open what a resolved recipe's section for ``verb`` reads.

        Raises:
            RecipeError, PartError, DataError: what is asked for cannot be had.
        """
        section = section_of(recipe, verb)
        precision = Precision.of(section.precision, device, where=f"{verb}.precision")
        split = BatchSplit.of(section.batch, where=f"{verb}.batch")
        train = open_dataset(recipe.data.train, "data.train")
        val = None if recipe.data.val is None else open_dataset(recipe.data.val, "data.val")
        tell_classes(train, "data.train", emit)
        tell_watch(workers_of(recipe.data.workers, device.type), recipe.data.timeout, emit)
        return cls(
            recipe=recipe,
            verb=verb,
            section=section,
            device=device,
            emit=emit,
            precision=precision,
            split=split,
            train=train,
            val=val,
            stream=stream_of(recipe, len(train), split.effective),
            bad_files=bad_files,
        )

    def state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, counted: int | None = None
    ) -> TrainState:
        """The state before the first step.

        Args:
            counted: samples of an update that the learning rate grows with; default: all of them
                once.
        """
        section, batch = self.section, self.split.effective
        steps = total_steps(
            epochs=section.epochs,
            steps=section.steps,
            samples=section.samples,
            batch=batch,
            per_epoch=self.stream.steps_per_epoch,
        )
        schedule, notes = make_schedule(
            section.optimizer,
            section.warmup,
            steps=steps,
            per_epoch=self.stream.steps_per_epoch,
            batch=counted or batch,
        )
        for note in notes:
            self.emit(Note(note))
        return TrainState(
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            samples_per_step=batch,
            steps_per_epoch=self.stream.steps_per_epoch,
            scaler=self.precision.scaler(),
            clip_grad=section.clip_grad,
            max_nonfinite=section.max_nonfinite,
        )


def section_of(recipe: Recipe, verb: str) -> TrainingSection:
    """The section of a verb that trains; an error where there is none."""
    section: TrainingSection | None = getattr(recipe, verb)
    if section is None:
        msg = f"the recipe has no {verb} section"
        raise RecipeError(msg, where=verb, hint="`maekit recipes list` names recipes that have one")
    return section


class Training(ABC):
    """All of a training: what is read, what is trained, and how far it is."""

    verb: ClassVar[str]  # the command, the recipe's section, and the word in result.json

    def __init__(
        self, basis: Basis, model: nn.Module, reader: SampleReader, state: TrainState, step: Step
    ) -> None:
        self.recipe, self.section = basis.recipe, basis.section
        self.device, self.precision, self.emit = basis.device, basis.precision, basis.emit
        self.train, self.val = basis.train, basis.val
        self.stream, self.split = basis.stream, basis.split
        self.bad_files = basis.bad_files
        tolerated = basis.recipe.data.train.max_bad_fraction
        self.ledger = BadFiles(basis.bad_files, len(basis.train), tolerated)
        self.model = model
        self.reader = reader
        self.state = state
        self.step = step
        self.began = time.perf_counter()

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is saved of the model."""

    @abstractmethod
    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """The inverse of ``tensors``; raises WeightsError where they do not fit."""

    @abstractmethod
    def described(self) -> FileHeader:
        """The header of the weights as they are now."""

    @abstractmethod
    def start(self) -> None:
        """Bring a model that is not resumed to its first step: given weights, or a fresh init."""

    @abstractmethod
    def open_holdout(self) -> None:
        """Get ready for what is measured on the way, of data.val."""

    @abstractmethod
    def occasions(self) -> list[Occasion]:
        """What is measured on the way, and when."""

    def result(self) -> dict[str, Any]:
        """What result.json holds beside what it holds of every training."""
        return {}

    @property
    def seconds(self) -> float:
        """Wall-clock time of this run, earlier parts of a resumed one included."""
        earlier: float = self.state.extra.get("seconds_before", 0.0)
        return earlier + time.perf_counter() - self.began

    @property
    def workers(self) -> int:
        """Loader processes."""
        return workers_of(self.recipe.data.workers, self.device.type)

    def batches(self) -> TrainBatches:
        """The micro-batches of all updates that are still to come."""
        return TrainBatches(
            self.reader,
            self.stream,
            self.split,
            self.ledger,
            start=self.state.step,
            stop=self.state.schedule.steps,
            workers=self.workers,
            timeout=self.recipe.data.timeout,
            emit=self.emit,
        )

    def prepare(self, loaded: Loaded | None) -> None:
        """Bring the model to where it starts: a checkpoint, given weights, or its first init."""
        samples = self.state.extra.setdefault("train_samples", len(self.train))
        if loaded is None:
            # What a model draws itself (drop path, dropout) begins here; checkpoints go on with it.
            torch.manual_seed(self.recipe.seed)
            self.start()
            return
        samples = loaded.state["extra"].get("train_samples", samples)
        if samples != len(self.train):
            msg = f"{samples} samples when this run began, {len(self.train)} now"
            hint = "resume over the same data, or start anew with --from"
            raise DataError(msg, where="data.train", hint=hint)
        self.load(restore(self.state, loaded), str(loaded.folder))
        self.state.extra["seconds_before"] = self.state.extra.get("seconds", 0.0)

    @property
    def best(self) -> dict[str, Any] | None:
        """The best measurement so far and its ``step``, where one is kept count of."""
        return self.state.extra.get("best")

    def is_best(self, state: TrainState) -> bool:
        """Whether the best measurement so far was made just now: then it is worth a checkpoint."""
        return self.best is not None and self.best["step"] == state.step

    def save(self, checkpoints: Checkpoints) -> None:
        """An occasion: write a checkpoint."""
        self.state.extra["seconds"] = self.seconds
        best = self.is_best(self.state)
        path = checkpoints.save(self.state, self.tensors(), self.described(), best=best)
        self.emit(Saved(self.state.step, "checkpoint", str(path)))

    def exported(self) -> dict[str, Tensor]:
        """What the final weights hold."""
        return self.tensors()

    def export(self, path: Path) -> None:
        """Write the final weights, with a header that says how to rebuild the model."""
        write_weights(path, self.exported(), self.described())
        self.emit(Saved(self.state.step, "weights", str(path)))

    @property
    def source(self) -> str:
        """Where weights saved now come from, in words."""
        return f"maekit {self.verb} {self.recipe.name}, step {self.state.step}"


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        RecipeError: it is unknown, or not there.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    hint = "cpu, cuda, cuda:N or mps"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"device '{name}' cannot be used: {reason}"
        raise RecipeError(msg, where="--device", hint=hint) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise RecipeError(f"maekit does not train on '{name}'", where="--device", hint=hint)
    return device


def summary(steps: Iterable[dict[str, float | None]]) -> dict[str, float | None]:
    """``loss_first`` and ``loss_last``: means over the first and the last tenth of the steps."""
    losses = [step["loss"] for step in steps if step.get("loss") is not None]
    numbers = [loss for loss in losses if loss is not None]
    if not numbers:
        return {"loss_first": None, "loss_last": None}
    tenth = max(1, len(numbers) // 10)
    first, last = numbers[:tenth], numbers[-tenth:]
    return {"loss_first": sum(first) / tenth, "loss_last": sum(last) / tenth}
