"""Every key of ``finetune:`` does something, as test_every_key.py says of all others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fingerprint import run
from PIL import Image
from test_every_key import PERTURBED as PRETRAIN
from test_every_key import keys

from maekit.recipe.finetune import Finetune

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = """\
name: base
seed: 3
data:
  train: {{name: images, path: {folder}/train, max_bad_fraction: 1}}
  val: {{name: images, path: {folder}/val}}
  size: [16, 24]
  workers: 0
model:
  backbone: {{name: image-vit, size: tiny, width: 32, depth: 2, heads: 2, patch: 8}}
finetune:
  augment: {{name: random-resized-crop}}
  steps: 5
  warmup: {{steps: 2}}
  batch: {{global: 8}}
  optimizer: {{name: adamw, base_lr: 0.1}}
  head: {{init_std: 0.5}}
  checkpoint: {{steps: 3}}
  validate: {{every: 2}}
"""
MIXED = ["finetune.mixup=0.8", "finetune.cutmix=1.0"]
# As in test_every_key.py: what changes a key, and what both runs need for it to matter.
OWN: dict[str, tuple[list[str], list[str]]] = {
    "data": (["finetune.data={size: 8}"], []),
    "model": (["finetune.model={backbone: {drop_path: 0.5}}"], []),
    "warmup.epochs": (["finetune.warmup.epochs=2"], []),
    "layer_decay": (["finetune.layer_decay=0.3"], []),
    "blocks": (["finetune.blocks=half"], []),
    "pool": (["finetune.pool=cls"], []),
    "norm": (["finetune.norm=pretrained"], ["finetune.steps=8"]),
    "positions": (["finetune.positions=fixed"], []),
    "head.kind": (["finetune.head.kind=multilabel"], []),
    "head.classes": (["finetune.head.classes=7"], []),
    "head.dropout": (["finetune.head.dropout=0.5"], []),
    "head.init_std": (["finetune.head.init_std=0.1"], []),
    "head.init_scale": (["finetune.head.init_scale=2"], []),
    "rand_augment": (["finetune.rand_augment=rand-m9-p1.0"], []),
    "rand_augment_on": (
        ["finetune.rand_augment_on=frames"],
        ["finetune.rand_augment=rand-m9-p1.0"],
    ),
    "erase": (["finetune.erase=1"], []),
    "mixup": (["finetune.mixup=0.8"], []),
    "cutmix": (["finetune.cutmix=1.0"], []),
    "mix_probability": (["finetune.mix_probability=0.3"], MIXED),
    "mix_switch": (["finetune.mix_switch=1"], MIXED),
    "mix_per": (["finetune.mix_per=sample"], MIXED),
    "label_smoothing": (["finetune.label_smoothing=0.2"], []),
    "repeats": (["finetune.repeats=2"], []),
    "ema": (["finetune.ema=0.5"], []),
    "views.clips": (["finetune.views.clips=2"], []),
    "views.crops": (["finetune.views.crops=3"], []),
    "views.enlarge": (["finetune.views.enlarge=1.5"], []),
    "views.interpolation": (["finetune.views.interpolation=bilinear"], []),
    "validate.every": (["finetune.validate.every=3"], []),
    "validate.epochs": (["finetune.validate.epochs=0.5"], []),
    "augment.name": (["finetune.augment.name=single-try-crop"], ["finetune.steps=8"]),
    "max_nonfinite": (  # never judged, where scores that are not finite end a run too
        ["finetune.max_nonfinite=2"],
        ["finetune.optimizer.base_lr=1e38", "finetune.steps=8", "finetune.validate.every=99"],
    ),
    "optimizer.lr_counts_repeats": (
        ["finetune.optimizer.lr_counts_repeats=true"],
        ["finetune.repeats=2"],
    ),
}
NOTHING_HERE = {
    "optimizer.name": "there is one optimizer",
    "repeat_from": "an image has one frame (tests/evaluate/test_transform.py)",
}


def shared() -> Iterator[str]:
    """The keys that the section has in common with pre-training's."""
    yield from (key for key in keys(Finetune) if f"pretrain.{key}" in PRETRAIN)


def perturbed() -> dict[str, tuple[list[str], list[str]]]:
    """The shared keys are perturbed as there."""
    ours = dict(OWN)
    for key in set(shared()) - set(OWN) - set(NOTHING_HERE):
        changed, both = (
            [word.replace("pretrain.", "finetune.") for word in words]
            for words in PRETRAIN[f"pretrain.{key}"]
        )
        ours[key] = (changed, both)
    return ours


PERTURBED = perturbed()


def test_every_key_is_perturbed_here() -> None:
    assert set(keys(Finetune)) == set(PERTURBED) | set(NOTHING_HERE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures, wide ones, so that crops along them differ."""
    folder = tmp_path_factory.mktemp("keys")
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 8)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (4, 9, 3), dtype=np.uint8))
            coarse.resize((90 - number, 30 + number), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, ...], str]:
    """Fingerprints of runs that several keys compare with."""
    return {}


def fingerprint(
    words: list[str], folder: Path, where: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    """Of a run from no weights, with what it makes of each sample of data.val."""
    found = run(
        words, folder, where, capsys, base=BASE, verb="finetune", options=("--from", "scratch")
    )
    predictions = next((where / "runs").glob("*/1")) / "predictions.jsonl"
    return found + (predictions.read_text() if predictions.exists() else "")


@pytest.mark.parametrize("path", sorted(PERTURBED))
def test_a_perturbed_key_changes_the_run(
    path: str,
    folder: Path,
    tmp_path: Path,
    known: dict[tuple[str, ...], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed, both = PERTURBED[path]
    if tuple(both) not in known:
        known[tuple(both)] = fingerprint(both, folder, tmp_path / "before", capsys)
    after = fingerprint([*both, *changed], folder, tmp_path / "after", capsys)
    assert after != known[tuple(both)]


def test_the_fingerprint_is_reproducible(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the comparisons above could not fail."""
    once, again = (fingerprint([], folder, tmp_path / name, capsys) for name in ("a", "b"))
    assert once == again
