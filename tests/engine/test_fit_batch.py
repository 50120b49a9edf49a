"""``batch.per_device: auto``: what fits, kept for those who resume, and the same training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_recipes import IMAGES, draw_smooth, write_recipe

import maekit
from maekit.engine import distributed, fit_batch
from maekit.engine.pretrain import PretrainJob
from maekit.errors import RecipeError
from maekit.recipe.load import load
from maekit.registry import resolve

AUTO = {"batch": {"global": 12, "per_device": "auto"}}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    draw_smooth(tmp_path / "pictures" / "train", 16, 0)
    draw_smooth(tmp_path / "pictures" / "val", 4, 1)
    return lambda **more: write_recipe(tmp_path / "r.yaml", IMAGES, {"pretrain": more})


def prepared(path: str) -> PretrainJob:
    job = PretrainJob(resolve(load(path), "pretrain"), torch.device("cpu"), lambda _: None)
    job.prepare(None)
    return job


def test_the_largest_share_that_fits(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(**AUTO)
    for samples, wanted in ((100, 12), (7, 6), (5, 4), (1.5, 1), (0.1, 1)):
        needs = (1000.0, 10.0, 1000.0 + 10 * samples)
        monkeypatch.setattr(fit_batch, "_needs", lambda _, needs=needs: needs)
        job = prepared(path)
        split = job.split
        assert (split.per_device, split.accumulation) == (wanted, 12 // wanted)
        assert job.state.extra["per_device"] == wanted


def test_what_a_sample_takes_is_what_further_ones_take(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(recipe(**AUTO))
    monkeypatch.setattr(fit_batch, "free_memory", lambda: None)
    before = torch.random.get_rng_state()
    fixed, each, _ = fit_batch._needs(job)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in job.model.parameters())
    gradients = sum(p.nbytes for p in job.model.parameters() if p.requires_grad)
    for size in (1, 3, 9):
        _, true = fit_batch._peaks(job, size)
        said = fixed - 2 * gradients + size * each  # without the moments
        assert true <= 1.02 * said  # never too little
        assert said <= 1.3 * true + gradients


def test_ranks_of_a_machine_share_its_memory(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared(recipe(**AUTO))
    monkeypatch.setattr(fit_batch, "free_memory", lambda: 10**9)
    _, _, alone = fit_batch._needs(job)
    monkeypatch.setattr(distributed, "size_here", lambda: 4)
    _, _, shared = fit_batch._needs(job)
    assert alone - shared == pytest.approx(fit_batch.ROOM * 10**9 * 3 / 4)


def test_the_same_training_however_it_is_split_and_resumed(
    recipe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(**AUTO, steps=4, checkpoint={"steps": 2}, validate={"every": 4, "samples": 4})

    def run(name: str, room: float, **options: Any) -> dict[str, np.ndarray]:
        monkeypatch.setattr(fit_batch, "_needs", lambda _: (0.0, 10.0, room))
        done = maekit.run(path, out=tmp_path / name, **options)
        assert done["exit"] == 0
        return load_file(tmp_path / name / "weights.safetensors")

    given, whole = run("whole", 1000.0), run("parts", 41.0)
    for name, tensor in given.items():
        np.testing.assert_allclose(tensor, whole[name], rtol=1e-3, atol=1e-5)
    states = sorted((tmp_path / "parts" / "checkpoints").glob("step-*/state.json"))
    assert json.loads(states[-1].read_text())["extra"]["per_device"] == 4
    job = prepared(path)
    job.state.extra["per_device"] = 4  # as a checkpoint brings it
    monkeypatch.setattr(fit_batch, "_needs", lambda _: pytest.fail("looked for twice"))
    assert fit_batch.fit_batch(job).per_device == 4


@pytest.mark.parametrize("section", ["finetune", "probe", "tokenizer"])
def test_refused_where_the_split_matters(section: str) -> None:
    name = "dvae_tiny" if section == "tokenizer" else "tiny_images"
    with pytest.raises(RecipeError, match="auto is for pre-training"):
        resolve(load(name, [f"{section}.batch.per_device=auto"]), section)


def test_accumulation_follows_from_it() -> None:
    words = ["pretrain.batch={per_device: auto, accumulation: 2}"]
    with pytest.raises(RecipeError, match="give one of both"):
        resolve(load("quickstart", words), "pretrain")
