"""Pictures of classes that can be told apart, and a recipe over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")

RECIPE = """\
name: labeled
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
  steps: 6
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.03}}
  checkpoint: {{steps: 2, keep: 1}}
  validate: {{every: 6, samples: 8}}
  pictures: null
probe:
  kind: linear
  protocol: cached
  pixels: 8
  linear: {{strengths: [0.01, 1.0], held_out: 0.3}}
  knn: {{k: 5}}
  attentive: {{epochs: 3, batch: 16}}
expected:
  - {{metric: probe.top1, value: 0.9, band: [0.0, 1.0], source: these tests}}
  - {{metric: probe.floor.random, value: 2.0, band: 0.1, source: these tests}}
  - {{metric: finetune.top1, value: 0.9, band: 0.1, source: these tests}}
"""


def paint(folder: Path, each: int, seed: int) -> None:
    """Noise of a random tint, in which a class's channel is a little stronger."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(reversed(CLASSES)):
        for number in range(each):
            pixels = rng.integers(40, 160, (20 + number % 5, 30, 3)) + rng.integers(0, 60, 3)
            pixels[..., channel] += 25
            path = folder / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
