"""``maekit tokenizer``: a discrete VAE put together from a resolved recipe, ready for the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maekit.data.seeded import seeded
from maekit.engine.events import Note
from maekit.engine.feed import picture_reader
from maekit.engine.held_out import HeldOutTraining
from maekit.engine.optim import make_optimizer
from maekit.engine.step import recompute, to_unit
from maekit.engine.training import Basis
from maekit.errors import RecipeError, WeightsError
from maekit.targets.dvae_networks import DVAE, as_pictures, check_range
from maekit.tokenizer.holdout import measure
from maekit.tokenizer.losses import annealed, gumbel_noise, relaxed_bound
from maekit.weights.file import find_weights, read_header_as, read_tensors
from maekit.weights.header import DVAEHeader
from maekit.weights.model import load_exactly

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.reader import SampleReader
    from maekit.engine.checkpoint import Loaded
    from maekit.engine.events import Emit
    from maekit.engine.precision import Precision
    from maekit.engine.state import TrainState
    from maekit.recipe.schema import Recipe
    from maekit.recipe.tokenizer import Tokenizer

VERB = "tokenizer"


class TokenizerStep:
    """Encodes, relaxes, decodes and compares; ``loss(batch) -> (sum, weight)``."""

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
            torch.compile(relaxed_bound) if options.compile else relaxed_bound
        )

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        """The weighted sum of the bound over samples, a clip counting as the mean of its frames."""
        device = next(self.model.parameters()).device
        clips = to_unit(batch.views[0], device)
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
        weight = torch.from_numpy(batch.weight)
        return (sample * weight.to(device)).sum(), float(weight.sum())

    def _annealed(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Temperature and KL weight of the coming update.

        As tensors: a compiled function would be compiled anew for every other number.
        """
        step, budget = self.state.step, self.state.schedule.steps
        ramps = (self.options.temperature, self.options.kl_weight)
        values = [annealed(ramp, step, budget) for ramp in ramps]
        temperature, kl_weight = torch.tensor(values, device=device)
        return temperature, kl_weight


class TokenizerTraining(HeldOutTraining):
    """All of the training of a discrete VAE."""

    verb = VERB
    model: DVAE
    given: Path | None = None  # weights that it starts from

    def tensors(self) -> dict[str, Tensor]:
        """Both networks, as ``encoder.*`` and ``decoder.*``."""
        return dict(self.model.state_dict())

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put tensors into both networks."""
        load_exactly(self.model, tensors, where)

    def described(self) -> DVAEHeader:
        """The sizes of the networks, and where their weights come from."""
        sizes = self.model.sizes.model_dump(mode="json")
        return DVAEHeader(dvae=sizes, channels=self.model.channels, source=self.source)

    def check(self, path: Path) -> None:
        """Raise WeightsError unless the file holds a dVAE of these sizes."""
        found, ours = read_header_as(DVAEHeader, path), self.described()
        differences = [
            f"dvae.{key}: {found.dvae.get(key)!r} in the weights, {value!r} asked"
            for key, value in ours.dvae.items()
            if found.dvae.get(key) != value
        ]
        if found.channels != ours.channels:
            differences.append(f"channels: {found.channels} in the weights, {ours.channels} asked")
        if differences:
            msg = "the recipe asks for another dVAE: " + "; ".join(differences)
            raise WeightsError(msg, where=str(path), hint="take these values into the recipe")

    def start(self) -> None:
        """Take given weights, if there are any."""
        if self.given is not None:
            self.check(self.given)
            self.load(read_tensors(self.given), str(self.given))
            self.emit(Note(f"starting from {self.given}"))

    def holdout_reader(self, dataset: Dataset) -> SampleReader:
        """Reads the center of each sample."""
        return picture_reader(self.recipe, VERB, dataset, held_out=True)

    def measure(self) -> dict[str, float | None]:
        """How well pictures are rebuilt from their codes, and how many codes they use."""
        return measure(self.model, self.held_out, self.precision)

    def result(self) -> dict[str, Any]:
        """The held-out errors, and of the codebook: codes, and pixels a side of each."""
        sizes = self.model.sizes
        return super().result() | {"vocabulary": sizes.vocabulary, "stride": sizes.stride}


def assemble(
    recipe: Recipe,
    device: torch.device,
    emit: Emit,
    *,
    source: str | None = None,
    loaded: Loaded | None = None,
    bad_files: Path | None = None,
) -> TokenizerTraining:
    """Build everything that a resolved recipe's ``tokenizer`` section asks for.

    Raises:
        RecipeError, PartError, DataError: what is asked for cannot be had.
    """
    options = required_tokenizer(recipe)
    check_size(recipe, options)
    basis = Basis.of(recipe, VERB, device, emit, bad_files)
    with seeded(recipe.seed, purpose="init"):
        model = DVAE(options.dvae, recipe.data.channels)
    # Convolutions of few features are up to twice as fast with the channels last.
    model.to(device).to(memory_format=torch.channels_last)
    if options.activation_checkpointing:
        recompute(model.blocks())
    state = basis.state(model, make_optimizer(model, options.optimizer))
    tell_cuts(options, state.schedule.steps, emit)
    reader = picture_reader(recipe, VERB, basis.train, held_out=False)
    step = TokenizerStep(model, options, basis.precision, state, recipe.seed)
    job = TokenizerTraining(basis, model, reader, state, step)
    if loaded is not None:
        job.check(loaded.weights)
    elif source is not None:
        job.given = find_weights(source)
    return job


def required_tokenizer(recipe: Recipe) -> Tokenizer:
    """The tokenizer section; an error where there is none."""
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


def tell_cuts(options: Tokenizer, steps: int, emit: Emit) -> None:
    """Say which of the two ramps is longer than the training."""
    for name in ("temperature", "kl_weight"):
        asked = getattr(options, name).steps
        if asked > steps:
            text = f"tokenizer.{name}.steps {asked} is longer than the budget: cut to {steps}"
            emit(Note(text))


def describe(recipe: Recipe) -> list[str]:
    """The size of a recipe's dVAE, for people, from the meta device.

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
