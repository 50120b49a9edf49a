"""Every key does something: change each one and see that a run changes, and ends well.

A run's fingerprint is all but recipe.yaml: exit code, losses, learning rates, gradient norms,
held-out errors, predictions, the first batches, files, notes, and what was asked of loader and
torch.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union, get_args, get_origin

import numpy as np
import pytest
from fingerprint import Fingerprint, run
from perturbed import CLIPS, FINETUNE, PRETRAIN, PROBE, TOKENIZER, VAL, Table, as_in, words_of
from PIL import Image
from pydantic import BaseModel
from small_recipes import IMAGES, VIDEOS, Recipe, laid_over, write_clip

from maekit import registry
from maekit.engine.build import build_model
from maekit.recipe.schema import DataSpec, PartSpec, Stats
from maekit.recipe.schema import Recipe as Schema
from maekit.weights.header import Header
from maekit.weights.safetensors_io import model_tensors, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Sections of other worlds, and of tests/ablate.
JUDGED_ELSEWHERE = ("tokenizer.", "finetune.", "probe.", "ablate.")


TRAINING: Recipe = {
    "augment": {"name": "random-resized-crop"},
    "steps": 4,
    "warmup": {"steps": 2},
    "batch": {"global": 8},
    "optimizer": {"base_lr": 0.1},
    "checkpoint": {"steps": 3},
}
WATCHED: Recipe = {"validate": {"every": 2, "samples": 4}, "pictures": None}
BASE: Recipe = {"name": "base", "seed": 3}
SMALL_DVAE = {"vocabulary": 8, "width": 4, "init_width": 4, "groups": 2, "blocks": 1}


class World(NamedTuple):
    """What the keys of one verb are changed in.

    Attributes:
        verb: what is run.
        section: whose keys these are; "" for the whole recipe.
        recipe: what keys are changed of.
        draw: writes the files that it reads.
        table: the other values.
        nothing: keys that do nothing here, and why, or where they are tested.
        exits: exit codes before and after, of keys where they are not 0.
        options: further words of the command line.
    """

    verb: str
    section: str
    recipe: Recipe
    draw: Callable[[Path], None]
    table: Table
    nothing: dict[str, str]
    exits: dict[str, tuple[int, int]]
    options: tuple[str, ...] = ()


def keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key of a section, those of the base recipe's parts included."""
    for name, field in model.model_fields.items():
        key = f"{path}.{field.alias or name}".lstrip(".")
        inner = [kind for kind in flat(field.annotation) if isinstance(kind, type)]
        sections = [kind for kind in inner if issubclass(kind, BaseModel)]
        specs = [kind for kind in sections if issubclass(kind, PartSpec)]
        if key == "plugins":  # filled in: tests/cli/test_plugin_identity.py
            continue
        if key == "expected" or key == "pretrain.decoder_masker":
            yield key
        elif specs:
            yield from part_keys(specs[0], key)
        elif Stats in sections:
            yield key
            yield from keys(Stats, key)
        elif sections:  # there may be more than one to choose from
            yield from dict.fromkeys(own for way in sections for own in keys(way, key))
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


def shared(section: str, own: Table) -> Table:
    """Return a section's own keys, and pre-training's as they are perturbed there."""
    known = set(keys(Schema))
    table = as_in(PRETRAIN, "pretrain.", f"{section}.") | own
    return {key: entry for key, entry in table.items() if key in known}


def draw_broken(folder: Path) -> None:
    """Two classes of pictures, some with alpha, some bad, of many shapes; and a list."""
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


def draw_wide(folder: Path) -> None:
    """Two classes of pictures, wide ones, so that crops along them differ."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 8)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (4, 9, 3), dtype=np.uint8))
            coarse.resize((90 - number, 30 + number), Image.Resampling.BICUBIC).save(path)


def draw_clips(folder: Path) -> None:
    """Two classes of clips, one folder of frames, a list, and weights for images."""
    for split, count in (("train", 6), ("val", 4)):
        for number in range(count):
            shots = np.random.default_rng(number + count).integers(
                0, 256, (20 + number, 24, 32, 3), dtype=np.uint8
            )
            write_clip(folder / split / "ab"[number % 2] / f"{number}.avi", shots)
    image = Header(
        backbone={"name": "image-vit", "class_token": False, "qkv_bias": "qv", "patch": 4}
        | {"size": "tiny", "width": 32, "depth": 1, "heads": 2},
        clip=(1, 16, 24), channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    write_weights(folder / "image.safetensors", model_tensors(build_model(image)), image)
    frames = folder / "train" / "a" / "frames"
    frames.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 24), (20 * number, 0, 99)).save(frames / f"{number}.png")
    rows = [f"{'ab'[number % 2]}/{number}.avi {number + 2} {number + 9}" for number in range(4)]
    (folder / "train" / "list.txt").write_text("\n".join(rows) + "\n")


BROKEN: Recipe = {"data": {name: {"max_bad_fraction": 1} for name in ("train", "val")}}
SCRATCH = ("--from", "scratch")
REFUSED = (0, 2)

WORLDS = {
    "pretrain": World(
        "pretrain",
        "",
        laid_over(
            IMAGES,
            BASE,
            BROKEN,
            {"model": {"backbone": {"depth": 1}}, "pretrain": {"masker": {"ratio": 0.7}}},
            {"pretrain": TRAINING | WATCHED},
        ),
        draw_broken,
        # The held-out set has the training set's keys.
        PRETRAIN
        | {
            key: entry
            for key, entry in as_in(PRETRAIN, "data.train", "data.val").items()
            if not key.endswith(("frames", "labels"))
        }
        | VAL,
        {
            "data.train.stride": "clips of one frame have no stride (tests/data/test_clips.py)",
            "data.train.sampling": "clips of one frame have no sampling (the same)",
            "data.train.rate": "the same",
            "data.train.first": "the same",
            "data.train.jitter": "the same",
            "data.train.nodata": "these pixels are no floats (tests/data/test_nodata.py)",
            "data.val.nodata": "the same",
            "data.train.pages": "no file has several (tests/datasets/test_tiff_pages.py)",
            "data.val.pages": "the same",
            "data.val.stride": "as above",
            "data.val.sampling": "as above",
            "data.val.rate": "as above",
            "data.val.first": "as above",
            "data.val.jitter": "held-out clips are not drawn at random (tests/data/test_clips.py)",
            "data.val.frames": "data.train's, or an error (test_held_out_frames.py)",
            "data.val.labels": "pre-training uses no labels",
            "model.backbone.resize_positions": "for weights of another size (test_resize.py)",
            "model.decoder.resize_positions": "the same",
            "pretrain.repeat_from": "an image has one frame (tests/data/test_reader.py)",
            "pretrain.optimizer.name": "there is one optimizer",
            "expected": "compared after the run, by whoever asks",
        },
        {
            "data.train.frames": REFUSED,  # image-vit takes one
            "data.train.max_bad_fraction": (0, 6),
            "data.val.max_bad_fraction": (0, 6),
            "data.train.published": (6, 6),  # the link helps where there are no files
            "data.val.published": (6, 6),
            "pretrain.max_nonfinite": (4, 4),
        },
    ),
    "pretrain on clips": World(
        "pretrain",
        "videos",
        laid_over(
            VIDEOS,
            BASE,
            {"data": {"train": {"frames": 8}, "size": [16, 24]}},
            {"model": {"backbone": {"patch": [2, 4, 4]}}},
            {"pretrain": {"masker": {"ratio": 0.7}}},
            {"pretrain": TRAINING},
            {"pretrain": {"steps": 2, "warmup": {"steps": 1}, "batch": {"global": 4}}},
            {"pretrain": {"validate": {"every": 1, "samples": 3}}},
            without=("model.decoder.positions",),
        ),
        draw_clips,
        CLIPS,
        {"video-vit.resize_positions": "for weights of another size (test_resize.py)"},
        {},
    ),
    "finetune": World(
        "finetune",
        "finetune",
        laid_over(
            IMAGES,
            BASE,
            {"data": {"train": {"max_bad_fraction": 1}}},
            {"finetune": TRAINING},
            {"finetune": {"steps": 5, "head": {"init_std": 0.5}, "validate": {"every": 2}}},
        ),
        draw_wide,
        shared("finetune", FINETUNE),
        {
            "finetune.optimizer.name": "there is one optimizer",
            "finetune.repeat_from": "an image has one frame (tests/evaluate/test_transform.py)",
            "finetune.own_stats": "of given weights (tests/weights/test_official_detectors.py)",
            **dict.fromkeys(
                (key for key in keys(Schema) if key.startswith("finetune.boxes.")),
                "of head.kind: detection (tests/evaluate/test_detection_keys.py)",
            ),
        },
        {
            "finetune.head.classes": (0, 6),  # there are two: it is there to refuse others
            "finetune.max_nonfinite": (4, 4),
        },
        SCRATCH,
    ),
    "tokenizer": World(
        "tokenizer",
        "tokenizer",
        laid_over(
            IMAGES,
            BASE,
            BROKEN,
            {"data": {"size": [8, 12]}},
            {"tokenizer": TRAINING | WATCHED},
            {"tokenizer": {"dvae": SMALL_DVAE}},
            without=("model", "pretrain"),
        ),
        draw_wide,
        shared("tokenizer", TOKENIZER),
        {"tokenizer.optimizer.name": "there is one optimizer"},
        {"tokenizer.max_nonfinite": (4, 4)},
    ),
    "probe": World(
        "probe",
        "probe",
        laid_over(
            IMAGES,
            BASE,
            {"probe": {**TRAINING, "protocol": "paper"}},
            {"probe": {"pixels": 8, "optimizer": {"base_lr": 10}}},
            {"probe": {"linear": {"strengths": [0.01, 1.0], "held_out": 0.3}}},
            {"probe": {"knn": {"k": 5}, "attentive": {"epochs": 3, "batch": 16}}},
            without=("pretrain",),
        ),
        draw_wide,
        shared("probe", PROBE),
        {},
        {
            "probe.compile": REFUSED,  # they would do nothing
            "probe.activation_checkpointing": REFUSED,
            "probe.sharding.name": REFUSED,
            "probe.max_nonfinite": (4, 4),
        },
        SCRATCH,
    ),
}

CASES = [(name, key) for name, world in WORLDS.items() for key in sorted(world.table)]


def known_keys(name: str) -> set[str]:
    """All keys that a world must change."""
    section = WORLDS[name].section
    if section == "":
        return {key for key in keys(Schema) if not key.startswith(JUDGED_ELSEWHERE)}
    if section == "videos":
        parts = {"videos": "datasets", "video-vit": "backbones", "tube": "maskers"}
        return {
            f"{part}.{option}"
            for part, kind in (parts | {"frame": "maskers"}).items()
            for option in registry.options_of(kind, part).model_fields
        }
    return {key for key in keys(Schema) if key.startswith(f"{section}.")}


@pytest.mark.parametrize("name", WORLDS)
def test_every_key_is_perturbed_here(name: str) -> None:
    world, known = WORLDS[name], known_keys(name)
    perturbed = {key.partition(":")[0] for key in world.table}
    if world.section == "videos":  # data's own keys matter more for clips than for images
        perturbed = {key for key in perturbed if not key.startswith(("data.", "pretrain."))}
    assert known == perturbed | set(world.nothing)
    assert not perturbed & set(world.nothing)
    assert set(world.exits) <= set(world.table)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Draw what each world reads, once."""
    made = {}
    for name, world in WORLDS.items():
        made[name] = tmp_path_factory.mktemp("keys")
        world.draw(made[name])
    return made


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, ...], Fingerprint]:
    """Fingerprints of runs that several keys compare with."""
    return {}


@pytest.mark.slow  # some 300 small runs
@pytest.mark.parametrize(("name", "key"), CASES)
def test_a_perturbed_key_changes_the_run(
    name: str,
    key: str,
    folders: dict[str, Path],
    tmp_path: Path,
    known: dict[tuple[str, ...], Fingerprint],
    capsys: pytest.CaptureFixture[str],
) -> None:
    world, folder = WORLDS[name], folders[name]
    changed, both = words_of(key, world.table)
    common = [*both, *world.options]

    def made(words: list[str], where: str) -> Fingerprint:
        return run(world.verb, world.recipe, words, tmp_path / where, folder, capsys)

    if (name, *both) not in known:
        known[name, *both] = made(common, "before")
    before = known[name, *both]
    after = made([*common, *changed], "after")
    assert after != before
    assert (before.code, after.code) == world.exits.get(key, (0, 0)), after.rest


@pytest.mark.parametrize("name", WORLDS)
def test_the_fingerprint_is_reproducible(
    name: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the comparisons above could not fail."""
    world = WORLDS[name]
    once, again = (
        run(world.verb, world.recipe, world.options, tmp_path / each, folders[name], capsys)
        for each in ("a", "b")
    )
    assert once == again
