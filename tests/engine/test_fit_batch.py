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
from maekit.engine.peak import Shares, shares_of
from maekit.engine.pretrain import PretrainJob
from maekit.engine.schedule import BatchSplit
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


def test_ranks_that_share_parameters_out_have_room_for_more(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_batch, "free_memory", lambda: None)

    def needs(name: str, world: int) -> tuple[float, float, Shares]:
        job = prepared(recipe(batch={"global": 12 * world}, sharding={"name": name}))
        job.split = BatchSplit(12 * world, 12, 1, world)
        fixed, each, _ = fit_batch._needs(job)
        return fixed, each, shares_of(job)

    whole, each, nothing = needs("ddp", 4)
    assert nothing == needs("fsdp", 1)[2] == Shares()
    assert nothing.at_once(7.0, 2) == 7.0
    # Two blocks of width 32: norms, attention and MLP have 12 w^2 + 13 w numbers of four bytes.
    # Outside: patches of 8 x 8 x 3 and a bias, the class token, the last norm; the decoder of
    # width 16 with a block of its own, which is none of the encoder's.
    width, inner = 32, 16
    block = 4 * (12 * width**2 + 13 * width)
    encoder = 4 * (192 * width + width + width + 2 * width)
    decoder = 4 * (width * inner + inner + inner + 12 * inner**2 + 13 * inner + 2 * inner)
    outside = encoder + decoder + 4 * (inner * 192 + 192)
    for world in (2, 4, 16):
        fixed, same, shares = needs("fsdp", world)
        total = 2 * block + outside
        assert shares.spared == 4 * total * (world - 1) / world
        assert shares.gathered == 2 * outside + 3 * block
        assert shares.accumulated == block
        assert shares.measuring == total
        assert (same, whole - fixed) == (each, shares.spared)
        activations = 10 * total
        assert shares.at_once(activations, 1) == shares.gathered + activations
        assert shares.at_once(activations, 3) == shares.gathered + block + activations
    assert shares._replace(measuring=9 * total).at_once(total, 1) == 9 * total  # a deeper one's


def test_accumulation_costs_gradients_of_all_blocks(
    recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are shared out; so that the whole share may fit, and half of it not."""
    monkeypatch.setattr(fit_batch, "_needs", lambda _: (1000.0, 10.0, 1125.0))
    path = recipe(**AUTO)
    for accumulated, wanted in ((0.0, 12), (50.0, 12), (1000.0, 12)):
        shares = Shares(accumulated=accumulated)
        monkeypatch.setattr(fit_batch, "shares_of", lambda _, shares=shares: shares)
        assert prepared(path).split.per_device == wanted
    monkeypatch.setattr(fit_batch, "_needs", lambda _: (1000.0, 10.0, 1095.0))
    for accumulated, wanted in ((0.0, 6), (40.0, 4), (70.0, 2), (1000.0, 1)):
        shares = Shares(accumulated=accumulated)
        monkeypatch.setattr(fit_batch, "shares_of", lambda _, shares=shares: shares)
        assert prepared(path).split.per_device == wanted


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
