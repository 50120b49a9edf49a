"""``data.stats: auto``: computed once, known again by what it was computed of, of any channels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_recipes import IMAGES, sets, write_recipe
from small_recipes import Recipe as Layer

from maekit.data import loader
from maekit.engine.batches import open_dataset, statistics_of
from maekit.engine.build import load_model
from maekit.engine.events import Note
from maekit.engine.pretrain import PretrainJob
from maekit.layers import Statistics
from maekit.recipe.load import load
from maekit.recipe.schema import Recipe
from maekit.registry import resolve
from maekit.visualize.training import reconstructions

tifffile = pytest.importorskip("tifffile", reason="needs the extra maekit[tiff]")

OWN: Layer = {
    "name": "own",
    "data": {"size": 16, "stats": "auto"},
    "model": {"backbone": {"patch": 4}, "decoder": {"width": 32}},
    "pretrain": {
        "augment": {"name": "none"},
        "steps": 30,
        "optimizer": {"base_lr": 0.1},
        "precision": "fp32",
        "validate": {"samples": 8},
        "pictures": {"samples": 2},
    },
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "maekit" / "stats"


@pytest.fixture
def batches_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches each loader that is opened reads."""
    read: list[int] = []
    plain = loader.Loader.__iter__

    def iterate(self: Any) -> Any:
        read.append(0)
        for batch in plain(self):
            read[-1] += 1
            yield batch

    monkeypatch.setattr(loader.Loader, "__iter__", iterate)
    return read


def pictures(folder: Path, channels: int, scale: Any = 1.0, offset: Any = 0.0) -> Path:
    """Smooth float pictures, each channel in a range of its own."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ranges = 10.0 ** np.linspace(-1, 2, channels)
    for number in range(12):
        coarse = torch.from_numpy(rng.random((1, channels, 4, 4)))
        smooth = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic")
        pixels = smooth[0].permute(1, 2, 0).numpy() * ranges
        pixels = (pixels * scale + offset).astype(np.float32)
        write(folder / f"{number:02d}.tif", pixels)
    return folder


def write(path: Path, pixels: np.ndarray) -> None:
    if pixels.shape[-1] == 1:
        tifffile.imwrite(path, pixels[..., 0])
    else:
        tifffile.imwrite(path, pixels, planarconfig="contig")


def recipe_of(folder: Path, channels: int, *words: str) -> Recipe:
    path = folder.parent / f"{folder.name}.yaml"
    write_recipe(path, IMAGES, sets(folder, folder), OWN, {"data": {"channels": channels}})
    return resolve(load(path, list(words)), "pretrain")


def statistics(folder: Path, channels: int, notes: list[Any] | None = None) -> Statistics:
    recipe = recipe_of(folder, channels)
    dataset = open_dataset(recipe.data.train, "data.train")
    emit = (lambda event: None) if notes is None else notes.append
    return statistics_of(recipe, dataset, "cpu", emit)


def job_of(folder: Path, channels: int, *words: str) -> PretrainJob:
    return PretrainJob(recipe_of(folder, channels, *words), torch.device("cpu"), lambda event: None)


def test_computed_once_and_again_when_the_set_changes(
    tmp_path: Path, batches_read: list[int]
) -> None:
    folder = pictures(tmp_path / "set", 2)
    first = statistics(folder, 2)
    assert statistics(folder, 2) == first
    assert len(batches_read) == 1
    changed = folder / "03.tif"
    write(changed, tifffile.imread(changed) + 5)
    second = statistics(folder, 2)
    assert len(batches_read) == 2
    assert second != first
    os.utime(changed, ns=(1, 1))
    assert statistics(folder, 2) == second
    assert len(batches_read) == 3
    (folder / "11.tif").unlink()
    assert statistics(folder, 2) != second
    assert len(batches_read) == 4


def test_a_damaged_cache_is_computed_again_and_one_that_cannot_be_written_is_told(
    tmp_path: Path, batches_read: list[int], cache: Path
) -> None:
    folder = pictures(tmp_path / "set", 2)
    first = statistics(folder, 2)
    [kept] = cache.iterdir()
    kept.write_text('{"mean": [0')
    assert statistics(folder, 2) == first
    assert statistics(folder, 2) == first
    assert len(batches_read) == 2
    kept.unlink()
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    notes: list[Any] = []
    assert statistics(folder, 2, notes) == first
    assert [isinstance(note, Note) and "cannot be cached" in note.text for note in notes] == [True]


@pytest.mark.parametrize("channels", [13, 1])
def test_float_sets_of_any_channels_train_measure_and_are_shown(
    tmp_path: Path, channels: int
) -> None:
    job = job_of(pictures(tmp_path / "set", channels), channels)
    job.prepare(None)
    job.open_holdout()
    assert job.held_out
    before = job.measure()
    with job.batches() as batches:
        for [batch] in batches:
            weighed = job.step.weigh(batch)
            job.state.optimizer.zero_grad()
            (job.step.loss(weighed) / weighed.weight).backward()
            for group in job.state.optimizer.param_groups:
                group["lr"] = 3e-3
            job.state.optimizer.step()
    after = job.measure()
    assert after["loss"] < before["loss"]
    assert after["hidden_mse"] < before["hidden_mse"]
    assert job.shown is not None
    assert reconstructions(job.model, job.shown, job.precision) is not None
    job.export(tmp_path / "weights.safetensors")
    model, header = load_model(tmp_path / "weights.safetensors")
    assert header.channels == channels
    assert model.statistics == job.model.statistics
    assert len(set(model.statistics.mean)) == channels


@pytest.mark.parametrize("statistics", ["joint", "per-channel"])
def test_norm_pixel_does_not_see_an_affine_change_of_the_channels(
    tmp_path: Path, statistics: str
) -> None:
    """Per channel: what stats auto takes away at the input, it takes away in the target too."""
    rng = np.random.default_rng(1)
    scale, offset = rng.uniform(0.1, 10, 13), rng.uniform(-100, 100, 13)
    folders = (
        pictures(tmp_path / "plain", 13),
        pictures(tmp_path / "changed", 13, scale, offset),
    )
    losses = []
    for folder in folders:
        job = job_of(folder, 13, f"pretrain.target.statistics={statistics}")
        job.prepare(None)
        job.open_holdout()
        assert job.held_out
        losses.append(job.measure()["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
