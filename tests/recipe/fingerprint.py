"""The fingerprint of a run: all that a perturbed key may change.

That is everything but recipe.yaml: exit code, losses, learning rates, gradient norms, held-out
errors, the first batches, files, notes, and what was asked of loader and torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from maekit.cli.app import main
from maekit.data import loader
from maekit.engine import step
from maekit.engine.run_folder import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = """\
name: base
seed: 3
data:
  train: {{name: images, path: {folder}/train, max_bad_fraction: 1}}
  val: {{name: images, path: {folder}/val, max_bad_fraction: 1}}
  size: [16, 24]
  workers: 0
model:
  backbone: {{name: image-vit, size: tiny, width: 32, depth: 1, heads: 2, patch: 8}}
  decoder: {{name: vit, width: 16, depth: 1, heads: 2}}
pretrain:
  masker: {{name: random, ratio: 0.7}}
  target: {{name: norm-pixel}}
  augment: {{name: random-resized-crop}}
  steps: 4
  warmup: {{steps: 2}}
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.1}}
  checkpoint: {{steps: 3}}
  validate: {{every: 2, samples: 4}}
  pictures: {{every: 2, samples: 2}}
"""


def run(
    words: list[str],
    folder: Path,
    where: Path,
    capsys: pytest.CaptureFixture[str],
    base: str = BASE,
    verb: str = "pretrain",
    options: tuple[str, ...] = (),
) -> str:
    """The fingerprint of one run."""
    where.mkdir()
    recipe = where / "base.yaml"
    recipe.write_text(base.format(folder=folder))
    words = [word.replace("FOLDER", str(folder)) for word in words]
    asked: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        _watch(patch, asked)
        with pytest.raises(SystemExit) as ended:
            main([verb, str(recipe), *words, *options])
    heard = capsys.readouterr().err
    heard = re.sub(r"[\d.]+ samples/s.*|/\S+|left.*", "", heard)
    run_folder = next((where / "runs").glob("*/1"))
    steps = [
        {key: line.get(key) for key in ("step", "loss", "lr", "grad_norm", "holdout")}
        for line in read_lines(run_folder / "metrics.jsonl")
    ]
    files = []
    for path in sorted(run_folder.rglob("*")):
        size = Image.open(path).size if path.suffix == ".png" else None
        if "tensorboard" not in path.parts:
            files.append((str(path.relative_to(where)), size))
    return json.dumps([ended.value.code, steps, files, heard, asked], default=str)


def _watch(patch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    """Note what is asked of the loader and of torch, and what the first batches hold."""
    plain_init, plain_iter = loader.Loader.__init__, loader.Loader.__iter__
    plain_checkpoint = step.checkpoint

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        asked.append([kwargs["workers"], kwargs["timeout"]])
        plain_init(self, *args, **kwargs)

    def iterate(self: Any) -> Iterator[Any]:
        for batch in plain_iter(self):
            parts = [*batch.views, batch.hidden, batch.decode, batch.labels]
            digest = hashlib.sha256()
            for part in parts:
                is_array = isinstance(part, np.ndarray)  # labels are any objects
                digest.update(part.tobytes() if is_array else repr(part).encode())
            asked.append(digest.hexdigest())
            yield batch

    def compiled(function: Any) -> Any:
        asked.append("torch.compile")
        return function

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        asked.append("recomputed")
        return plain_checkpoint(*args, **kwargs)

    patch.setattr(loader.Loader, "__init__", init)
    patch.setattr(loader.Loader, "__iter__", iterate)
    patch.setattr(torch, "compile", compiled)
    patch.setattr(step, "checkpoint", recomputed)
