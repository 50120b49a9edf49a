"""A pre-training put together from a resolved recipe, ready for the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit.engine.build import agreed_header, build_model, fill, header_of
from maekit.engine.checkpoint import Loaded
from maekit.engine.events import Note
from maekit.engine.feed import holdout_reader, required_pretrain, statistics_of, train_reader
from maekit.engine.held_out import HeldOutTraining
from maekit.engine.holdout import Holdout
from maekit.engine.optim import make_optimizer, tokens_free_of_decay
from maekit.engine.step import PretrainStep, recompute, to_unit
from maekit.engine.training import Basis
from maekit.layers import Statistics
from maekit.weights.file import read_header
from maekit.weights.model import load_tensors, model_tensors
from maekit.weights.source import Weights, open_weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from maekit.contracts import Dataset
    from maekit.data.reader import SampleReader
    from maekit.engine.events import Emit
    from maekit.engine.state import TrainState
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import Pretrain, Recipe
    from maekit.weights.header import Header

FIT_SAMPLES = 2048  # what a target is fitted on, at least


class Begin(NamedTuple):
    """The header of the model, completed by what it starts from.

    Attributes:
        weights: that it starts from; None: a fresh model, or a checkpoint.
        fresh_decoder: why these leave the decoder as it is; None where they do not.
    """

    header: Header
    weights: Weights | None = None
    fresh_decoder: str | None = None


class Pretraining(HeldOutTraining):
    """All of a pre-training."""

    verb = "pretrain"
    section: Pretrain
    model: MaskedAutoencoder

    def __init__(
        self,
        basis: Basis,
        model: MaskedAutoencoder,
        reader: SampleReader,
        state: TrainState,
        step: PretrainStep,
        begin: Begin,
    ) -> None:
        super().__init__(basis, model, reader, state, step)
        self.header, self.weights, self.fresh_decoder = begin

    def prepare(self, loaded: Loaded | None) -> None:
        """As of every training, once the target has read what it is not fitted but given."""
        pinned = self.model.required_target().open()
        if pinned:
            self._pin(pinned)
        super().prepare(loaded)

    def _pin(self, options: Mapping[str, Any]) -> None:
        """Keep with the weights what says which frozen network they were trained against."""
        target = self.header.target
        if target is not None:
            pinned = target.with_options(target.options.model_copy(update=dict(options)))
            self.header = self.header.model_copy(update={"target": pinned})

    def tensors(self) -> dict[str, Tensor]:
        """Encoder, decoder, and what the target fitted."""
        return model_tensors(self.model)

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put tensors into the model and its target."""
        load_tensors(self.model, tensors, where)

    def described(self) -> Header:
        """How to rebuild the model, and where its weights come from."""
        return self.header.model_copy(update={"source": self.source})

    def start(self) -> None:
        """Take given weights, and fit the target, if it is one that is fitted and nothing is."""
        if self.weights is not None:
            self.emit(Note(f"starting from {self.weights.origin}"))
            for note in self.weights.report.notes:
                self.emit(Note(note))
            if self.weights.header.target is None and self.fresh_decoder is None:
                target = None if self.header.target is None else self.header.target.name
                text = f"the weights' target is unknown: the recipe's is taken, {target}"
                self.emit(Note(text, warning=True))
            for change in fill(self.model, self.weights, self.fresh_decoder):
                self.emit(Note(str(change)))
            if self.fresh_decoder is None:
                return
        self.model.required_target().fit(self._views_to_fit())

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

    def holdout_reader(self, dataset: Dataset) -> SampleReader:
        """Reads the center of each sample, under masks that never change."""
        return holdout_reader(self.recipe, dataset, self.model)

    def result(self) -> dict[str, Any]:
        """The held-out errors, and what an online probe found, last and at its best."""
        extra = self.state.extra
        found = {"probe": extra["probe"], "best": self.best} if "probe" in extra else {}
        return super().result() | found

    def measure(self) -> dict[str, float | None]:
        """The masked loss, and for targets that paint the errors of pixels."""
        return Holdout(self.held_out).measure(self.model, self.precision)


def assemble(
    recipe: Recipe,
    device: torch.device,
    emit: Emit,
    *,
    source: str | None = None,
    loaded: Loaded | None = None,
    bad_files: Path | None = None,
) -> Pretraining:
    """Build everything that a resolved recipe asks for.

    Args:
        source: weights to start from; None: fresh ones.
        loaded: the checkpoint that is to be resumed: it knows the statistics of the data.
        bad_files: where unreadable files are recorded.

    Raises:
        RecipeError, PartError, DataError: what is asked for cannot be had.
        WeightsError: the weights are of another model.
    """
    pretrain = required_pretrain(recipe)
    basis = Basis.of(recipe, "pretrain", device, emit, bad_files)
    begin = _begin(basis, source, loaded)
    model = build_model(begin.header, recipe.seed)
    begin = begin._replace(header=begin.header.model_copy(update={"grid": model.grid}))
    reader = train_reader(recipe, basis.train, model)
    model.to(device)
    if pretrain.activation_checkpointing:
        recompute(model.backbone.blocks())
    optimizer = pretrain.optimizer
    free = () if optimizer.decay_tokens else tokens_free_of_decay(model)
    repeats = pretrain.repeats if optimizer.lr_counts_repeats else 1
    state = basis.state(
        model, make_optimizer(model, optimizer, free), counted=basis.split.effective * repeats
    )
    step = PretrainStep(model, basis.precision, loss_on=pretrain.loss_on, compiled=pretrain.compile)
    return Pretraining(basis, model, reader, state, step, begin)


def _begin(basis: Basis, source: str | None, loaded: Loaded | None) -> Begin:
    """What the model is, and what it starts from."""
    recipe = basis.recipe
    if loaded is not None:
        # ``stats: auto`` is never computed twice.
        found = read_header(loaded.weights)
        asked = header_of(recipe, Statistics(found.mean, found.std))
        return Begin(agreed_header(found, asked, str(loaded.folder)).header)
    asked = header_of(recipe, statistics_of(recipe, basis.train, basis.device.type, basis.emit))
    if source is None:
        return Begin(asked)
    weights = open_weights(source)
    header, fresh = agreed_header(weights.header, asked, weights.origin)
    return Begin(header, weights, fresh)
