"""The job of ``maekit pretrain``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maekit.contracts import Target
from maekit.engine import distributed
from maekit.engine.batches import (
    holdout_reader,
    statistics_of,
    train_reader,
    with_known_range,
)
from maekit.engine.build import (
    build_model,
    check_fit,
    compatible_header,
    header_of,
    load_into,
    required_pretrain,
)
from maekit.engine.events import Note
from maekit.engine.fit_batch import fit_batch
from maekit.engine.job import ValidatedJob
from maekit.engine.optim import make_optimizer, tokens_free_of_decay
from maekit.engine.parallel import whole
from maekit.engine.self_check import check_blind, check_own_weights, check_reads_twice
from maekit.engine.step import PretrainStep, recompute, to_device_float01
from maekit.engine.validation import validation_errors
from maekit.errors import RecipeError
from maekit.layers import Statistics
from maekit.origin import fault
from maekit.recipe.schema import TargetSpec
from maekit.registry import spec_of
from maekit.weights.importer import Weights, open_weights
from maekit.weights.locate import check_exists
from maekit.weights.safetensors_io import load_tensors, model_tensors, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from maekit.contracts import Dataset
    from maekit.data.reader import SampleReader
    from maekit.engine.events import Emit
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import Pretrain, Recipe
    from maekit.weights.checkpoints import CheckpointOnDisk
    from maekit.weights.header import Header

FIT_SAMPLES = 2048  # what a target is fitted on, at least


class PretrainJob(ValidatedJob):
    """Pre-train a masked autoencoder."""

    verb = "pretrain"
    section: Pretrain
    model: MaskedAutoencoder
    weights: Weights | None = None  # that a fresh run starts from
    # Why the decoder keeps its first initialization though there are weights, if it does.
    decoder_reset_reason: str | None = None

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
        pretrain = required_pretrain(recipe)
        if checkpoint is None:
            check_fit(recipe)
        super().__init__(recipe, device, emit, bad_files_path=bad_files_path)
        # ``auto`` is never looked for twice.
        resumed = None if checkpoint is None else read_header(checkpoint.weights)
        recipe = self.recipe = with_known_range(recipe, self.train, emit, resumed)
        header = self._header(source, checkpoint)
        self.model = build_model(header, recipe.seed)
        self.header = header.model_copy(update={"grid": self.model.grid})
        self.reader = train_reader(recipe, self.train, self.model)
        self.model.to(device)
        if pretrain.activation_checkpointing:
            recompute(self.blocks())
        optimizer = pretrain.optimizer
        free = () if optimizer.decay_tokens else tokens_free_of_decay(self.model)
        repeats = pretrain.repeats if optimizer.lr_counts_repeats else 1
        self.state = self.initial_state(
            self.model,
            make_optimizer(self.model, optimizer, free),
            counted=self.split.effective * repeats,
        )
        self.step = PretrainStep(
            self.model,
            self.precision,
            loss_on=pretrain.loss_on,
            compiled=pretrain.compiles(device.type),
        )

    def _header(self, source: str | None, checkpoint: CheckpointOnDisk | None) -> Header:
        """Return what the model is, and remember the weights that it starts from."""
        recipe = self.recipe
        if checkpoint is not None:
            # ``stats: auto`` is never computed twice.
            found = read_header(checkpoint.weights)
            wanted = header_of(recipe, Statistics(found.mean, found.std))
            return compatible_header(found, wanted, str(checkpoint.folder)).header
        statistics = statistics_of(recipe, self.train, self.device.type, self.emit)
        wanted = header_of(recipe, statistics)
        if source is None:
            return wanted
        self.weights = open_weights(source)
        header, self.decoder_reset_reason = compatible_header(
            self.weights.header, wanted, self.weights.origin
        )
        return header

    @classmethod
    def find_source(cls, recipe: Recipe, requested: str | None, emit: Emit) -> str | None:  # noqa: ARG003
        """Return the requested weights, once they are known to be there."""
        if requested is not None:
            check_exists(requested)
        return requested

    def blocks(self) -> Sequence[nn.Module]:
        """Return the encoder's blocks."""
        return self.model.backbone.blocks()

    def sizes(self) -> dict[str, int]:
        """Return the tokens of a sample, and how many of them the encoder sees."""
        hidden = self.reader.hidden.count if self.reader.hidden else 0
        tokens = self.model.grid.tokens
        return {"tokens": tokens, "visible": tokens - hidden}

    def size_row(self) -> tuple[str, str]:
        """Return the same for people."""
        sizes = self.sizes()
        text = f"{sizes['tokens']} in a grid of {self.model.grid}, {sizes['visible']} visible"
        return "tokens", text

    def prepare(self, checkpoint: CheckpointOnDisk | None) -> None:
        """Load the target's frozen network, if it has one; then start or resume as every job."""
        pinned = self.model.required_target().open()
        if pinned:
            self._pin(pinned)
        super().prepare(checkpoint)
        if self.section.batch.per_device == "auto":
            self.split = fit_batch(self)
        self.model.required_target().attach(self.model.backbone)
        check_own_weights(self.model, self.described())
        check_reads_twice(self.reader, self.stream.keys(0)[0])
        if self.reader.hidden is not None:
            black = np.zeros((*self.model.clip, self.recipe.data.channels), np.uint8)
            check_blind(self.model, self.reader.hidden.draw(np.random.default_rng(0), black))
        self.state.optimizer.register_step_post_hook(self._after_update)

    def _follows(self) -> bool:
        """Return whether the target follows updates."""
        return type(self.model.required_target()).after_update is not Target.after_update

    @torch.no_grad()
    def _after_update(self, *_: object) -> None:
        """Let the target follow, also an update that is skipped: only the device knows of that."""
        if self._follows():
            with whole(self.model.backbone):  # of ranks that share it out
                steps = self.state.schedule.steps
                self.model.required_target().after_update(self.state.step, steps)

    def extended(self, at: int) -> Iterator[str]:
        """Say that a target which follows updates is told of the new budget."""
        if self._follows() and self.header.target is not None:
            name, schedule = self.header.target.name, self.state.schedule
            yield (
                f"target {name} follows updates by a schedule of its own, of {schedule.steps:,} "
                f"steps from here on: what it had at {at:,} of fewer steps may jump back"
            )

    def _pin(self, options: Mapping[str, Any]) -> None:
        """Keep in the header which frozen network the weights were trained against."""
        spec, target = self.header.target, self.model.required_target()
        if spec is None:
            return
        unknown = sorted(options.keys() - type(spec.options).model_fields.keys())
        if unknown:
            what = f"returns {', '.join(unknown)} from open, which its Options do not have"
            raise fault(target, what, "add it to them, as `sha256: str | None = None`")
        try:
            pinned = spec_of(TargetSpec, spec.written | dict(options))
        except RecipeError as error:
            raise fault(
                target, f"returns what its Options refuse from open: {error.what}"
            ) from error
        pinned.stand_at(spec.place)
        self.header = self.header.model_copy(update={"target": pinned})

    def tensors(self) -> dict[str, Tensor]:
        """Return encoder, decoder, and what the target fitted."""
        return model_tensors(self.model)

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put tensors into the model and its target."""
        load_tensors(self.model, tensors, where)

    def described(self) -> Header:
        """Return how to rebuild the model, and where its weights come from."""
        return self.header.model_copy(update={"source": self.provenance})

    def start_fresh(self) -> None:
        """Load given weights; fit the target unless they bring it fitted."""
        if self.weights is not None:
            self.emit(Note(f"starting from {self.weights.origin}"))
            for note in self.weights.report.notes:
                self.emit(Note(note))
            if self.weights.header.target is None and self.decoder_reset_reason is None:
                target = None if self.header.target is None else self.header.target.name
                text = f"the weights' target is unknown: the recipe's is taken, {target}"
                self.emit(Note(text, warning=True))
            for change in load_into(self.model, self.weights, self.decoder_reset_reason):
                self.emit(Note(str(change)))
            if self.decoder_reset_reason is None:
                return
        fits = self.model.required_target()

        def fitted() -> dict[str, Tensor]:
            fits.fit(self._views_to_fit())
            return {name: tensor.cpu() for name, tensor in fits.state().items()}

        state = distributed.on_first(fitted)
        if not distributed.is_first():
            fits.load_state(state)

    def _views_to_fit(self) -> Iterator[Sequence[Tensor]]:
        """Yield views of the first training batches, as ``Target.encode`` gets them."""
        updates = -(-FIT_SAMPLES // self.split.effective)
        source = self.batches()
        source.split = self.split.alone
        source.stop = min(updates, source.stop)
        with source as micro_batches:
            for update in micro_batches:
                for batch in update:
                    good = batch.weight > 0
                    yield [to_device_float01(view[good], self.device) for view in batch.views]

    def holdout_reader(self, dataset: Dataset) -> SampleReader:
        """Return a reader of the center of each sample, under masks that never change."""
        return holdout_reader(self.recipe, dataset, self.model)

    def result(self) -> dict[str, Any]:
        """Return the held-out errors, and what an online probe found, last and at its best."""
        extra = self.state.extra
        found = {"probe": extra["probe"], "best": self.best} if "probe" in extra else {}
        return super().result() | found

    def measure(self) -> dict[str, float | None]:
        """Return the masked loss, and for targets that paint the errors of pixels."""
        return validation_errors(self.model, self.held_out or (), self.precision)
