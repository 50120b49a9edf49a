"""A pre-training put together from a resolved recipe, ready for the loop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from maekit.data.bad_files import BadFiles
from maekit.engine.build import build_model, header_of
from maekit.engine.checkpoint import Checkpoints, Loaded, restore
from maekit.engine.events import Emit, Measured, Note, Saved
from maekit.engine.feed import (
    TrainBatches,
    holdout_reader,
    open_dataset,
    read_holdout,
    required_pretrain,
    statistics_of,
    stream_of,
    tell_classes,
    tell_watch,
    train_reader,
    workers_of,
)
from maekit.engine.holdout import Holdout
from maekit.engine.optim import make_optimizer
from maekit.engine.precision import Precision
from maekit.engine.schedule import BatchSplit, make_schedule, total_steps
from maekit.engine.state import TrainState
from maekit.engine.step import PretrainStep, recompute_activations, to_unit
from maekit.errors import DataError, RecipeError
from maekit.weights.file import write_weights
from maekit.weights.model import check_header, load_tensors, model_tensors
from maekit.weights.source import Weights, open_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.order import Stream
    from maekit.data.reader import SampleReader
    from maekit.model import MaskedAutoencoder, Statistics
    from maekit.recipe.schema import Recipe
    from maekit.weights.header import Header

FIT_SAMPLES = 2048  # what a target is fitted on, at least


@dataclass
class Pretraining:
    """All of a pre-training: what is read, what is trained, and how far it is."""

    recipe: Recipe
    device: torch.device
    precision: Precision
    train: Dataset
    val: Dataset | None
    model: MaskedAutoencoder
    header: Header
    reader: SampleReader
    stream: Stream
    split: BatchSplit
    state: TrainState
    step: PretrainStep
    ledger: BadFiles
    bad_files: Path | None
    emit: Emit
    holdout: Holdout | None = None
    shown: Batch | None = None  # held-out samples that pictures are drawn of
    began: float = field(default_factory=time.perf_counter)

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

    def prepare(self, weights: str | None, loaded: Loaded | None) -> None:
        """Bring the model to where it starts: a checkpoint, given weights, or its first init."""
        samples = self.state.extra.setdefault("train_samples", len(self.train))
        if loaded is not None:
            samples = loaded.state["extra"].get("train_samples", samples)
            if samples != len(self.train):
                msg = f"{samples} samples when this run began, {len(self.train)} now"
                hint = "resume over the same data, or start anew with --from"
                raise DataError(msg, where="data.train", hint=hint)
            load_tensors(self.model, restore(self.state, loaded), str(loaded.folder))
            self.state.extra["seconds_before"] = self.state.extra.get("seconds", 0.0)
            return
        decoder_given = weights is not None and self._start_from(open_weights(weights))
        if decoder_given:
            return
        fit = getattr(self.model.target, "fit", None)
        if fit is not None:
            fit(self._views_to_fit())

    def _start_from(self, weights: Weights) -> bool:
        """Take given weights; returns whether they hold a decoder, and what its target fitted.

        An encoder alone starts under the recipe's own decoder, fresh, which is said.
        """
        check_header(weights.header, self.header, weights.origin, foreign=weights.foreign)
        for note in weights.report.notes:
            self.emit(Note(note))
        fresh = set(weights.fresh)
        alone = weights.header.decoder is None
        if alone:
            fresh |= {name for name in self.model.state_dict() if name.startswith("decoder.")}
            self.emit(Note("no decoder weights: the recipe's decoder starts fresh", warning=True))
        elif weights.header.target is None:
            target = self.header.target or {}
            msg = f"the weights' target is unknown: the recipe's is taken, {target.get('name')}"
            self.emit(Note(msg, warning=True))
        load_tensors(self.model, weights.tensors, weights.origin, fresh=fresh)
        self.emit(Note(f"starting from {weights.origin}"))
        return not alone

    def _views_to_fit(self) -> Iterator[Sequence[Tensor]]:
        """Views of the first training batches, as ``Target.encode`` gets them."""
        updates = -(-FIT_SAMPLES // self.split.effective)
        source = self.batches()
        source.stop = min(updates, source.stop)
        with source as micro_batches:
            for update in micro_batches:
                for batch in update:
                    good = batch.weight > 0
                    yield [to_unit(view[good], self.device) for view in batch.views]

    def open_holdout(self) -> None:
        """Read the held-out samples; without ``data.val`` there are none, which is said."""
        if self.val is None or self.recipe.data.val is None:
            self.emit(Note("no data.val: no held-out error, no pictures"))
            return
        spec = self.recipe.data.val
        ledger = BadFiles(self.bad_files, len(self.val), spec.max_bad_fraction, section="data.val")
        pretrain = required_pretrain(self.recipe)
        read = partial(
            read_holdout,
            holdout_reader(self.recipe, self.val, self.model),
            ledger=ledger,
            workers=self.workers,
            timeout=self.recipe.data.timeout,
        )
        self.holdout = Holdout(
            read(pretrain.validate_.samples, size=min(self.split.per_device, 64))
        )
        shown = pretrain.pictures.samples
        self.shown = read(shown, size=shown)[0]

    def validate(self, state: TrainState) -> None:
        """An occasion: measure the held-out error."""
        if self.holdout is None:
            return
        values = self.holdout.measure(self.model, self.precision)
        state.extra.setdefault("holdout_start", values)
        state.extra["holdout"] = values
        self.emit(Measured(state.step, "holdout", values))

    def save(self, checkpoints: Checkpoints) -> None:
        """An occasion: write a checkpoint."""
        self.state.extra["seconds"] = self.seconds
        path = checkpoints.save(self.state, model_tensors(self.model), self._described())
        self.emit(Saved(self.state.step, "checkpoint", str(path)))

    def export(self, path: Path) -> None:
        """Write the final weights: encoder, decoder, and what the target fitted."""
        write_weights(path, model_tensors(self.model), self._described())
        self.emit(Saved(self.state.step, "weights", str(path)))

    def _described(self) -> Header:
        source = f"maekit pretrain {self.recipe.name}, step {self.state.step}"
        return self.header.model_copy(update={"source": source})


def assemble(
    recipe: Recipe,
    device: torch.device,
    emit: Emit,
    *,
    statistics: Statistics | None = None,
    bad_files: Path | None = None,
) -> Pretraining:
    """Build everything that a resolved recipe asks for.

    Args:
        statistics: known ones, from a checkpoint; else as the recipe says.
        bad_files: where unreadable files are recorded.

    Raises:
        RecipeError, PartError, DataError: what is asked for cannot be had.
    """
    pretrain = required_pretrain(recipe)
    precision = Precision.of(pretrain.precision, device)
    split = BatchSplit.of(pretrain.batch)
    train = open_dataset(recipe.data.train, "data.train")
    val = None if recipe.data.val is None else open_dataset(recipe.data.val, "data.val")
    tell_classes(train, "data.train", emit)
    tell_watch(workers_of(recipe.data.workers, device.type), recipe.data.timeout, emit)
    header = header_of(recipe, statistics or statistics_of(recipe, train, device.type, emit))
    model = build_model(header, recipe.seed)
    header = header.model_copy(update={"grid": model.grid})
    reader = train_reader(recipe, train, model)
    model.to(device)
    stream = stream_of(recipe, train, split.effective)
    if pretrain.activation_checkpointing:
        recompute_activations(model)
    return Pretraining(
        recipe=recipe,
        device=device,
        precision=precision,
        train=train,
        val=val,
        model=model,
        header=header,
        reader=reader,
        stream=stream,
        split=split,
        state=_state(recipe, model, stream, split, precision, emit),
        step=PretrainStep(model, precision, loss_on=pretrain.loss_on, compiled=pretrain.compile),
        ledger=BadFiles(bad_files, len(train), recipe.data.train.max_bad_fraction),
        bad_files=bad_files,
        emit=emit,
    )


def _state(
    recipe: Recipe,
    model: MaskedAutoencoder,
    stream: Stream,
    split: BatchSplit,
    precision: Precision,
    emit: Emit,
) -> TrainState:
    pretrain = required_pretrain(recipe)
    steps = total_steps(
        epochs=pretrain.epochs,
        steps=pretrain.steps,
        samples=pretrain.samples,
        batch=split.effective,
        per_epoch=stream.steps_per_epoch,
    )
    schedule, notes = make_schedule(
        pretrain.optimizer,
        pretrain.warmup,
        steps=steps,
        per_epoch=stream.steps_per_epoch,
        batch=split.effective,
        repeats=pretrain.repeats,
    )
    for note in notes:
        emit(Note(note))
    return TrainState(
        model=model,
        optimizer=make_optimizer(model, pretrain.optimizer),
        schedule=schedule,
        samples_per_step=split.effective,
        steps_per_epoch=stream.steps_per_epoch,
        scaler=precision.scaler(),
        clip_grad=pretrain.clip_grad,
        max_nonfinite=pretrain.max_nonfinite,
    )


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
