"""A small recipe over pictures made here, and what its runs leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from maekit.engine.run_folder import read_lines
from maekit.weights.safetensors_io import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

RECIPE = """\
name: small
data:
  train: {{name: images, path: {pictures}/train}}
  val: {{name: images, path: {pictures}/val}}
  size: [16, 24]
  stats: imagenet
  workers: 0
model:
  backbone: {{name: image-vit, size: tiny, width: 32, depth: 2, heads: 2, patch: 8}}
  decoder: {{name: vit, width: 16, depth: 1, heads: 2}}
pretrain:
  masker: {{name: random, ratio: 0.5}}
  target: {{name: norm-pixel}}
  steps: 12
  warmup: {{steps: 2}}
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.03}}
  checkpoint: {{steps: 5}}
  validate: {{every: 6, samples: 8}}
  pictures: null
"""


# Laid over the recipe by tests that look at pictures: drawing them is half of a small run's time.
PICTURES = "pretrain.pictures={every: 6, samples: 2}"


def draw(folder: Path, count: int, seed: int) -> None:
    """Pictures of smooth colors, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((40, 30), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")


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
