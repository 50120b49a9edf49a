"""Every key does something: perturb each one and see that a run changes.

A run's fingerprint is all but recipe.yaml: exit code, losses, learning rates, gradient norms,
held-out errors, the first batch, files, notes, and what was asked of loader and torch.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import numpy as np
import pytest
from fingerprint import run
from PIL import Image
from pydantic import BaseModel

from maekit import registry
from maekit.recipe.schema import DataSpec, PartSpec, Recipe, Stats
from maekit.recipe.sections import RandomResizedCrop

if TYPE_CHECKING:
    from collections.abc import Iterator

# path: (overrides that change it, overrides that both runs need for it to matter)
PERTURBED: dict[str, tuple[list[str], list[str]]] = {
    "name": (["name=other"], []),
    "seed": (["seed=4"], []),
    "data.train.name": (["data.train.name=sample-images", "data.train.count=12"], []),
    "data.train.path": (["data.train.path=FOLDER/val"], []),
    "data.train.labels": (["data.train.labels=none"], []),
    "data.train.root": (["data.train.root=FOLDER/val"], ["data.train.path=FOLDER/list.csv"]),
    "data.train.alpha": (["data.train.alpha=keep"], []),
    "data.train.frames": (["data.train.frames=2"], []),
    "data.train.max_bad_fraction": (["data.train.max_bad_fraction=0.1"], []),
    "data.train.published": (
        ["data.train.published=https://example.org"],
        ["data.train.path=nowhere"],
    ),
    "data.size": (["data.size=24"], []),
    "data.channels": (["data.channels=1"], []),
    "data.stats": (["data.stats=auto"], []),
    "data.stats.mean": (
        ["data.stats.mean=[0.1,0.2,0.3]"],
        ["data.stats={mean: [0.5,0.5,0.5], std: [1,1,1]}"],
    ),
    "data.stats.std": (
        ["data.stats.std=[2,1,1]"],
        ["data.stats={mean: [0.5,0.5,0.5], std: [1,1,1]}"],
    ),
    "data.shuffle": (["data.shuffle=window"], []),
    "data.shuffle_window": (["data.shuffle_window=5"], ["data.shuffle=window"]),
    "data.workers": (["data.workers=1"], []),
    "data.timeout": (["data.timeout=17"], []),
    "model.backbone.size": (
        ["model.backbone.size=small"],
        ["~model.backbone.width", "~model.backbone.heads"],
    ),
    "model.backbone.width": (["model.backbone.width=48"], []),
    "model.backbone.depth": (["model.backbone.depth=2"], []),
    "model.backbone.heads": (["model.backbone.heads=4"], []),
    "model.backbone.patch": (["model.backbone.patch=[8,12]"], []),
    "model.backbone.mlp_ratio": (["model.backbone.mlp_ratio=2"], []),
    "model.backbone.qkv_bias": (["model.backbone.qkv_bias=none"], []),
    "model.backbone.class_token": (["model.backbone.class_token=false"], []),
    "model.backbone.positions": (["model.backbone.positions=learned"], []),
    "model.backbone.positions_grid": (["model.backbone.positions_grid=[1,4,6]"], []),
    "model.backbone.drop_path": (["model.backbone.drop_path=0.9"], ["model.backbone.depth=2"]),
    "model.backbone.init": (["model.backbone.init=videomae"], []),
    "model.backbone.mask_token": (["model.backbone.mask_token=true"], []),
    "model.decoder.width": (["model.decoder.width=32"], []),
    "model.decoder.depth": (["model.decoder.depth=0"], []),
    "model.decoder.heads": (["model.decoder.heads=4"], []),
    "model.decoder.mlp_ratio": (["model.decoder.mlp_ratio=2"], []),
    "model.decoder.qkv_bias": (["model.decoder.qkv_bias=none"], []),
    "model.decoder.class_token": (["model.decoder.class_token=true"], []),
    "model.decoder.embed_bias": (["model.decoder.embed_bias=false"], []),
    "model.decoder.positions": (["model.decoder.positions=sincos-1d"], []),
    "model.decoder.positions_grid": (["model.decoder.positions_grid=[1,4,6]"], []),
    "model.decoder.init": (["model.decoder.init=videomae"], []),
    "pretrain.data": (["pretrain.data={channels: 1}"], []),
    "pretrain.model": (["pretrain.model.decoder.depth=2"], []),
    "pretrain.masker.name": (["pretrain.masker.name=grid"], []),
    "pretrain.masker.ratio": (["pretrain.masker.ratio=0.5"], []),
    "pretrain.masker.rounding": (["pretrain.masker.rounding=hidden"], []),
    "pretrain.decoder_masker": (["pretrain.decoder_masker.name=grid"], []),
    "pretrain.target.name": (["pretrain.target.name=pixel"], []),
    "pretrain.target.space": (
        ["pretrain.target.space=unit"],
        ["pretrain.target.name=pixel"],
    ),
    "pretrain.target.loss": (["pretrain.target.loss=l1"], []),
    "pretrain.target.frames": (["pretrain.target.frames=double"], []),
    "pretrain.target.statistics": (["pretrain.target.statistics=per-channel"], []),
    "pretrain.target.eps": (["pretrain.target.eps=outside"], []),
    "pretrain.augment.name": (["pretrain.augment.name=none"], []),
    "pretrain.augment.scale": (["pretrain.augment.scale=[0.9,1.0]"], []),
    "pretrain.augment.ratio": (["pretrain.augment.ratio=[1,1]"], []),
    "pretrain.augment.scales": (
        ["pretrain.augment.scales=[1.0, 0.5]"],
        ["pretrain.augment.name=multi-scale-crop"],
    ),
    "pretrain.augment.max_distort": (
        ["pretrain.augment.max_distort=0"],
        ["pretrain.augment.name=multi-scale-crop"],
    ),
    "pretrain.augment.enlarge": (
        ["pretrain.augment.enlarge=1.5"],
        ["pretrain.augment.name=fixed-crop"],
    ),
    "pretrain.augment.brightness": (
        ["pretrain.augment.brightness=0"],
        ["pretrain.augment.name=color-jitter"],
    ),
    "pretrain.augment.contrast": (
        ["pretrain.augment.contrast=0"],
        ["pretrain.augment.name=color-jitter"],
    ),
    "pretrain.augment.saturation": (
        ["pretrain.augment.saturation=0"],
        ["pretrain.augment.name=color-jitter"],
    ),
    "pretrain.augment.hue": (
        ["pretrain.augment.hue=0"],
        ["pretrain.augment.name=color-jitter"],
    ),
    "pretrain.augment.flip": (["pretrain.augment.flip=0"], []),
    "pretrain.augment.interpolation": (["pretrain.augment.interpolation=bilinear"], []),
    "pretrain.repeats": (["pretrain.repeats=2"], []),
    "pretrain.loss_on": (["pretrain.loss_on=all"], []),
    "pretrain.epochs": (["pretrain.epochs=1"], []),
    "pretrain.steps": (["pretrain.steps=3"], []),
    "pretrain.samples": (["pretrain.samples=24"], []),
    "pretrain.warmup.epochs": (["pretrain.warmup.epochs=1"], []),
    "pretrain.warmup.steps": (["pretrain.warmup.steps=3"], []),
    "pretrain.warmup.endpoint": (["pretrain.warmup.endpoint=true"], []),
    "pretrain.batch.global": (["pretrain.batch.global=4"], []),
    "pretrain.batch.per_device": (["pretrain.batch.per_device=4"], []),
    "pretrain.batch.accumulation": (["pretrain.batch.accumulation=4"], []),
    "pretrain.optimizer.base_lr": (["pretrain.optimizer.base_lr=0.2"], []),
    "pretrain.optimizer.betas": (["pretrain.optimizer.betas=[0.5,0.9]"], []),
    "pretrain.optimizer.eps": (["pretrain.optimizer.eps=0.01"], []),
    "pretrain.optimizer.weight_decay": (["pretrain.optimizer.weight_decay=5"], []),
    "pretrain.optimizer.decay_tokens": (
        ["pretrain.optimizer.decay_tokens=false"],
        ["pretrain.optimizer.weight_decay=50"],
    ),
    "pretrain.optimizer.min_lr": (["pretrain.optimizer.min_lr=0.01"], []),
    "pretrain.optimizer.min_lr_scaled": (
        ["pretrain.optimizer.min_lr_scaled=true"],
        ["pretrain.optimizer.min_lr=0.001"],
    ),
    "pretrain.optimizer.lr_counts_repeats": (
        ["pretrain.optimizer.lr_counts_repeats=true"],
        ["pretrain.repeats=2"],
    ),
    "pretrain.precision": (["pretrain.precision=bf16"], []),
    "pretrain.compile": (["pretrain.compile=true"], []),
    "pretrain.activation_checkpointing": (["pretrain.activation_checkpointing=true"], []),
    "pretrain.clip_grad": (["pretrain.clip_grad=0.01"], []),
    "pretrain.max_nonfinite": (
        ["pretrain.max_nonfinite=2"],
        ["pretrain.optimizer.base_lr=1e38", "pretrain.steps=8"],
    ),
    "pretrain.checkpoint.steps": (["pretrain.checkpoint.steps=2"], []),
    "pretrain.checkpoint.minutes": (
        ["pretrain.checkpoint.minutes=1e-9"],
        ["pretrain.checkpoint.keep=9"],
    ),
    "pretrain.checkpoint.keep": (["pretrain.checkpoint.keep=1"], []),
    "pretrain.validate.every": (["pretrain.validate.every=3"], []),
    "pretrain.validate.samples": (["pretrain.validate.samples=3"], []),
    "pretrain.pictures.every": (["pretrain.pictures.every=3"], []),
    "pretrain.pictures.samples": (["pretrain.pictures.samples=1"], []),
}
# The held-out set has the training set's keys.
PERTURBED |= {
    path.replace("data.train", "data.val"): tuple(
        [word.replace("data.train", "data.val") for word in words] for words in both
    )
    for path, both in PERTURBED.items()
    if path.startswith("data.train") and not path.endswith(("frames", "labels"))
}  # type: ignore[assignment]
PERTURBED["data.val.path"] = (["data.val.path=FOLDER/train"], [])
PERTURBED["data.val.published"] = (
    ["data.val.published=https://example.org"],
    ["data.val.path=nowhere"],
)
PERTURBED["data.val.max_bad_fraction"] = (
    ["data.val.max_bad_fraction=0.1"],
    ["pretrain.validate.samples=40"],
)

NOTHING_HERE = {
    "data.train.stride": "clips of one frame have no stride (tests/data/test_clips.py)",
    "data.train.sampling": "clips of one frame have no sampling (tests/data/test_clips.py)",
    "data.val.stride": "as above",
    "data.val.sampling": "as above",
    "data.val.frames": "data.train's, or an error (tests/recipe/test_held_out_frames.py)",
    "data.val.labels": "pre-training uses no labels",
    "pretrain.repeat_from": "an image has one frame (tests/data/test_reader.py)",
    "pretrain.optimizer.name": "there is one optimizer",
    "expected": "compared after the run, by whoever asks",
}


def keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key of a section, those of the base recipe's parts included."""
    for name, field in model.model_fields.items():
        key = f"{path}.{field.alias or name}".lstrip(".")
        inner = [kind for kind in flat(field.annotation) if isinstance(kind, type)]
        sections = [kind for kind in inner if issubclass(kind, BaseModel)]
        specs = [kind for kind in sections if issubclass(kind, PartSpec)]
        if key == "expected" or key == "pretrain.decoder_masker":
            yield key
        elif specs:
            yield from part_keys(specs[0], key)
        elif Stats in sections:
            yield key
            yield from keys(Stats, key)
        elif RandomResizedCrop in sections:  # there is more than one way to choose from
            yield from dict.fromkeys(own for way in sections for own in keys(way, key))
        elif sections:
            yield from keys(sections[0], key)
        else:
            yield key


def part_keys(spec: type[PartSpec], key: str) -> Iterator[str]:
    name = {"datasets": "images", "maskers": "random", "targets": "norm-pixel"}
    name |= {"backbones": "image-vit", "decoders": "vit"}
    if spec.kind in ("datasets", "maskers", "targets"):  # there is more than one to choose from
        yield f"{key}.name"
    if issubclass(spec, DataSpec):
        yield from (f"{key}.{own}" for own in DataSpec.model_fields if own != "name")
    options = registry.options_of(spec.kind, name[spec.kind])
    yield from (f"{key}.{option}" for option in options.model_fields)


def flat(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for each in get_args(annotation) for kind in flat(each)]
    if hasattr(annotation, "__metadata__"):
        return flat(get_args(annotation)[0])
    return [annotation]


def test_every_key_is_perturbed_here() -> None:
    # Those of the tokenizer: test_every_tokenizer_key.py; of probes: tests/cli/test_probe.py and
    # test_online_probe.py.
    # Of fine-tuning: test_every_finetune_key.py.
    elsewhere = ("tokenizer.", "finetune.", "probe.", "pretrain.online_probe.")
    known = {key for key in keys(Recipe) if not key.startswith(elsewhere)}
    assert known == set(PERTURBED) | set(NOTHING_HERE)
    assert not set(PERTURBED) & set(NOTHING_HERE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures, some with alpha, some bad, of many shapes; and a list."""
    folder = tmp_path_factory.mktemp("keys")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 36)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number % 3 == 0:
                path.write_bytes(b"bad")
                continue
            coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 4), dtype=np.uint8))
            shape = (60 - number, 30 + number)
            image = coarse.resize(shape, Image.Resampling.BICUBIC)
            (image if number % 4 else image.convert("RGB")).save(path)
    names = [f"{'ab'[number % 2]}/{number:02d}.png" for number in range(24)]
    (folder / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
    for name in names:
        copy = folder / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((folder / "train" / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, ...], str]:
    """Fingerprints of runs that several keys compare with."""
    return {}


@pytest.mark.parametrize("path", PERTURBED)
def test_a_perturbed_key_changes_the_run(
    path: str,
    folder: Path,
    tmp_path: Path,
    known: dict[tuple[str, ...], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed, both = PERTURBED[path]
    if tuple(both) not in known:
        known[tuple(both)] = run(both, folder, tmp_path / "before", capsys)
    after = run([*both, *changed], folder, tmp_path / "after", capsys)
    assert after != known[tuple(both)]


def test_the_fingerprint_is_reproducible(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the comparisons above could not fail."""
    once, again = (run([], folder, tmp_path / name, capsys) for name in ("a", "b"))
    assert once == again
