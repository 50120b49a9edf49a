"""A job: all that a verb trains in a run folder, and how that is saved, measured and exported.

A verb brings one class, a ``Job`` or a ``ValidatedJob``: its model, its step, what is measured on
the way. Reading, budget, optimizer state, checkpoints and resuming are the same for all of them;
``maekit.engine.run`` runs a job in a folder.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from maekit.data.bad_files import BadFiles
from maekit.data.batch import BatchBuilder
from maekit.engine import distributed
from maekit.engine.batches import (
    TrainBatches,
    announce_watch,
    open_sets,
    read_holdout,
    stream_of,
    workers_of,
)
from maekit.engine.checkpoint import (
    Checkpoints,
    optimizer_tensors,
    random_states,
    restore,
)
from maekit.engine.events import Emit, Measured, Note, Saved
from maekit.engine.left_out import (
    KEY,
    LeftOut,
    SeenLeftOut,
    announce_overlap,
    announce_set,
    count_batches,
    left_out_of,
)
from maekit.engine.loop import Periodic, TrainState
from maekit.engine.parallel import Sharding, gathered
from maekit.engine.precision import Precision
from maekit.engine.schedule import BatchSplit, base_lr, make_schedule, total_steps, warmup_steps
from maekit.engine.settings import check_schedule, doubtful
from maekit.engine.step import eval_mode
from maekit.errors import DataError, RecipeError
from maekit.weights.safetensors_io import write_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.reader import SampleReader
    from maekit.engine.loop import Step
    from maekit.recipe.schema import Recipe
    from maekit.recipe.sections import HeldOutSection, TrainingSection
    from maekit.weights.checkpoints import CheckpointOnDisk
    from maekit.weights.header import FileHeader

MOST_LOOKED_AT = 512  # samples of a batch that is not finite
BATCH_HELD_OUT = 64  # samples that are measured together, at most


def section_of(recipe: Recipe, verb: str) -> TrainingSection:
    """Return the section of a verb that trains; raise RecipeError where there is none."""
    section: TrainingSection | None = getattr(recipe, verb)
    if section is None:
        msg = f"the recipe has no {verb} section"
        raise RecipeError(msg, where=verb, hint="`maekit recipes list` names recipes that have one")
    return section


class Job(ABC):
    """Base of what one verb trains, from data sets to weights.

    A subclass calls ``super().__init__``, which opens what the recipe reads, and then sets
    ``model``, ``reader``, ``state`` (by ``initial_state``) and ``step``.

    Args:
        recipe: resolved for the verb.
        device: where the model is trained.
        emit: called with every event.
        source: weights to start from, as ``--from`` takes them; None: the verb's default.
        checkpoint: the checkpoint that is to be resumed.
        bad_files_path: file that unreadable samples are recorded in.

    Raises:
        RecipeError, PartError, DataError: what the recipe names is missing or cannot be used.
        WeightsError: the weights are of another model.
    """

    verb: ClassVar[str]  # the command, the recipe's section, and the word in result.json
    model: nn.Module
    reader: SampleReader
    state: TrainState
    step: Step
    began: float  # on the performance counter; ``prepare`` sets it anew

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        emit: Emit,
        *,
        source: str | None = None,  # noqa: ARG002 - for subclasses
        checkpoint: CheckpointOnDisk | None = None,  # noqa: ARG002 - for subclasses
        bad_files_path: Path | None = None,
    ) -> None:
        self.began = time.perf_counter()
        section = section_of(recipe, self.verb).with_budget()
        self.recipe, self.device, self.emit = recipe, device, emit
        self.section = section
        self.precision = Precision.of(section.precision, device, where=f"{self.verb}.precision")
        data = recipe.data
        self.train, self.val = open_sets(recipe, emit)
        self.split = BatchSplit.of(
            section.batch,
            distributed.size(),
            samples=len(self.train),
            where=f"{self.verb}.batch",
        )
        announce_set(self.train, "data.train", emit)
        self.shared: str | None = None  # what data.val has of data.train, in words
        if self.val is not None:
            announce_set(self.val, "data.val", emit)
            self.shared = announce_overlap(self.train, self.val, emit)
        announce_watch(self.workers, data.timeout, emit)
        self.stream = stream_of(recipe, len(self.train), self.split.effective)
        self.bad_files_path = bad_files_path
        self.bad_files = self._ledger(len(self.train), data.train.max_bad_fraction, "data.train")

    def _ledger(self, samples: int, tolerated: float, section: str) -> BadFiles:
        """Open the record of bad files of a set; every rank counts all, and rank 0 writes."""
        writes = distributed.is_first()
        return BadFiles(
            self.bad_files_path,
            samples,
            tolerated,
            section,
            writes=writes,
            warn=lambda text: self.emit(Note(text, warning=True)),
        )

    def initial_state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, counted: int | None = None
    ) -> TrainState:
        """Return the state before the first step.

        Args:
            model: what is trained.
            optimizer: over its parameters.
            counted: samples of an update that the learning rate grows with; default: all of them
                once.
        """
        section, batch = self.section, self.split.effective
        schedule, notes = make_schedule(
            section.optimizer,
            section.warmup,
            steps=self.budget,
            per_epoch=self.stream.steps_per_epoch,
            batch=counted or batch,
        )
        for note in notes:
            self.emit(Note(note))
        check_schedule(schedule, f"{self.verb}.optimizer")
        odd = doubtful(self.recipe, self.verb, section, schedule, self.split, len(self.train))
        for text in odd:
            self.emit(Note(text, warning=True))
        return TrainState(
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            samples_per_step=batch,
            steps_per_epoch=self.stream.steps_per_epoch,
            scaler=self.precision.scaler(),
            clip_grad=section.clip_grad,
            max_nonfinite=section.max_nonfinite,
            sharding=self.sharding(),
        )

    def blocks(self) -> Sequence[nn.Module]:
        """Return the model's repeated blocks, which ranks that share it out gather one by one."""
        return ()

    def sharding(self) -> Sharding | None:
        """Return how ranks share the parameters out, where the recipe says so."""
        if self.section.sharding.name == "ddp":
            return None
        compute = torch.bfloat16 if self.precision.name == "bf16" else None
        return Sharding(self.blocks(), compute)

    @property
    def budget(self) -> int:
        """The budget in updates."""
        return self.budget_of(self.section)

    @property
    def warmup(self) -> int:
        """The warm-up in updates, before it is cut to the budget."""
        return warmup_steps(self.section.warmup, self.stream.steps_per_epoch)

    def budget_of(self, section: TrainingSection) -> int:
        """Return the budget that a section gives, in updates over this data."""
        return total_steps(
            epochs=section.epochs,
            steps=section.steps,
            samples=section.samples,
            batch=self.split.effective,
            per_epoch=self.stream.steps_per_epoch,
        )

    @classmethod
    def find_source(
        cls,
        recipe: Recipe,  # noqa: ARG003 - for subclasses
        requested: str | None,
        emit: Emit,  # noqa: ARG003 - for subclasses
    ) -> str | None:
        """Return the weights that a fresh run starts from; may refuse, before there is a folder."""
        return requested

    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Return the sizes of the model and its input that a dry run names."""

    @abstractmethod
    def size_row(self) -> tuple[str, str]:
        """Return the same for people: a heading and a text."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved of the model."""

    @abstractmethod
    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put saved tensors back; raise WeightsError where they do not fit."""

    @abstractmethod
    def described(self) -> FileHeader:
        """Return the header of the weights as they are now."""

    def extended(self, at: int) -> Iterable[str]:  # noqa: ARG002 - for subclasses
        """Say what of this verb follows the budget besides the learning rate, one line each.

        Args:
            at: the step that the run is extended at; ``state.schedule`` is that from there on.
        """
        return ()

    def start_fresh(self) -> None:  # noqa: B027 - by default nothing is left to do
        """Prepare a fresh model for its first step: load given weights, fit its target."""

    def open_holdout(self) -> None:  # noqa: B027 - by default data.val is read each time
        """Read what of data.val is kept in memory for measuring."""

    def measures(self) -> list[Periodic]:
        """Return what is measured on the way, and when."""
        return []

    def pictures(self, folder: Path) -> list[Periodic]:  # noqa: ARG002 - for subclasses
        """Return what draws pictures into a run's folder on the way, and when."""
        return []

    def finish_pictures(self, folder: Path) -> None:  # noqa: B027 - by default there are none
        """Complete a run's pictures as far as it came: make a time-lapse of them."""

    def result(self) -> dict[str, Any]:
        """Return what result.json holds of this verb alone."""
        return {}

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this run, with the earlier parts of a resumed one."""
        earlier: float = self.state.extra.get("seconds_before", 0.0)
        return earlier + time.perf_counter() - self.began

    @property
    def workers(self) -> int:
        """Number of loader processes."""
        return workers_of(self.recipe.data.workers, self.device.type)

    def batches(self) -> TrainBatches:
        """Return the micro-batches of all updates that are still to come."""
        return TrainBatches(
            self.reader,
            self.stream,
            self.split,
            self.bad_files,
            start=self.state.step,
            stop=self.state.schedule.steps,
            workers=self.workers,
            timeout=self.recipe.data.timeout,
            left_out=SeenLeftOut(self.reader, "data.train", self.state.extra, self.emit),
        )

    def prepare(self, checkpoint: CheckpointOnDisk | None) -> None:
        """Bring the model to where it starts: a checkpoint, given weights, or its first init.

        Raises:
            DataError: the data set has grown or shrunk since the run began.
        """
        self.began = time.perf_counter()
        samples = self.state.extra.setdefault("train_samples", len(self.train))
        if checkpoint is None:
            # Seeds what a model draws itself (drop path, dropout); checkpoints keep the state.
            torch.manual_seed(distributed.seed_of_rank(self.recipe.seed))
            self.start_fresh()
            return
        samples = checkpoint.record.extra.get("train_samples", samples)
        if samples != len(self.train):
            msg = f"{samples} samples when this run began, {len(self.train)} now"
            hint = "resume over the same data, or start anew with --from"
            raise DataError(msg, where="data.train", hint=hint)
        self.load(restore(self.state, checkpoint), str(checkpoint.folder))
        self.state.extra["seconds_before"] = self.state.extra.get("seconds", 0.0)

    def nonfinite_samples(self, step: int) -> list[str] | None:
        """Name those samples of a step's batch whose own loss is not finite; None: all.

        Every sample is read and computed once more: it is done for few steps of a run.
        """
        names: list[str] = []
        keys = self.stream.keys(step)[:MOST_LOOKED_AT]
        with eval_mode(self.model), torch.no_grad(), torch.random.fork_rng():
            for key in keys:
                builder = BatchBuilder(self.reader.layout, [key])
                builder.put(0, self.reader.read(key))
                try:
                    weighed = self.step.weigh(builder.finish())
                    loss = self.step.loss(weighed)
                except RuntimeError:  # a step that cannot take a single sample
                    continue
                if weighed.weight and not math.isfinite(float(loss)):
                    names.append(self.train.name(key.index))
        return None if len(names) == len(keys) > 1 else names

    @property
    def best(self) -> dict[str, Any] | None:
        """The best measurement so far and its ``step``; None where none is kept."""
        return self.state.extra.get("best")

    def is_best(self, state: TrainState) -> bool:
        """Return whether the best measurement so far was made at this step."""
        return self.best is not None and self.best["step"] == state.step

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint; the other ranks wait."""
        self.state.extra["seconds"] = self.seconds
        self.state.random = distributed.gather(random_states())
        tensors, moments = self.gathered()

        def write() -> str:
            return str(checkpoints.save(self.state, tensors, self.described(), moments))

        self.emit(Saved(self.state.step, "checkpoint", distributed.on_first(write)))

    def gathered(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return model and optimizer as they are saved, whole, on rank 0; others get nothing."""
        return gathered(self.tensors()), gathered(optimizer_tensors(self.state))

    @property
    def left_out(self) -> LeftOut:
        """What the sets leave out, as far as it is known by now."""
        sets = {"data.train": self.train, "data.val": self.val}
        return left_out_of(sets, self.state.extra.get(KEY, {}))

    def doubts(self) -> list[str]:
        """Return what a finished run should be looked at again for, in words."""
        found = [] if self.shared is None else [self.shared]
        if not self.state.extra.get("beat_mean_fill", True):
            found.append(
                "the held-out error never beat that of filling in the mean of what is visible"
            )
        return found

    def exported(self) -> dict[str, Tensor]:
        """Return what the final weights hold."""
        return self.tensors()

    def export(self, path: Path) -> None:
        """Write the final weights, with a header that says how to rebuild the model."""
        tensors = gathered(self.exported())
        distributed.on_first(lambda: write_weights(path, tensors, self.described()))
        self.emit(Saved(self.state.step, "weights", str(path)))

    def resident(self) -> Iterable[Tensor]:
        """Return the tensors that are there all the time, besides gradients and moments."""
        return (*self.model.parameters(), *self.model.buffers())

    @property
    def kept_per_sample(self) -> int:
        """Bytes that a micro-batch keeps of each sample where only some are encoded at once."""
        return 0

    @property
    def encoded_at_once(self) -> int:
        """Samples whose activations are there at once."""
        return self.split.per_device

    @property
    def provenance(self) -> str:
        """Where weights saved now come from, in words."""
        return f"maekit {self.verb} {self.recipe.name}, step {self.state.step}"

    def batch_line(self) -> str:
        """Return the effective batch and the learning rate in one line."""
        split, schedule = self.split, self.state.schedule
        rate = base_lr(self.section.optimizer, schedule.counted)
        times, repeats = self.reader.repeats, ""
        if times > 1:
            counted = schedule.counted > split.effective
            repeats = f", x {times} repeats{' (counted)' if counted else ' (not in the lr)'}"
        return (
            f"{split.per_device} per device x {split.accumulation} accumulation x {split.world} "
            f"device(s) = {split.effective}{repeats}; lr = {rate:g} x "
            f"{schedule.counted} / 256 = {schedule.peak:.3g}"
        )


class ValidatedJob(Job):
    """A job whose error on fixed held-out samples is measured on the way."""

    section: HeldOutSection
    held_out: Sequence[Batch] | None = None  # of this rank; it may have none of them
    shown: Batch | None = None  # held-out samples that pictures are drawn of

    @abstractmethod
    def holdout_reader(self, dataset: Dataset) -> SampleReader:
        """Return a reader of held-out samples; it reads a sample the same way every time."""

    @abstractmethod
    def measure(self) -> dict[str, float | None]:
        """Return the errors on held-out samples; leave the model in the mode that it is in."""

    def measures(self) -> list[Periodic]:
        """Measure the held-out error every so many steps."""
        return [Periodic(self.section.validate_.every, self.validate)]

    def result(self) -> dict[str, Any]:
        """Return the held-out errors, last and first."""
        extra = self.state.extra
        return {"holdout": extra.get("holdout"), "holdout_start": extra.get("holdout_start")}

    def open_holdout(self) -> None:
        """Read the held-out samples; without ``data.val`` say that there are none."""
        if self.val is None or self.recipe.data.val is None:
            self.emit(Note("no data.val: no held-out error, no pictures"))
            return
        tolerated = self.recipe.data.val.max_bad_fraction
        bad_files = self._ledger(len(self.val), tolerated, "data.val")
        reader = self.holdout_reader(self.val)

        def read(samples: int, size: int, *, shared: bool) -> list[Batch]:
            return read_holdout(
                reader,
                samples,
                size=size,
                bad_files=bad_files,
                workers=self.workers,
                timeout=self.recipe.data.timeout,
                shared=shared,
            )

        size = min(self.split.per_device, BATCH_HELD_OUT)
        self.held_out = read(self.section.validate_.samples, size, shared=True)
        self.state.extra.setdefault(KEY, {})["data.val"] = dict(count_batches(self.held_out))
        if self.section.pictures is not None and distributed.is_first():
            shown = self.section.pictures.samples
            self.shown = read(shown, shown, shared=False)[0]

    def validate(self, state: TrainState) -> None:
        """Measure the held-out error and keep it in the state."""
        if self.held_out is None:
            return
        values = self.measure()
        state.extra.setdefault("holdout_start", values)
        state.extra["holdout"] = values
        error, fill = values.get("hidden_mse"), values.get("mean_fill_mse")
        if error is not None and fill is not None:
            beaten = state.extra.get("beat_mean_fill", False) or error < fill
            state.extra["beat_mean_fill"] = beaten
        self.emit(Measured(state.step, "holdout", values))
