"""Runs of several ranks and of one, that tests compare; all are made by one process."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from figures import BASE, draw_films, of_films
from small_recipes import (
    IMAGES,
    VIDEOS,
    Recipe,
    draw_sides,
    draw_smooth,
    draw_tints,
    sets,
    write_noise,
    write_recipe,
)

from maekit.engine.run_folder import read_lines
from maekit.weights.safetensors_io import read_tensors

ROOT = Path(__file__).resolve().parents[2]
STEPS: Recipe = {
    "pretrain": {
        "steps": 6,
        "warmup": {"steps": 1},
        "clip_grad": 0.5,
        "optimizer": {"name": "adamw", "base_lr": 0.03},
        "checkpoint": {"steps": 3},
        "validate": {"every": 3, "samples": 7},
    },
}
FEW: Recipe = {"pretrain": {"validate": {"every": 3, "samples": 3}}}  # one batch, for one rank
FINETUNE: Recipe = {
    "finetune": {
        "steps": 6,
        "warmup": {"steps": 1},
        "batch": {"global": 8},
        "optimizer": {"name": "adamw", "base_lr": 0.1},
        "layer_decay": 0.7,
        "mixup": 0.8,
        "ema": 0.9,
        "checkpoint": {"steps": 3},
        "validate": {"every": 3},
        "views": {"clips": 1, "crops": 3},
    },
}
PROBE: Recipe = {
    "probe": {
        "kind": "linear",
        "protocol": "paper",
        "pixels": 8,
        "steps": 60,
        "warmup": {"steps": 1},
        "batch": {"global": 12},
        "optimizer": {"base_lr": 10},
    },
}
CACHED: Recipe = {"probe": {"kind": "knn", "protocol": "cached", "pixels": 8, "knn": {"k": 3}}}
TOKENIZER: Recipe = {
    "tokenizer": {
        "dvae": {"vocabulary": 32, "width": 16, "init_width": 16, "groups": 3, "blocks": 1},
        "steps": 4,
        "warmup": {"steps": 1},
        "batch": {"global": 8},
        "checkpoint": {"steps": 2},
        "validate": {"every": 3, "samples": 7},
    },
}
REPEATS: Recipe = {"pretrain": {"repeats": 2, "repeat_from": "same-frames", "loss_on": "all"}}
FITTED: Recipe = {"pretrain": {"target": {"name": "pca", "components": 8}}}
BOXES: Recipe = {
    "data": {"val": {"max_bad_fraction": 0.5}},
    "finetune": {"steps": 6, "validate": {"every": 3}, "checkpoint": {"steps": 3}},
}
SPLIT = {
    "pretrain": "pretrain.batch.accumulation",
    "finetune": "finetune.batch.accumulation",
    "tokenizer": "tokenizer.batch.accumulation",
}


@dataclass
class Runs:
    """The folders that all cases left, and their exit codes."""

    folder: Path
    codes: dict[str, list[int]]

    def said(self, name: str) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{name}.*.txt")))

    def steps(self, name: str) -> list[tuple[int, float, float]]:
        lines = read_lines(self.folder / name / "metrics.jsonl")
        return [(each["step"], each["loss"], each["grad_norm"]) for each in lines if "loss" in each]

    def held_out(self, name: str) -> list[dict[str, Any]]:
        measured = [
            {key: value for key, value in each.items() if key != "time"}
            for each in read_lines(self.folder / name / "metrics.jsonl")
            if "loss" not in each
        ]
        assert measured
        return measured

    def seen(self, name: str) -> list[list[list[Any]]]:
        """Return what all ranks of a run saw in each update: keys and masks, sorted."""
        ranks = [read_lines(path) for path in sorted(self.folder.glob(f"{name}.*.seen"))]
        return [sorted(each for seen in step for each in seen) for step in zip(*ranks, strict=True)]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return read_tensors(self.folder / name / "weights.safetensors")

    def result(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / name / "result.json").read_text())
        return record


FOLLOWER = {"name": "follower"}


def install(folder: Path) -> None:
    """Make a distribution of two parts."""
    made = folder / "ranks_parts-1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: ranks-parts\nVersion: 1.0\n")
    points = {"targets": "follower = {}:Follower", "decoders": "astray = {}:Astray"}
    text = [f"[maekit.{kind}]\n{point}\n" for kind, point in points.items()]
    (made / "entry_points.txt").write_text(
        "".join(text).format(*2 * ["tests.distributed.own_parts"])
    )


def draw(folder: Path) -> None:
    draw_smooth(folder / "smooth/train", 20, seed=0)
    draw_smooth(folder / "smooth/val", 9, seed=1)
    draw_sides(folder / "sides/train", 20, seed=0)
    draw_sides(folder / "sides/val", 7, seed=1)
    draw_tints(folder / "tints/train", 12, seed=0)
    draw_tints(folder / "tints/val", 3, seed=1)
    draw_smooth(folder / "bad/train", 20, seed=0)
    (folder / "bad/train/007.png").write_bytes(b"this is no picture")
    draw_smooth(folder / "bad/val", 9, seed=1)
    for split, count in (("train", 8), ("val", 3)):
        for number in range(count):
            write_noise(folder / "clips" / split / f"{number}.mp4", 8 + number)


def shared_runs(folder: Path) -> Runs:
    """Make all runs, or take those that another worker of pytest makes."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "codes.json"
        if not made.exists():
            made.write_text(json.dumps(make_runs(folder)))
        return Runs(folder, json.loads(made.read_text()))


def make_runs(folder: Path) -> dict[str, list[int]]:
    """Make all runs; return the exit codes of their ranks."""
    draw(folder)
    cases: list[dict[str, Any]] = []

    def recipe(name: str, data: str, base: Recipe, *layers: Recipe) -> str:
        path = folder / f"{name}.yaml"
        if not path.exists():
            write_recipe(path, base, sets(folder / data), *layers)
        return path.name

    def case(name: str, verb: str, file: str, ranks: int, *words: str, **more: Any) -> None:
        said = [verb, file, "--out", name, *words]
        cases.append({"name": name, "ranks": ranks, "words": said, **more})

    def both(name: str, verb: str, file: str, *words: str) -> None:
        case(f"{name}-1", verb, file, 1, f"{SPLIT[verb]}=2", *words)
        case(f"{name}-2", verb, file, 2, *words)

    scratch = ("--from", "scratch")

    def sharded(name: str, verb: str, *words: str) -> None:
        words = (f"{verb}.sharding.name=fsdp", *words)
        case(f"{name}-f", verb, f"{name.partition('-')[0]}.yaml", 2, *words)

    both("image", "pretrain", recipe("image", "smooth", IMAGES, STEPS))
    clips = {"pretrain": {"batch": {"global": 4}}}
    both("video", "pretrain", recipe("video", "clips", VIDEOS, STEPS, clips))
    both("bad", "pretrain", recipe("bad", "bad", IMAGES, STEPS, FEW))
    both("repeats", "pretrain", recipe("repeats", "smooth", IMAGES, STEPS, REPEATS))
    both("fitted", "pretrain", recipe("fitted", "smooth", IMAGES, STEPS, FITTED))
    both("tokenizer", "tokenizer", recipe("tokenizer", "smooth", IMAGES, TOKENIZER))
    both("finetune", "finetune", recipe("finetune", "sides", IMAGES, FINETUNE), *scratch)
    sharded("image", "pretrain")
    sharded("video", "pretrain")
    sharded("finetune", "finetune", *scratch)
    sharded("tokenizer", "tokenizer")
    half = "pretrain.precision=bf16"
    case("image-half", "pretrain", "image.yaml", 2, half)
    sharded("image-half", "pretrain", half)
    # A batch of 8 in one go, and shared out; by SGD, whose steps are as large as the gradients.
    split, fsdp = "pretrain.batch.accumulation=2", "pretrain.sharding.name=fsdp"
    case("whole-1", "pretrain", "image.yaml", 1)
    case("whole-4", "pretrain", "image.yaml", 4)
    case("whole-42", "pretrain", "image.yaml", 4, split)
    case("whole-22", "pretrain", "image.yaml", 2, split)
    case("whole-4f", "pretrain", "image.yaml", 4, fsdp)
    rate = "pretrain.optimizer.base_lr=3"
    for name, ranks, words in (("1", 1, ()), ("4", 4, ()), ("42", 4, (split,))):
        case(f"sgd-{name}", "pretrain", "image.yaml", ranks, rate, *words, sgd=True)
    # What all of them started from: a step whose rate is below what a float32 can show.
    for name, verb, words in (
        ("image", "pretrain", ()),
        ("finetune", "finetune", scratch),
        ("tokenizer", "tokenizer", ()),
    ):
        optimizer = f"{verb}.optimizer"
        still = (f"{optimizer}.base_lr=1e-30", f"{optimizer}.min_lr=0", f"{verb}.steps=1")
        case(f"start-{name}", verb, f"{name}.yaml", 1, *still, f"{verb}.warmup.steps=0", *words)
    clipped = ("pretrain.clip_grad=0.01", "pretrain.activation_checkpointing=true")
    case("clipped-2", "pretrain", "image.yaml", 2, *clipped)
    case("clipped-1", "pretrain", "image.yaml", 1, clipped[0], split)
    case("clipped-f", "pretrain", "image.yaml", 2, *clipped, fsdp)
    sharded("bad", "pretrain")
    case("auto-2", "pretrain", "image.yaml", 2, "pretrain.batch.per_device=auto")
    for ranks in (1, 2):
        case(f"probe-{ranks}", "probe", recipe("probe", "tints", IMAGES, PROBE), ranks, *scratch)
        case(f"knn-{ranks}", "probe", recipe("knn", "tints", IMAGES, CACHED), ranks, *scratch)
    draw_smooth(folder / "many", 300, seed=2)
    for ranks in (1, 2):
        out = ("--out", f"embedded-{ranks}.npz")
        words = ["embed", "many", "--from", "image-1", *out]
        cases.append({"name": f"embed-{ranks}", "ranks": ranks, "words": words})
        words = ["predict", "many", "bad/train", "--from", "finetune-1", "--json"]
        words += ["--out", f"predicted-{ranks}.csv", "--pictures", f"drawn-{ranks}"]
        cases.append({"name": f"predict-{ranks}", "ranks": ranks, "words": words})
        words = ["evaluate", "finetune-1", "--out", f"evaluate-{ranks}"]
        cases.append({"name": f"evaluate-{ranks}", "ranks": ranks, "words": words})
    cases += detection(folder)
    install(folder / "site")
    free = {"pretrain": {"target": FOLLOWER, "clip_grad": None}}  # so that no norm enters
    follower = recipe("follower", "smooth", IMAGES, STEPS, free)
    both("follower", "pretrain", follower)
    sharded("follower", "pretrain")
    case("astray-2", "pretrain", "image.yaml", 2, "model.decoder.name=astray")
    cases += continued()
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.forked", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder / 'site'}"},
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    codes: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def detection(folder: Path) -> list[dict[str, Any]]:
    """Return runs that learn actions in boxes, and evaluations of what the first one left.

    Micro-batches are of 4 clips: two on one rank, one on each of two. Of the held-out films some
    are wide, and one cannot be read.
    """
    for split, count, seed in (("train", 12, 0), ("val", 9, 1)):
        draw_films(folder / "films" / split, count, seed)
    (folder / "films/val/film4.mp4").write_bytes(b"this is no film" * 99)
    write_recipe(folder / "boxes.yaml", BASE, of_films(folder / "films"), BOXES)
    cases: list[dict[str, Any]] = []
    for ranks in (1, 2):
        words = ["finetune", "boxes.yaml", "--from", "scratch", "--out", f"boxes-{ranks}"]
        cases.append({"name": f"boxes-{ranks}", "ranks": ranks, "words": words})
    for ranks in (1, 2):
        words = ["evaluate", "boxes-1", "--out", f"judged-{ranks}"]
        cases.append({"name": f"judged-{ranks}", "ranks": ranks, "words": words})
    return cases


def continued() -> list[dict[str, Any]]:
    """Return runs that were saved by two ranks and are continued by one, and the other way."""
    scratch, half = ("--from", "scratch"), "batch.accumulation=2"
    cases = []
    for name, before, ranks, words in (
        ("image-21", "image-2", 1, (f"pretrain.{half}",)),
        ("image-12", "image-1", 2, ()),
        ("image-f1", "image-f", 1, (f"pretrain.{half}",)),
        ("image-1f", "image-1", 2, ("pretrain.sharding.name=fsdp",)),
        ("finetune-f2", "finetune-f", 2, scratch),
        ("finetune-2f", "finetune-2", 2, ("finetune.sharding.name=fsdp", *scratch)),
        ("finetune-22", "finetune-2", 2, scratch),
        ("tokenizer-21", "tokenizer-2", 1, (f"tokenizer.{half}",)),
    ):
        kind = name.partition("-")[0]
        verb = {"image": "pretrain"}.get(kind, kind)
        said = [verb, f"{kind}.yaml", "--out", name, "--resume", *words]
        rewound = [before, 3 if kind != "tokenizer" else 2]
        cases.append({"name": name, "ranks": ranks, "words": said, "rewound": rewound})
    longer = ("--resume", "--extend", "pretrain.steps=9")
    for way, ranks, words in (
        ("1", 1, (f"pretrain.{half}",)),
        ("2", 2, ()),
        ("f", 2, ("pretrain.sharding.name=fsdp",)),
    ):
        said = ["pretrain", "image.yaml", "--out", f"extended-{way}", *longer, *words]
        rewound = [f"image-{way}", 6]
        cases.append({"name": said[3], "ranks": ranks, "words": said, "rewound": rewound})
    return cases
