"""Loading weights builds their model once, and looks at no more than one without memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_recipes import IMAGES, Recipe, write_recipe

from maekit import load
from maekit.engine import build
from maekit.engine.build import build_model
from maekit.evaluate.encoder import load_encoder
from maekit.model import MaskedAutoencoder
from maekit.recipe.load import load as load_recipe
from maekit.registry import resolve
from maekit.weights.header import Header
from maekit.weights.safetensors_io import model_tensors, write_weights

ONE: Recipe = {
    "data": {"size": 32, "stats": {"mean": [0.5], "std": [0.2]}, "channels": 1},
    "model": {"backbone": {"depth": 1}, "decoder": {"width": 32}},
    "probe": {},
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many models are built, with values and on the meta device."""
    build._on_meta_device.cache_clear()
    found = {"cpu": 0, "meta": 0}
    real = MaskedAutoencoder.__init__

    def init(self: MaskedAutoencoder, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        found[next(self.parameters()).device.type] += 1

    monkeypatch.setattr(MaskedAutoencoder, "__init__", init)
    return found


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    header = Header(
        backbone={"name": "image-vit", "width": 32, "depth": 1, "heads": 2, "patch": 8},
        decoder={"name": "vit", "width": 32, "depth": 1, "heads": 2},
        target={"name": "norm-pixel"},
        clip=(1, 32, 32), channels=1, mean=(0.5,), std=(0.2,),
    )  # fmt: skip
    path = tmp_path / "weights.safetensors"
    write_weights(path, model_tensors(build_model(header)), header)
    return path


def test_a_file(weights: Path, counted: dict[str, int]) -> None:
    load(weights)
    assert counted == {"cpu": 1, "meta": 1}


def test_a_run(weights: Path, counted: dict[str, int]) -> None:
    load(weights.parent)
    assert counted == {"cpu": 1, "meta": 1}


def test_an_encoder_that_is_judged(weights: Path, counted: dict[str, int]) -> None:
    recipe = weights.with_name("recipe.yaml")
    write_recipe(recipe, IMAGES, ONE, without=("model.backbone.size",))
    load_encoder(weights, resolve(load_recipe(recipe), "probe"))
    assert counted == {"cpu": 1, "meta": 1}


def test_another_size_looks_at_both(weights: Path, counted: dict[str, int]) -> None:
    load(weights, clip=(1, 48, 32))
    assert counted == {"cpu": 1, "meta": 2}
