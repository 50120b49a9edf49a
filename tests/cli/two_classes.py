"""Two classes of pictures, and a recipe that fine-tunes on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """\
name: two
data:
  train: {{name: images, path: {folder}/train}}
  val: {{name: images, path: {folder}/val}}
  size: [16, 24]
  stats: imagenet
  workers: 0
model:
  backbone: {{name: image-vit, size: tiny, width: 32, depth: 2, heads: 2, patch: 8}}
  decoder: {{name: vit, width: 16, depth: 1, heads: 2}}
pretrain:
  masker: {{name: random, ratio: 0.5}}
  target: {{name: norm-pixel}}
  steps: 3
  batch: {{global: 8}}
finetune:
  model: {{backbone: {{drop_path: 0.2}}}}
  steps: 12
  warmup: {{steps: 2}}
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.1}}
  layer_decay: 0.75
  rand_augment: rand-m9-mstd0.5-inc1
  erase: 0.25
  mixup: 0.8
  cutmix: 1.0
  label_smoothing: 0.1
  head: {{dropout: 0.1}}
  checkpoint: {{steps: 5}}
  validate: {{every: 4}}
"""


def draw(folder: Path, count: int, seed: int) -> None:
    """Two classes that differ by the side that is bright, not by color."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = "lr"[number % 2]
        pixels = rng.integers(0, 120, (20, 30, 3))
        half = slice(0, 15) if kind == "l" else slice(15, 30)
        pixels[:, half] += rng.integers(60, 130)
        path = folder / kind / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
