"""What runs of small recipes leave, and what tests lay over them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from small_recipes import Recipe

from maekit.engine.run_folder import read_lines
from maekit.evaluate.feature_cache import FeatureShards
from maekit.weights.safetensors_io import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from conftest import Result

    Cli = Callable[..., Result]

# Laid over the recipe by tests that look at pictures: drawing them is half of a small run's time.
PICTURES = "pretrain.pictures={every: 6, samples: 2}"

# Of a folder `clips` of labeled videos, each judged by several views; laid over ``VIDEOS``.
VIEWED: Recipe = {
    "name": "viewed",
    "data": {"train": {"path": "clips", "stride": 2}, "val": {"path": "clips", "stride": 2}},
    "finetune": {
        "steps": 2,
        "batch": {"global": 4},
        "optimizer": {"name": "adamw", "base_lr": 0.1},
        "views": {"clips": 2, "crops": 3},
    },
}


def stopped_after_shards(monkeypatch: pytest.MonkeyPatch, *counts: int) -> list[int]:
    """Send SIGTERM once so many shards have been kept; return the numbers of those that are."""
    made: list[int] = []
    save = FeatureShards.save

    def stopping(self: FeatureShards, number: int, *what: Any) -> None:
        save(self, number, *what)
        made.append(number)
        if len(made) in counts:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(FeatureShards, "save", stopping)
    return made


def losses(run: str | Path) -> list[float]:
    return [line["loss"] for line in read_lines(Path(run) / "metrics.jsonl") if "loss" in line]


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return read_tensors(Path(run) / "weights.safetensors")


def same_weights(one: str | Path, other: str | Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def result_of(run: str | Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((Path(run) / "result.json").read_text())
    return record
