"""The bench: what it measures, and that its sentence is right where the answer is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_recipes import IMAGES, draw_smooth, write_recipe

from maekit.contracts import Source
from maekit.data.order import Key
from maekit.data.stages import STAGES, seconds_by_stage
from maekit.datasets.images import Images
from maekit.engine import bench as engine_bench
from maekit.engine.bench import Bench, bench
from maekit.engine.pretrain import PretrainJob
from maekit.recipe.load import load
from maekit.registry import resolve

HEAVY = {"backbone": {"width": 384, "depth": 8, "heads": 6, "patch": 8}}


@pytest.fixture
def job_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    draw_smooth(tmp_path / "pictures" / "train", 16, 0)
    draw_smooth(tmp_path / "pictures" / "val", 4, 1)
    monkeypatch.setattr(engine_bench, "SECONDS", 0.3)
    monkeypatch.setattr(engine_bench, "STEP", 0.2)
    monkeypatch.setattr(engine_bench, "_SIDE", {"cpu": 256})

    def build(**more: Any) -> PretrainJob:
        path = write_recipe(tmp_path / "r.yaml", IMAGES, more)
        job = PretrainJob(resolve(load(path), "pretrain"), torch.device("cpu"), lambda _: None)
        job.prepare(None)
        return job

    return build


def slow_disk(patch: pytest.MonkeyPatch, nap: float) -> None:
    """Let each picture take its time to be opened."""
    quick = Images.open

    def sleepy(self: Images, index: int) -> Source:
        time.sleep(nap)
        return quick(self, index)

    patch.setattr(Images, "open", sleepy)


def slow_decoder(patch: pytest.MonkeyPatch, nap: float) -> None:
    """Let each picture take its time to become pixels."""
    from maekit.data.images import OpenImage

    quick = OpenImage.decode

    def sleepy(self: OpenImage, nodata: float | None = None) -> np.ndarray:
        time.sleep(nap)
        return quick(self, nodata)

    patch.setattr(OpenImage, "decode", sleepy)


def checked(found: Bench) -> dict[str, Any]:
    """Hold the numbers of a bench against each other."""
    plain = found.as_dict()
    model, loader = plain["model"], plain["loader"]
    assert model["mfu"] == pytest.approx(model["tflops"] / model["peak_tflops"])
    assert model["samples_per_second"] == pytest.approx(model["batch"] / model["step_ms"] * 1e3)
    per_sample = model["tflops"] * 1e12 / model["samples_per_second"]
    assert model["flops_per_sample"] == pytest.approx(per_sample)
    assert loader["per_worker"] * max(1, loader["workers"]) == loader["samples_per_second"]
    assert 0 <= plain["both"]["data_wait"] <= 1
    return plain


@pytest.mark.parametrize(("slow", "stage"), [(slow_disk, "read"), (slow_decoder, "decode")])
def test_a_loader_that_sleeps_is_named(
    job_of: Any, monkeypatch: pytest.MonkeyPatch, slow: Any, stage: str
) -> None:
    # Longer than this machine, as busy as it is, trains on a sample.
    nap = 10 / checked(bench(job_of()))["model"]["samples_per_second"]
    slow(monkeypatch, nap)
    found = checked(bench(job_of()))
    assert (found["bottleneck"], found["stage"]) == ("loader", stage)
    assert found["loader"][f"{stage}_ms"] >= nap * 1e3
    assert found["key"].startswith("data.workers=")
    assert found["key"] in found["advice"]
    assert found["both"]["data_wait"] > 0.5


def test_a_heavy_model_is_named(job_of: Any) -> None:
    found = checked(bench(job_of(model=HEAVY, data={"size": 96})))
    assert (found["bottleneck"], found["stage"]) == ("model", None)
    assert found["key"] == "model.backbone.size"
    assert found["both"]["data_wait"] < 0.5


def test_operations_are_counted(job_of: Any) -> None:
    """A multiplication and an addition each, three times a forward pass for most of them."""
    job = job_of(data={"size": [160, 192]})
    flops = engine_bench.count_flops(job.step, engine_bench._read(job, [Key(0, 0)]))
    # 20 x 24 tokens of 8 x 8 x 3 pixels, half hidden; widths 32 and 16, MLPs of 4 times as much.
    # Attention is more than half of it; torch counts up to 3.5 times its forward pass.
    seen, tokens, patch = 240 + 1, 480 + 1, 192
    encoder = 2 * (seen * 12 * 32**2 + 2 * seen**2 * 32)
    decoder = tokens * 12 * 16**2 + 2 * tokens**2 * 16
    ends = 240 * patch * 32 + seen * 32 * 16 + 240 * 16 * patch
    macs = encoder + decoder + ends
    assert 2.9 * 2 * macs < flops < 3.5 * 2 * macs


def test_samples_that_cannot_be_read_count_for_no_stage(job_of: Any) -> None:
    job = job_of()
    keys = [Key(0, index) for index in range(4)]
    found = seconds_by_stage(job.reader, keys, 9.0)
    assert set(found) == set(STAGES)
    assert all(seconds > 0 for seconds in found.values())
    job.reader.dataset = None  # type: ignore[assignment]  # opens nothing
    assert set(seconds_by_stage(job.reader, keys, 9.0).values()) == {0.0}


def test_what_a_batch_is_filled_with_keeps_its_rows(job_of: Any) -> None:
    job = job_of(pretrain={"repeats": 2})
    few = engine_bench._read(job, [Key(0, 0), Key(0, 1), Key(0, 2)])
    filled = engine_bench._repeated(few, 5)
    assert len(filled.keys) == 5
    assert filled.views[0].shape[0] == len(filled.weight) == 10
    for row, source in enumerate([0, 1, 2, 3, 4, 5, 0, 1, 2, 3]):
        np.testing.assert_array_equal(filled.views[0][row], few.views[0][source])
        np.testing.assert_array_equal(filled.hidden[row], few.hidden[source])
