"""What runs of small recipes leave, and what tests lay over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maekit.engine.run_folder import read_lines
from maekit.weights.safetensors_io import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

# Laid over the recipe by tests that look at pictures: drawing them is half of a small run's time.
PICTURES = "pretrain.pictures={every: 6, samples: 2}"


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
