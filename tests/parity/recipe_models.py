"""Models of the shipped recipes at their full widths, but one block deep."""

from __future__ import annotations

from maekit.engine.build import build_model, header_of
from maekit.layers import Statistics
from maekit.model import MaskedAutoencoder
from maekit.recipe.load import load
from maekit.recipe.schema import Pretrain, Recipe
from maekit.registry import resolve

SHALLOW = ("model.backbone.depth=1", "model.decoder.depth=1")


def shipped(name: str, *overrides: str) -> tuple[Recipe, Pretrain]:
    """Return a recipe, and what it says of pre-training."""
    recipe = resolve(load(name, overrides), "pretrain")
    assert recipe.pretrain is not None
    return recipe, recipe.pretrain


def shallow_model(name: str, seed: int = 0) -> tuple[MaskedAutoencoder, Pretrain]:
    """Build a fresh model, and return what the recipe says of its pre-training."""
    recipe, pretrain = shipped(name, *SHALLOW)
    statistics = Statistics((0.5,) * 3, (0.5,) * 3)
    return build_model(header_of(recipe, statistics), seed), pretrain
