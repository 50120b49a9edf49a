"""The demo weights: small, free, loadable at any size, and better than no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import maekit
from maekit.data.bad_files import BadFiles
from maekit.demo import WEIGHTS
from maekit.engine.batches import holdout_reader, open_dataset, read_holdout
from maekit.engine.build import load_model
from maekit.engine.precision import Precision
from maekit.engine.validation import validation_errors
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.weights.safetensors_io import read_header, read_tensors

RECIPE = str(WEIGHTS.with_name("recipe.yaml"))


def test_the_file_is_small_and_free() -> None:
    assert WEIGHTS.stat().st_size <= 3_000_000
    header = read_header(WEIGHTS)
    assert header.license == "CC0-1.0"
    assert header.source is not None
    assert "recipe.yaml" in header.source
    assert {tensor.dtype for tensor in read_tensors(WEIGHTS).values()} == {torch.float16}


def test_naming_it_imports_no_torch() -> None:
    code = "import sys, maekit.demo as d; print(d.WEIGHTS.is_file(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_it_is_the_model_of_its_recipe() -> None:
    recipe = resolve(load(RECIPE), "pretrain")
    header = read_header(WEIGHTS)
    for key in ("width", "depth", "heads", "patch"):
        assert recipe.model.backbone.written[key] == header.backbone.written[key]
    assert header.clip == (1, *recipe.data.height_width)


@pytest.mark.parametrize("clip", [(1, 96, 96), (1, 64, 160)])
def test_it_loads_in_float32_at_any_size(clip: tuple[int, int, int]) -> None:
    model = maekit.load(WEIGHTS, clip)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        tokens = model.encode(torch.randn(1, 3, *clip))
    assert tokens.shape == (1, 1 + clip[1] * clip[2] // 64, 160)


def held_out(words: list[str], tmp_path: Path, samples: int) -> dict[str, float]:
    """Measure the model's and the fills' errors over hidden patches of pictures it never saw."""
    recipe = resolve(load(RECIPE, words), "pretrain")
    assert recipe.data.val is not None
    dataset = open_dataset(recipe.data.val, "data.val")
    model, _ = load_model(WEIGHTS)
    ledger = BadFiles(tmp_path / "bad.jsonl", len(dataset), 0.0, section="data.val")
    batches = read_holdout(
        holdout_reader(recipe, dataset, model),
        samples, size=32, bad_files=ledger, workers=0, timeout=60.0, shared=False,
    )  # fmt: skip
    measured = validation_errors(model, batches, Precision.of("fp32", torch.device("cpu")))
    return {key: value for key, value in measured.items() if value is not None}


def test_it_beats_the_fills_on_drawings_it_never_saw(tmp_path: Path) -> None:
    words = ["data.val.name=sample-images", "data.val.split=val", "data.val.count=48"]
    errors = held_out([*words, f"data.val.cache={tmp_path}"], tmp_path, 48)
    fill = min(errors["mean_fill_mse"], errors["interpolated_fill_mse"])
    assert errors["hidden_mse"] < 0.8 * fill  # 0.74 when it was trained


def test_it_beats_the_fills_on_photographs_it_never_saw(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "scene6-1500" / "val"
    errors = held_out([f"data.val.path={path}"], tmp_path, 64)
    fill = min(errors["mean_fill_mse"], errors["interpolated_fill_mse"])
    assert errors["hidden_mse"] < 0.8 * fill  # 0.74 when it was trained
