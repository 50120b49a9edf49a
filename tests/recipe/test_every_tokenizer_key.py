"""Every key of ``tokenizer:`` does something, as test_every_key.py says of all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fingerprint import run
from PIL import Image
from test_every_key import PERTURBED as PRETRAIN
from test_every_key import keys

from maekit.recipe.tokenizer import Tokenizer

BASE = """\
name: base
seed: 3
data:
  train: {{name: images, path: {folder}/train, max_bad_fraction: 1}}
  val: {{name: images, path: {folder}/val, max_bad_fraction: 1}}
  size: [8, 12]
  workers: 0
tokenizer:
  dvae: {{vocabulary: 8, width: 4, init_width: 4, groups: 2, blocks: 1}}
  augment: {{name: random-resized-crop}}
  steps: 4
  warmup: {{steps: 2}}
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.1}}
  checkpoint: {{steps: 3}}
  validate: {{every: 2, samples: 4}}
  pictures: {{every: 2, samples: 2}}
"""
# As in test_every_key.py: what changes a key, and what both runs need for it to matter.
OWN: dict[str, tuple[list[str], list[str]]] = {
    "dvae.vocabulary": (["tokenizer.dvae.vocabulary=9"], []),
    "dvae.width": (["tokenizer.dvae.width=8"], []),
    "dvae.init_width": (["tokenizer.dvae.init_width=5"], []),
    "dvae.groups": (["tokenizer.dvae.groups=3"], []),
    "dvae.blocks": (["tokenizer.dvae.blocks=2"], []),
    "loss": (["tokenizer.loss=mse"], []),
    "temperature.start": (["tokenizer.temperature.start=2"], []),
    "temperature.end": (["tokenizer.temperature.end=0.5"], []),
    "temperature.steps": (["tokenizer.temperature.steps=2"], []),
    "kl_weight.start": (["tokenizer.kl_weight.start=3"], []),
    "kl_weight.end": (["tokenizer.kl_weight.end=60"], []),
    "kl_weight.steps": (["tokenizer.kl_weight.steps=0"], []),
    "data": (["tokenizer.data={size: 8}"], []),
    "warmup.epochs": (["tokenizer.warmup.epochs=0.5"], []),
}


def perturbed() -> dict[str, tuple[list[str], list[str]]]:
    """The shared keys are perturbed as there."""
    ours = dict(OWN)
    shared = {key for key in keys(Tokenizer) if f"pretrain.{key}" in PRETRAIN}
    for key in shared - set(OWN):
        changed, both = (
            [word.replace("pretrain.", "tokenizer.") for word in words]
            for words in PRETRAIN[f"pretrain.{key}"]
        )
        ours[key] = (changed, both)
    return ours


PERTURBED = perturbed()


def test_every_key_is_perturbed_here() -> None:
    assert set(keys(Tokenizer)) == set(PERTURBED) | {"optimizer.name"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir()
        for number in range(20):
            coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
            picture = coarse.resize((30 - number, 20 + number), Image.Resampling.BICUBIC)
            picture.save(folder / split / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, ...], str]:
    """Fingerprints of runs that several keys compare with."""
    return {}


@pytest.mark.parametrize("path", sorted(PERTURBED))
def test_a_perturbed_key_changes_the_run(
    path: str,
    folder: Path,
    tmp_path: Path,
    known: dict[tuple[str, ...], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed, both = PERTURBED[path]
    where = {"base": BASE, "verb": "tokenizer"}
    if tuple(both) not in known:
        known[tuple(both)] = run(both, folder, tmp_path / "before", capsys, **where)
    after = run([*both, *changed], folder, tmp_path / "after", capsys, **where)
    assert after != known[tuple(both)]


def test_the_fingerprint_is_reproducible(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the comparisons above could not fail."""
    where = {"base": BASE, "verb": "tokenizer"}
    once, again = (run([], folder, tmp_path / name, capsys, **where) for name in ("a", "b"))
    assert once == again
