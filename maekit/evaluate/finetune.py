"""``maekit finetune``: the supervised training of an encoder, ready for the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from maekit.engine.events import Measured
from maekit.engine.feed import statistics_of
from maekit.engine.loop import Occasion
from maekit.engine.optim import make_adamw
from maekit.engine.run_folder import PREDICTIONS
from maekit.engine.step import recompute
from maekit.engine.training import Basis, Training
from maekit.errors import DataError, RecipeError
from maekit.evaluate.classifier import Classifier, classifier_tensors, load_classifier_tensors
from maekit.evaluate.ema import EMA, MovingAverage
from maekit.evaluate.encoder import (
    SCRATCH,
    load_encoder,
    resumed_encoder,
    untrained_encoder,
    weights_or_newest,
)
from maekit.evaluate.labels import Task, task_of, tell_task, warn_at_chance
from maekit.evaluate.predictions import Predictions, predict
from maekit.evaluate.supervision import VERB, groups_of, make_classifier, make_step, train_reader
from maekit.evaluate.views import ViewReader, view_reader

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from maekit.data.reader import SampleReader
    from maekit.engine.checkpoint import Loaded
    from maekit.engine.events import Emit
    from maekit.engine.state import TrainState
    from maekit.evaluate.supervision import FinetuneStep
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.finetune import Finetune
    from maekit.recipe.schema import Recipe
    from maekit.weights.header import Header


class Finetuning(Training):
    """All of a fine-tuning."""

    verb = VERB
    section: Finetune
    model: Classifier

    def __init__(
        self,
        basis: Basis,
        step: FinetuneStep,
        reader: SampleReader,
        state: TrainState,
        header: Header,
        average: MovingAverage | None,
    ) -> None:
        super().__init__(basis, step.model, reader, state, step)
        self.task: Task = step.task
        self.header = header
        self.average = average
        self.predictions: Predictions | None = None  # of the last time that data.val was judged

    def tensors(self) -> dict[str, Tensor]:
        """The classifier, and its moving average where there is one."""
        average = {} if self.average is None else self.average.tensors()
        return classifier_tensors(self.model) | average

    def exported(self) -> dict[str, Tensor]:
        """The classifier that is judged."""
        return classifier_tensors(self.judged)

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put a checkpoint's tensors in place."""
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(EMA)}
        load_classifier_tensors(self.model, own, where)
        if self.average is not None:
            self.average.load(tensors)

    def described(self) -> Header:
        """How to rebuild the classifier, and where its weights come from."""
        return self.header.model_copy(update={"source": self.source})

    def start(self) -> None:
        """Nothing is left to do: weights are in place since the model was built."""

    @property
    def judged(self) -> Classifier:
        """The model whose accuracy counts: the moving average where there is one."""
        if self.average is None:
            return self.model
        model = self.average.model
        assert isinstance(model, Classifier)  # noqa: S101 - it is a copy of one
        return model

    def open_holdout(self) -> None:
        """Nothing is kept in memory: data.val is read each time."""

    def occasions(self) -> list[Occasion]:
        """Data.val, every so many steps."""
        when = self.section.validate_
        epochs = when.epochs or 1.0
        every = when.every or max(1, round(epochs * self.state.steps_per_epoch))
        return [Occasion(every, self.evaluate, at_start=False)]

    def evaluate(self, state: TrainState) -> None:
        """An occasion: judge data.val by one view of each sample, at the end by all of them too.

        Checkpoints and the curve compare one view with one view.
        """
        found = self._predict(all_views=state.finished)
        values = self.task.measure(found.single)
        if "test" not in state.extra:
            warn_at_chance(self.task, values[self.task.best], self.emit)
        state.extra["test"] = values
        value = values[self.task.best]
        if value is not None and (self.best is None or value > self.best[self.task.best]):
            state.extra["best"] = values | {"step": state.step}
        self.emit(Measured(state.step, "test", values))
        if state.finished:
            self._finish(found)

    def _finish(self, found: Predictions) -> None:
        """Keep what the last look at data.val showed."""
        self.predictions = found
        extra, views = self.state.extra, self.section.views
        extra["all_views"] = self.task.measure(found.scores)
        if self.task.kind == "multiclass":
            extra["per_class"] = found.per_class(self.task.outputs)
        if views.clips * views.crops > 1:
            self.emit(Measured(self.state.step, "all_views", extra["all_views"]))

    def _predict(self, *, all_views: bool) -> Predictions:
        """Scores of every row of data.val, in its order; a file that cannot be read is fatal."""
        reader = self._test_reader(all_views=all_views)
        model = self.judged
        was_training = model.training
        model.eval()

        def logits(pixels: Tensor) -> Tensor:
            with self.precision.autocast():
                scores: Tensor = model(model.normalize(pixels))
            return scores

        found = predict(
            reader,
            self.task.truth,
            logits,
            device=self.device,
            batch=self.split.per_device,
            workers=self.workers,
            timeout=self.recipe.data.timeout,
            activation=self.task.scores,
        )
        model.train(was_training)
        return found

    def _test_reader(self, *, all_views: bool) -> ViewReader:
        data, views = self.recipe.data, self.section.views
        if self.val is None or data.val is None:
            raise needs_val()
        return view_reader(
            self.val,
            data.val,
            views if all_views else views.center,
            size=data.height_width,
            channels=data.channels,
            float_ok=data.stats is not None,
        )

    def export(self, path: Path) -> None:
        """Write the final weights, and beside them what they make of each sample of data.val."""
        super().export(path)
        if self.predictions is None:  # killed in an earlier run, right after its last checkpoint
            self.predictions = self._predict(all_views=True)
        self.predictions.write(path.with_name(PREDICTIONS))

    def result(self) -> dict[str, Any]:
        """What data.val showed; fractions. Before the end there is one view of each sample."""
        extra, views = self.state.extra, self.section.views
        return {
            **(extra.get("all_views") or extra.get("test") or {}),
            "single_view": extra.get("test"),
            "best": self.best,
            "per_class": extra.get("per_class"),
            "floor": {"chance": self.task.chance()},
            "classes": len(self.task.outputs),
            "protocol": f"{VERB}/{self.section.blocks}/{views.clips}x{views.crops}",
            "pool": self.section.pool,
            "from": extra.get("from"),
        }


def assemble(
    recipe: Recipe,
    device: torch.device,
    emit: Emit,
    *,
    source: str | None = None,
    loaded: Loaded | None = None,
    bad_files: Path | None = None,
) -> Finetuning:
    """Build everything that a resolved recipe's ``finetune`` section asks for.

    Args:
        source: of the encoder's weights, or ``scratch``; None: the newest finished pre-training
            run of this recipe.
        loaded: the checkpoint that is to be resumed.
        bad_files: where unreadable files are recorded.

    Raises:
        RecipeError, PartError: what is asked for cannot be had.
        WeightsError: the weights are of another encoder.
        DataError: labels that cannot be learned.
    """
    options = required_finetune(recipe)
    if loaded is None:
        source = chosen_source(recipe, source, emit)
    basis = Basis.of(recipe, VERB, device, emit, bad_files)
    task = _task(basis, options)
    encoder, header = _encoder(basis, source, loaded)
    reader = train_reader(basis, options, encoder)
    model, header = make_classifier(encoder, header, options, task, recipe.seed)
    model.to(device)
    optimizer = make_adamw(groups_of(model, options), options.optimizer)
    # Before blocks are wrapped below: a copy of a wrapped block would run the one it is a copy of.
    average = None if options.ema is None else MovingAverage(model, optimizer, options.ema)
    if options.activation_checkpointing:
        recompute(model.backbone.blocks())
    repeats = options.repeats if options.optimizer.lr_counts_repeats else 1
    state = basis.state(model, optimizer, counted=basis.split.effective * repeats)
    state.extra["from"] = source
    step = make_step(basis, options, model, task)
    return Finetuning(basis, step, reader, state, header, average)


def _task(basis: Basis, options: Finetune) -> Task:
    if basis.val is None:
        raise needs_val()
    task = task_of(options.head.kind, basis.train, basis.val)
    wanted, found = options.head.classes, len(task.outputs)
    if wanted not in (None, found):
        msg = f"data.train has {found} classes, and finetune.head.classes is {wanted}"
        hint = "is it the right set? else set finetune.head.classes to what it has"
        raise DataError(msg, where="finetune.head.classes", hint=hint)
    tell_task(task, basis.train, basis.val, basis.emit)
    return task


def _encoder(
    basis: Basis, source: str | None, loaded: Loaded | None
) -> tuple[MaskedAutoencoder, Header]:
    if loaded is not None:
        return resumed_encoder(loaded, basis.recipe)
    if source in (None, SCRATCH):
        recipe = basis.recipe
        statistics = statistics_of(recipe, basis.train, basis.device.type, basis.emit)
        return untrained_encoder(recipe, statistics)
    return load_encoder(str(source), basis.recipe)


def chosen_source(recipe: Recipe, source: str | None, emit: Emit) -> str:
    """The weights asked for, else of the newest finished pre-training run of the recipe.

    Raises:
        RecipeError: there is none, or nothing to fine-tune with.
    """
    required_finetune(recipe)
    return weights_or_newest(recipe, source, emit)


def required_finetune(recipe: Recipe) -> Finetune:
    """The finetune section; an error where there is none, or nothing to judge it on."""
    if recipe.finetune is None:
        msg = "the recipe has no finetune section"
        raise RecipeError(msg, where=VERB, hint="`maekit recipes show mae_in1k_vit_b` has one")
    if recipe.data.val is None:
        raise needs_val()
    return recipe.finetune


def needs_val() -> RecipeError:
    """Fine-tuning is judged on data.val."""
    msg = "fine-tuning is judged on data.val, and there is none"
    hint = "data.val.name=images data.val.path=FOLDER (or a list with labels)"
    return RecipeError(msg, where="data.val", hint=hint)
