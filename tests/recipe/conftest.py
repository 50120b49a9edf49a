"""A small recipe file to lay children and command lines over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PARENT = """\
name: parent
data:
  train: {name: folder, path: a, frames: 16, stride: 4, max_bad_fraction: 0.2, glob: "*.png"}
  val: {name: folder, path: b}
  size: 64
  stats: imagenet
model:
  backbone: {name: image-vit, size: tiny, patch: 8}
  decoder: {name: vit, depth: 2}
pretrain:
  masker: {name: random, ratio: 0.75, rounding: keep}
  target: {name: pixel}
  epochs: 10
  warmup: {epochs: 2}
  checkpoint: {minutes: 5, keep: 3}
  optimizer: {base_lr: 1e-4, betas: [0.9, 0.95]}
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file beside ``parent.yaml``."""
    (tmp_path / "parent.yaml").write_text(PARENT, encoding="utf-8")

    def writer(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return writer


@pytest.fixture
def parent(write: Write, tmp_path: Path) -> Path:
    """Return the path of ``parent.yaml``."""
    del write
    return tmp_path / "parent.yaml"
