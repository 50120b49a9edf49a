"""The job of ``maekit tokenizer``: train a discrete VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maekit.data.rng import seeded
from maekit.engine.batches import picture_reader, with_known_range
from maekit.engine.events import Note
from maekit.engine.job import ValidatedJob
from maekit.engine.loop import Weighed
from maekit.engine.optim import make_optimizer
from maekit.engine.step import recompute, send, to_device_float01
from maekit.errors import RecipeError, WeightsError
from maekit.targets.dvae_networks import DVAE, as_pictures, check_range
from maekit.tokenizer.losses import annealed, gumbel_noise, relaxed_bound, validation_errors
from maekit.weights.checks import check_numbers
from maekit.weights.header import DVAEHeader
from maekit.weights.locate import find_weights
from maekit.weights.safetensors_io import load_exactly, read_header_as, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.reader import SampleReader
    from maekit.engine.events import Emit
    from maekit.engine.loop import TrainState
    from maekit.engine.precision import Precision
    from maekit.recipe.schema import Recipe
    from maekit.recipe.tokenizer import Tokenizer
    from maekit.weights.checkpoints import CheckpointOnDisk

VERB = "tokenizer"
RAMPS = ("temperature", "kl_weight")


class TokenizerStep:
    """Encode, relax, decode and compare."""

    def __init__(
        self, model: DVAE, options: Tokenizer, precision: Precision, state: TrainState, seed: int
    ) -> None:
        self.model = model
        self.options = options
        self.precision = precision
        self.state = state
        self.seed = seed
        self._checked = False
        self._bound: Callable[..., Tensor] = (
            torch.compile(relaxed_bound) if options.compiles(precision.device) else relaxed_bound
        )

    def weigh(self, batch: Batch) -> Weighed:
        """Count the samples that are good."""
        return Weighed(batch, float(batch.weight.sum()))

    def loss(self, weighed: Weighed) -> Tensor:
        """Return the weighted sum of the bound over samples; a clip counts as its frames' mean."""
        batch, device = weighed.batch, next(self.model.parameters()).device
        clips = to_device_float01(batch.views[0], device)
        if not self._checked:  # once: reading it back makes an accelerator wait
            check_range(clips, "data.train")
            self._checked = True
        pixels = as_pictures(clips)
        frames = clips.shape[2]
        height, width = (side // self.model.sizes.stride for side in clips.shape[3:])
        noise = gumbel_noise(
            batch.keys, (frames, self.model.sizes.vocabulary, height, width), self.seed, device
        )
        temperature, kl_weight = self._annealed(device)
        with self.precision.autocast():
            each = self._bound(
                self.model, self.options.loss, pixels, noise.flatten(0, 1), temperature, kl_weight
            )
        sample = each.float().unflatten(0, (-1, frames)).mean(dim=1)
        total: Tensor = (sample * send(torch.from_numpy(batch.weight), device)).sum()
        return total

    def _annealed(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return temperature and KL weight of the coming update.

        As tensors: a compiled function would be compiled anew for every other number.
        """
        # An extended run keeps the ramps that it was trained by: cut anew they would jump back.
        step, budget = self.state.step, self.state.schedule.first_steps
        values = [annealed(getattr(self.options, name), step, budget) for name in RAMPS]
        temperature, kl_weight = send(torch.tensor(values), device)
        return temperature, kl_weight


class TokenizerJob(ValidatedJob):
    """Train a discrete VAE."""

    verb = VERB
    model: DVAE
    step: TokenizerStep
    given: Path | None = None  # weights that it starts from

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
        options = required_tokenizer(recipe)
        check_size(recipe, options)
        super().__init__(recipe, device, emit, bad_files_path=bad_files_path)
        recipe = self.recipe = with_known_range(recipe, self.train, emit)
        with seeded(recipe.seed, purpose="init"):
            self.model = DVAE(options.dvae, recipe.data.channels)
        # Convolutions of few features are up to twice as fast with the channels last.
        self.model.to(device).to(memory_format=torch.channels_last)
        if options.activation_checkpointing:
            recompute(self.blocks())
        self.state = self.initial_state(self.model, make_optimizer(self.model, options.optimizer))
        self.reader = picture_reader(recipe, VERB, self.train, held_out=False)
        self.step = TokenizerStep(self.model, options, self.precision, self.state, recipe.seed)
        if checkpoint is not None:
            self.check(checkpoint.weights)
        elif source is not None:
            self.given = find_weights(source)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks of both networks."""
        return self.model.blocks()

    def sizes(self) -> dict[str, int]:
        """Return the codes of one picture, and how many different ones there are."""
        rows, columns = self._codes()
        return {"tokens": rows * columns, "vocabulary": self.model.sizes.vocabulary}

    def size_row(self) -> tuple[str, str]:
        """Return the same for people."""
        rows, columns = self._codes()
        return "codes", f"{rows}x{columns} a picture, of {self.model.sizes.vocabulary:,}"

    def _codes(self) -> tuple[int, int]:
        """Return rows and columns of codes of one picture."""
        height, width = self.recipe.data.height_width
        return height // self.model.sizes.stride, width // self.model.sizes.stride

    def tensors(self) -> dict[str, Tensor]:
        """Return both networks, as ``encoder.*`` and ``decoder.*``."""
        return dict(self.model.state_dict())

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put tensors into both networks."""
        load_exactly(self.model, tensors, where)

    def described(self) -> DVAEHeader:
        """Return the sizes of the networks, and where their weights come from."""
        sizes = self.model.sizes.model_dump(mode="json")
        return DVAEHeader(dvae=sizes, channels=self.model.channels, source=self.provenance)

    def check(self, path: Path) -> None:
        """Raise WeightsError unless the file holds a dVAE of these sizes."""
        found, ours = read_header_as(DVAEHeader, path), self.described()
        differences = [
            f"dvae.{key}: {found.dvae.get(key)!r} in the weights, {value!r} requested"
            for key, value in ours.dvae.items()
            if found.dvae.get(key) != value
        ]
        if found.channels != ours.channels:
            differences.append(
                f"channels: {found.channels} in the weights, {ours.channels} requested"
            )
        if differences:
            msg = "the recipe's dVAE differs: " + "; ".join(differences)
            raise WeightsError(msg, where=str(path), hint="take these values into the recipe")

    def prepare(self, checkpoint: CheckpointOnDisk | None) -> None:
        """Start or resume as every job; say which ramps are cut, now that the budget is known."""
        announce_cut_ramps(self.step.options, self.state.schedule.first_steps, self.emit)
        super().prepare(checkpoint)

    def extended(self, at: int) -> Iterator[str]:
        """Say of each ramp that the first budget cut that it stays so."""
        first = self.state.schedule.first_steps
        for name in RAMPS:
            ramp = getattr(self.step.options, name)
            if ramp.steps > first:
                now = annealed(ramp, at, first)
                yield f"tokenizer.{name} stays cut to {first:,} steps: {now:.3g} now and before"

    def start_fresh(self) -> None:
        """Load given weights, if there are any."""
        if self.given is not None:
            self.check(self.given)
            tensors = read_tensors(self.given)
            check_numbers(tensors, str(self.given))
            self.load(tensors, str(self.given))
            self.emit(Note(f"starting from {self.given}"))

    def holdout_reader(self, dataset: Dataset) -> SampleReader:
        """Return a reader of the center of each sample."""
        return picture_reader(self.recipe, VERB, dataset, held_out=True)

    def measure(self) -> dict[str, float | None]:
        """Measure how well pictures are rebuilt from their codes, and how many codes they use."""
        return validation_errors(self.model, self.held_out or (), self.precision)

    def result(self) -> dict[str, Any]:
        """Return the held-out errors, the number of codes, and the pixels along a side of each."""
        sizes = self.model.sizes
        return super().result() | {"vocabulary": sizes.vocabulary, "stride": sizes.stride}


def required_tokenizer(recipe: Recipe) -> Tokenizer:
    """Return the tokenizer section; raise RecipeError where there is none."""
    if recipe.tokenizer is None:
        msg = "the recipe has no tokenizer section"
        raise RecipeError(msg, where=VERB, hint="`maekit recipes show dvae_tiny` has one")
    return recipe.tokenizer


def check_size(recipe: Recipe, options: Tokenizer) -> None:
    """Raise RecipeError unless pictures divide into codes."""
    stride, size = options.dvae.stride, recipe.data.height_width
    if any(side % stride for side in size):
        msg = f"pictures of {size[0]} x {size[1]} do not divide into codes of {stride} x {stride}"
        hint = f"make data.size a multiple of {stride} = 2**(tokenizer.dvae.groups - 1)"
        raise RecipeError(msg, where="data.size", hint=hint)


def announce_cut_ramps(options: Tokenizer, steps: int, emit: Emit) -> None:
    """Say which of the two ramps is longer than the training."""
    for name in RAMPS:
        requested = getattr(options, name).steps
        if requested > steps:
            text = f"tokenizer.{name}.steps {requested} is longer than the budget: cut to {steps}"
            emit(Note(text))


def describe(recipe: Recipe) -> list[str]:
    """Describe the size of a recipe's dVAE for people, from the meta device.

    Raises:
        RecipeError: pictures do not divide into codes.
    """
    options = required_tokenizer(recipe)
    check_size(recipe, options)
    with torch.device("meta"):
        model = DVAE(options.dvae, recipe.data.channels)
    encoder, decoder = (
        sum(parameter.numel() for parameter in part.parameters())
        for part in (model.encoder, model.decoder)
    )
    (height, width), stride = recipe.data.height_width, options.dvae.stride
    return [
        (
            f"{recipe.name}: {encoder + decoder:,} parameters "
            f"(encoder {encoder:,}, decoder {decoder:,})"
        ),
        (
            f"pictures {height}x{width}, {recipe.data.channels} channels; "
            f"{height // stride}x{width // stride} codes of {options.dvae.vocabulary}"
        ),
    ]
