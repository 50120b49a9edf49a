"""The job of ``maekit finetune``: the supervised training of an encoder."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import torch

from maekit.data.rendering import Rendering
from maekit.engine import distributed
from maekit.engine.batches import statistics_of, with_known_range
from maekit.engine.events import Measured
from maekit.engine.job import Job
from maekit.engine.left_out import KEY as LEFT_OUT
from maekit.engine.loop import Periodic
from maekit.engine.optim import make_adamw
from maekit.engine.run_folder import PREDICTIONS
from maekit.engine.step import eval_mode, recompute
from maekit.errors import DataError, RecipeError
from maekit.evaluate.classifier import (
    Classifier,
    Headed,
    classifier_tensors,
    load_classifier_tensors,
)
from maekit.evaluate.ema import MovingAverage
from maekit.evaluate.encoder import (
    load_encoder,
    resumed_encoder,
    untrained_encoder,
    weights_or_newest,
)
from maekit.evaluate.judged import Judged
from maekit.evaluate.labels import Task, announce_task, task_of, warn_at_chance
from maekit.evaluate.predictions import Predictions, Reading, predict
from maekit.evaluate.supervision import (
    VERB,
    describe,
    groups_of,
    make_classifier,
    make_step,
    train_reader,
)
from maekit.evaluate.views import ViewReader, view_reader
from maekit.weights.locate import SCRATCH
from maekit.weights.safetensors_io import AVERAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from maekit.contracts import Dataset
    from maekit.data.reader import SampleReader
    from maekit.engine.events import Emit
    from maekit.engine.loop import Step, TrainState
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.finetune import Finetune
    from maekit.recipe.schema import Recipe
    from maekit.weights.checkpoints import CheckpointOnDisk
    from maekit.weights.header import Header


class Supervised(Protocol):
    """What is learned of a set."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the head predicts."""
        ...

    @property
    def best(self) -> str:
        """The measure by which checkpoints are compared; more is better."""
        ...


class SupervisedJob(Job):
    """Base of trainings of an encoder and a head on what a set says of its samples."""

    verb = VERB
    section: Finetune
    model: Headed
    task: Supervised

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        emit: Emit,
        *,
        source: str | None = None,
        checkpoint: CheckpointOnDisk | None = None,
        bad_files_path: Path | None = None,
    ) -> None:
        options = required_finetune(recipe)
        if checkpoint is None:
            source = self.find_source(recipe, source, emit)
            describe(recipe)  # what does not fit together is said before any data is read or drawn
        super().__init__(recipe, device, emit, bad_files_path=bad_files_path)
        self.task = self._task(options)
        if source == SCRATCH and checkpoint is None:
            self.recipe = with_known_range(recipe, self.train, emit)
        encoder, header = self._encoder(source, checkpoint)
        recipe = self.recipe = with_known_range(self.recipe, self.train, emit, header)
        header = header.model_copy(update={"range": recipe.data.range_})
        self.reader = self._train_reader(options, encoder)
        self.model, self.header = self._with_head(encoder, header, options)
        self.model.to(device)
        optimizer = make_adamw(groups_of(self.model, options), options.optimizer)
        # Before blocks are wrapped below: a copy of a wrapped block would run the one it is a copy
        # of.
        self.average = (
            None if options.ema is None else MovingAverage(self.model, optimizer, options.ema)
        )
        if options.activation_checkpointing:
            recompute(self.blocks())
        repeats = options.repeats if options.optimizer.lr_counts_repeats else 1
        counted = self.split.effective * repeats
        self.state = self.initial_state(self.model, optimizer, counted=counted)
        if self.average is not None:
            self.state.averages = (self.average.model,)
        self.state.extra["from"] = source
        self.step = self._step(options)

    @abstractmethod
    def _task(self, options: Finetune) -> Supervised:
        """Return what is learned of data.train and judged on data.val, and announce it."""

    @abstractmethod
    def _train_reader(self, options: Finetune, encoder: MaskedAutoencoder) -> SampleReader:
        """Return a reader of augmented training samples."""

    @abstractmethod
    def _with_head(
        self, encoder: MaskedAutoencoder, header: Header, options: Finetune
    ) -> tuple[Headed, Header]:
        """Put a fresh head on an encoder, and return it with its header."""

    @abstractmethod
    def _step(self, options: Finetune) -> Step:
        """Return the step, from a micro-batch to the loss."""

    def judged_set(self) -> Dataset:
        """Return data.val.

        Raises:
            RecipeError: there is none.
        """
        if self.val is None:
            raise needs_val()
        return self.val

    def check_outputs(self, found: int) -> None:
        """Refuse a set that has other classes than the recipe says.

        Raises:
            DataError: it has more or fewer.
        """
        wanted = self.section.head.classes
        if wanted not in (None, found):
            msg = f"data.train has {found} classes, and finetune.head.classes is {wanted}"
            hint = "is it the right set? else set finetune.head.classes to what it has"
            raise DataError(msg, where="finetune.head.classes", hint=hint)

    def _encoder(
        self, source: str | None, checkpoint: CheckpointOnDisk | None
    ) -> tuple[MaskedAutoencoder, Header]:
        if checkpoint is not None:
            return resumed_encoder(checkpoint, self.recipe)
        if source in (None, SCRATCH):
            statistics = statistics_of(self.recipe, self.train, self.device.type, self.emit)
            return untrained_encoder(self.recipe, statistics)
        return load_encoder(str(source), self.recipe, own_stats=self.section.own_stats)

    @classmethod
    def find_source(cls, recipe: Recipe, requested: str | None, emit: Emit) -> str:
        """Return the requested weights, else the recipe's newest finished pre-training.

        Raises:
            RecipeError: there is none, or nothing to fine-tune with.
        """
        required_finetune(recipe)
        return weights_or_newest(recipe, requested, emit)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the encoder's blocks."""
        return self.model.backbone.blocks()

    def sizes(self) -> dict[str, int]:
        """Return the tokens of a sample, the outputs, and how many parameters are trained."""
        trained = sum(parameter.numel() for parameter in self.state.trained())
        tokens, outputs = self.model.grid.tokens, len(self.task.outputs)
        return {"tokens": tokens, "classes": outputs, "trained_parameters": trained}

    def size_row(self) -> tuple[str, str]:
        """Return the same for people."""
        tokens, outputs, trained = self.sizes().values()
        text = f"{tokens} in a grid of {self.model.grid}; {outputs} outputs, {trained:,} trained"
        return "tokens", text

    def resident(self) -> Iterable[Tensor]:
        """Return the classifier, and its moving average where there is one."""
        yield from super().resident()
        if self.average is not None:
            yield from self.average.model.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """Return the classifier, and its moving average where there is one."""
        average = {} if self.average is None else self.average.tensors()
        return classifier_tensors(self.model) | average

    def exported(self) -> dict[str, Tensor]:
        """Return the classifier that is judged."""
        return classifier_tensors(self.judged)

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put a checkpoint's tensors in place."""
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(AVERAGE)}
        load_classifier_tensors(self.model, own, where)
        if self.average is not None:
            self.average.load(tensors)

    def described(self) -> Header:
        """Return how to rebuild the classifier, and where its weights come from."""
        return self.header.model_copy(update={"source": self.provenance})

    @property
    def judged(self) -> Headed:
        """The model whose accuracy counts: the moving average where there is one."""
        if self.average is None:
            return self.model
        model = self.average.model
        assert isinstance(model, Headed)  # noqa: S101 - it is a copy of one
        return model

    def measures(self) -> list[Periodic]:
        """Judge data.val every so many steps."""
        when = self.section.validate_
        epochs = when.epochs or 1.0
        every = when.every or max(1, round(epochs * self.state.steps_per_epoch))
        return [Periodic(every, self.evaluate, at_start=False)]

    @abstractmethod
    def evaluate(self, state: TrainState) -> None:
        """Judge data.val."""

    def record(
        self, state: TrainState, values: dict[str, float | None], left_out: Mapping[str, int]
    ) -> None:
        """Keep what data.val showed, and whether it is the best so far."""
        state.extra.setdefault(LEFT_OUT, {})["data.val"] = dict(left_out)
        state.extra["test"] = values
        value = values[self.task.best]
        if value is not None and (self.best is None or value > self.best[self.task.best]):
            state.extra["best"] = values | {"step": state.step}
        self.emit(Measured(state.step, "test", values))


class FinetuneJob(SupervisedJob):
    """Train an encoder and a head on labels."""

    model: Classifier
    task: Task
    predictions: Predictions | None = None  # of the last time that data.val was judged

    def _task(self, options: Finetune) -> Task:
        val = self.judged_set()
        task = task_of(options.head.kind, self.train, val)
        self.check_outputs(len(task.outputs))
        announce_task(task, self.train, val, self.emit)
        return task

    def _train_reader(self, options: Finetune, encoder: MaskedAutoencoder) -> SampleReader:
        return train_reader(self, options, encoder)

    def _with_head(
        self, encoder: MaskedAutoencoder, header: Header, options: Finetune
    ) -> tuple[Classifier, Header]:
        return make_classifier(encoder, header, options, self.task, self.recipe.seed)

    def _step(self, options: Finetune) -> Step:
        return make_step(self, options, self.model, self.task)

    def evaluate(self, state: TrainState) -> None:
        """Judge data.val by one view of each sample, at the end by all of them too.

        Checkpoints and the curve compare one view with one view.
        """
        found = self._predict(all_views=state.finished)
        if "test" not in state.extra:
            warn_at_chance(self.task, found.single, self.emit)
        self.record(state, self.task.measure(found.single), found.left_out)
        if state.finished:
            self._finish(found)

    def _finish(self, found: Predictions) -> None:
        """Keep what the last look at data.val showed."""
        self.predictions = found
        extra, views = self.state.extra, self.section.views
        extra["all_views"] = self.task.measure(found.scores)
        extra["judged"] = Judged(self.task, found).summary()
        if views.clips * views.crops > 1:
            self.emit(Measured(self.state.step, "all_views", extra["all_views"]))

    def _predict(self, *, all_views: bool) -> Predictions:
        """Score every row of data.val, in its order; a file that cannot be read is fatal."""
        reader = self._test_reader(all_views=all_views)
        model = self.judged
        reading = Reading(
            self.device, self.split.per_device, self.workers, self.recipe.data.timeout
        )

        def logits(pixels: Tensor) -> Tensor:
            with self.precision.autocast():
                scores: Tensor = model(model.normalize(pixels))
            return scores

        with eval_mode(model):
            return predict(reader, self.task.labels, logits, reading, self.task.scores)

    def _test_reader(self, *, all_views: bool) -> ViewReader:
        data, views = self.recipe.data, self.section.views
        val = self.judged_set()
        assert data.val is not None  # noqa: S101 - it is what was opened
        return view_reader(
            val,
            data.val,
            views if all_views else views.center,
            size=data.height_width,
            channels=data.channels,
            rendering=Rendering.of(data),
        )

    def export(self, path: Path) -> None:
        """Write the final weights, what they predict for data.val, and what that shows."""
        super().export(path)
        if self.predictions is None:  # killed in an earlier run, right after its last checkpoint
            self.predictions = self._predict(all_views=True)
        found, reader = self.predictions, self._test_reader(all_views=False)

        def write() -> None:
            found.write(path.with_name(PREDICTIONS))
            judged = Judged(self.task, found)
            judged.write(path.parent, reader, self.emit, step=self.state.step)

        distributed.on_first(write)

    def result(self) -> dict[str, Any]:
        """Return what data.val showed, as fractions; before the end, of one view of each sample."""
        extra, views = self.state.extra, self.section.views
        # A run that was extended still has those of its first end.
        ended = extra if self.state.finished else {}
        return {
            **(ended.get("all_views") or extra.get("test") or {}),
            "single_view": extra.get("test"),
            "best": self.best,
            **(ended.get("judged") or {"per_class": extra.get("per_class")}),
            "floor": {"chance": self.task.chance()},
            "classes": len(self.task.outputs),
            "protocol": f"{VERB}/{self.section.blocks}/{views.clips}x{views.crops}",
            "pool": self.section.pool,
            "from": extra.get("from"),
        }


def required_finetune(recipe: Recipe) -> Finetune:
    """Return the finetune section; raise RecipeError without one, or without data.val."""
    if recipe.finetune is None:
        msg = "the recipe has no finetune section"
        raise RecipeError(msg, where=VERB, hint="`maekit recipes show mae_in1k_vit_b` has one")
    if recipe.data.val is None:
        raise needs_val()
    return recipe.finetune


def needs_val() -> RecipeError:
    """Return the error that says that fine-tuning is judged on data.val."""
    msg = "fine-tuning is judged on data.val, and there is none"
    hint = "'data.val={split: 0.1}' holds a tenth of data.train out; or data.val.path=OTHERS"
    return RecipeError(msg, where="data.val", hint=hint)
