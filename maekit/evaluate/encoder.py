"""The encoder that is evaluated: the weights' own, at the recipe's size; or an untrained one."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from maekit.data.statistics import imagenet
from maekit.engine.build import build_model, compatible_header, load_into, without_head
from maekit.engine.events import Emit, Note
from maekit.errors import RecipeError
from maekit.layers import Statistics
from maekit.recipe.schema import Stats
from maekit.weights.header import Header
from maekit.weights.importer import open_weights
from maekit.weights.locate import SCRATCH, check_exists, newest_pretraining
from maekit.weights.safetensors_io import read_header

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import Recipe
    from maekit.weights.checkpoints import CheckpointOnDisk

_log = logging.getLogger(__name__)

_ENCODER = "backbone."  # before the encoder's tensors


def weights_or_newest(recipe: Recipe, requested: str | None, emit: Emit) -> str:
    """Return the requested weights, else the newest finished pre-training run of the recipe.

    Raises:
        RecipeError: there is none, or the requested weights do not exist.
    """
    if requested is None:
        found = newest_pretraining(recipe.name)
        emit(Note(f"weights: {found}, the newest finished pre-training run of {recipe.name}"))
        return str(found)
    if requested != SCRATCH:
        check_exists(requested)
    return requested


def load_encoder(
    source: str | Path, recipe: Recipe, *, own_stats: bool = False
) -> tuple[MaskedAutoencoder, Header]:
    """Load the encoder of a source of weights, without decoder and target, in evaluation mode.

    Its structure and statistics are the weights'; a recipe that names others is refused. Size and
    frames are the recipe's: positions are resized to them, which is logged.

    Args:
        source: as ``--from`` takes it, or ``scratch`` for the recipe's own, at its random
            initialization.
        recipe: resolved for the verb that evaluates.
        own_stats: pixels are normalized by the recipe's statistics, whatever the weights' were.

    Raises:
        RecipeError: nothing is there, or ``scratch`` without a model in the recipe.
        WeightsError: unreadable, or of another model than the recipe's.
        NonFiniteError: a tensor holds NaN or infinity.
    """
    if str(source) == SCRATCH:
        stats = recipe.data.stats
        given = stats if isinstance(stats, Stats) else imagenet(recipe.data.channels)
        return untrained_encoder(recipe, Statistics(tuple(given.mean), tuple(given.std)))
    opened = open_weights(source)
    if opened.header.classifier is not None:
        text = "a classifier's encoder is taken, without its head, which was trained on pool %s"
        _log.info(text, opened.header.classifier.pool)
    weights = without_head(opened)
    found = _encoder_only(weights.header)
    wanted = _header_of_recipe(found, recipe)
    if own_stats and wanted.channels == found.channels:
        found = found.model_copy(update={"mean": wanted.mean, "std": wanted.std})
    header, _ = compatible_header(found, wanted, weights.origin)
    model = build_model(header, recipe.seed)
    tensors = {
        name: tensor for name, tensor in weights.tensors.items() if name.startswith(_ENCODER)
    }
    for change in load_into(model, replace(weights, header=found, tensors=tensors), None):
        _log.info("%s", change)
    return model.eval(), header


def digest_of_weights(module: nn.Module) -> str:
    """Hash a module's tensors: the name of an encoder in results and caches."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _header_of_recipe(found: Header, recipe: Recipe) -> Header:
    """Describe the encoder as the recipe does; what it leaves open is as in the weights."""
    data = recipe.data
    wanted = {"clip": (data.train.frames, *data.height_width), "channels": data.channels}
    if isinstance(data.range_, tuple):
        wanted["range"] = data.range_
    if recipe.model is not None:
        wanted["backbone"] = recipe.model.backbone
    given = data.stats == "imagenet" or isinstance(data.stats, Stats)
    if given or found.channels != data.channels:
        stats = data.stats if isinstance(data.stats, Stats) else imagenet(data.channels)
        wanted |= {"mean": tuple(stats.mean), "std": tuple(stats.std)}
    return found.model_copy(update=wanted)


def untrained_encoder(recipe: Recipe, statistics: Statistics) -> tuple[MaskedAutoencoder, Header]:
    """Build the recipe's own encoder at its random initialization, in evaluation mode.

    Raises:
        RecipeError: the recipe has no model.
    """
    data = recipe.data
    if recipe.model is None:
        msg = "the recipe has no model"
        raise RecipeError(msg, where="--from scratch", hint="add model.backbone, or give weights")
    header = Header(
        backbone=recipe.model.backbone,
        clip=(data.train.frames, *data.height_width),
        channels=data.channels,
        mean=statistics.mean,
        std=statistics.std,
        range=None if data.range_ == "auto" else data.range_,
        source="random initialization",
    )
    return build_model(header, recipe.seed).eval(), header


def resumed_encoder(
    checkpoint: CheckpointOnDisk, recipe: Recipe
) -> tuple[MaskedAutoencoder, Header]:
    """Build the encoder of a checkpoint; its weights are loaded later, with the whole model's.

    Raises:
        WeightsError: the checkpoint is of another model than the recipe's.
    """
    found = _encoder_only(read_header(checkpoint.weights))
    header, _ = compatible_header(found, _header_of_recipe(found, recipe), str(checkpoint.folder))
    return build_model(header, recipe.seed), header


def _encoder_only(header: Header) -> Header:
    nothing = dict.fromkeys(("decoder", "target", "masker", "classifier"))
    return header.model_copy(update=nothing)
