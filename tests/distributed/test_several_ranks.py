"""Several ranks compute what one process does: the same losses, weights, scores and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
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

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KEY_BIAS = "qkv.bias"  # its middle third has no gradient but rounding
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
SGD: Recipe = {"pretrain": {"optimizer": {"name": "adamw", "base_lr": 1e-4}}}
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("ranks")
    draw(folder)
    cases: list[dict[str, Any]] = []

    def recipe(name: str, data: str, base: Recipe, *layers: Recipe) -> str:
        path = folder / f"{name}.yaml"
        if not path.exists():
            write_recipe(path, base, sets(folder / data), *layers)
        return path.name

    def case(name: str, verb: str, file: str, ranks: int, *words: str) -> None:
        cases.append({"name": name, "ranks": ranks, "words": [verb, file, "--out", name, *words]})

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
    for ranks in (1, 4):
        case(f"whole-{ranks}", "pretrain", "image.yaml", ranks)
    for ranks in (1, 2):
        case(f"probe-{ranks}", "probe", recipe("probe", "tints", IMAGES, PROBE), ranks, *scratch)
        case(f"knn-{ranks}", "probe", recipe("knn", "tints", IMAGES, CACHED), ranks, *scratch)
    draw_smooth(folder / "many", 300, seed=2)
    for ranks in (1, 2):
        out = ("--out", f"embedded-{ranks}.npz")
        words = ["embed", "many", "--from", "image-1", *out]
        cases.append({"name": f"embed-{ranks}", "ranks": ranks, "words": words})
        words = ["evaluate", "finetune-1", "--out", f"evaluate-{ranks}"]
        cases.append({"name": f"evaluate-{ranks}", "ranks": ranks, "words": words})
    install(folder / "site")
    free = {"pretrain": {"target": FOLLOWER, "clip_grad": None}}  # so that no norm enters
    follower = recipe("follower", "smooth", IMAGES, STEPS, free)
    both("follower", "pretrain", follower)
    sharded("follower", "pretrain")
    case("astray-2", "pretrain", "image.yaml", 2, "model.decoder.name=astray")
    # Saved by two ranks and continued by one, and the other way round.
    for name, before, ranks, words in (
        ("image-21", "image-2", 1, ("pretrain.batch.accumulation=2",)),
        ("image-12", "image-1", 2, ()),
        ("image-f1", "image-f", 1, ("pretrain.batch.accumulation=2",)),
        ("image-1f", "image-1", 2, ("pretrain.sharding.name=fsdp",)),
        ("finetune-f2", "finetune-f", 2, scratch),
        ("finetune-2f", "finetune-2", 2, ("finetune.sharding.name=fsdp", *scratch)),
        ("finetune-22", "finetune-2", 2, ("--from", "scratch")),
        ("tokenizer-21", "tokenizer-2", 1, ("tokenizer.batch.accumulation=2",)),
    ):
        kind = name.partition("-")[0]
        verb = {"image": "pretrain"}.get(kind, kind)
        case(name, verb, f"{kind}.yaml", ranks, "--resume", *words)
        cases[-1]["rewound"] = [before, 3 if kind != "tokenizer" else 2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.forked", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder / 'site'}"},
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    return Runs(folder, json.loads(done.stdout.splitlines()[-1]))


def test_every_rank_ends_well(runs: Runs) -> None:
    for name, codes in runs.codes.items():
        assert set(codes) == {8 if name == "astray-2" else 0}, runs.said(name)


def test_parameters_that_differ_after_the_first_step_end_the_run(runs: Runs) -> None:
    assert "the ranks' parameters differ after step 1" in runs.said("astray-2")


def test_embed_and_evaluate_by_shares(runs: Runs) -> None:
    """The same bytes, and the same scores in the same order; only rank 0 prints."""
    one, two = ((runs.folder / f"embedded-{ranks}.npz").read_bytes() for ranks in (1, 2))
    assert one == two
    assert runs.result("evaluate-1")["samples"] == 7
    for name in ("top1", "per_class", "samples"):
        assert runs.result("evaluate-1").get(name) == runs.result("evaluate-2").get(name)
    scores = [(runs.folder / f"evaluate-{each}" / "predictions.jsonl").read_text() for each in "12"]
    assert scores[0] == scores[1]
    for name in ("embed-2", "evaluate-2"):
        assert (runs.folder / f"{name}.0.txt").read_text()
        assert (runs.folder / f"{name}.1.txt").read_text() == ""


@pytest.mark.parametrize("kind", ["image", "video", "repeats", "fitted", "tokenizer", "follower"])
def test_two_ranks_are_accumulation_two_bit_for_bit(runs: Runs, kind: str) -> None:
    assert runs.steps(f"{kind}-1") == runs.steps(f"{kind}-2")
    one, two = runs.weights(f"{kind}-1"), runs.weights(f"{kind}-2")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    for ours, theirs in zip(runs.held_out(f"{kind}-1"), runs.held_out(f"{kind}-2"), strict=True):
        assert ours["step"] == theirs["step"]
        # Sums over batches, in float64, in another order.
        assert_close(ours["holdout"], theirs["holdout"])


@pytest.mark.parametrize(
    ("resumed", "unbroken"),
    [("image-21", "image-1"), ("image-12", "image-2"), ("tokenizer-21", "tokenizer-1")],
)
def test_a_run_continues_on_another_number_of_ranks(
    runs: Runs, resumed: str, unbroken: str
) -> None:
    assert runs.steps(resumed) == runs.steps(unbroken)
    found, expected = runs.weights(resumed), runs.weights(unbroken)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize(
    ("sharded", "replicated"),
    [
        ("image-f", "image-1"),
        ("video-f", "video-1"),
        ("finetune-f", "finetune-2"),
        ("image-half-f", "image-half"),
        ("follower-f", "follower-1"),  # the target follows whole parameters
        # Saved by one way and continued by the other.
        ("image-f1", "image-1"),
        ("image-1f", "image-1"),
        ("finetune-f2", "finetune-2"),
        ("finetune-2f", "finetune-2"),
    ],
)
def test_sharded_parameters_are_whole_ones_bit_for_bit(
    runs: Runs, sharded: str, replicated: str
) -> None:
    """Only the reported norm is added up in another order; it clips nothing here."""
    for ours, theirs in zip(runs.steps(sharded), runs.steps(replicated), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2] == pytest.approx(theirs[2], rel=1e-6)
    found, expected = runs.weights(sharded), runs.weights(replicated)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    for ours, theirs in zip(runs.held_out(sharded), runs.held_out(replicated), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_close(ours[key], theirs[key])


def test_a_sharded_tokenizer(runs: Runs) -> None:
    """FSDP2 lays convolutions out in another way, so that they round differently."""
    for ours, theirs in zip(runs.steps("tokenizer-f"), runs.steps("tokenizer-2"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert_moved_alike(runs.weights("tokenizer-f"), runs.weights("tokenizer-2"))


def test_four_ranks_are_one_up_to_rounding(runs: Runs) -> None:
    for one, four in zip(runs.steps("whole-1"), runs.steps("whole-4"), strict=True):
        assert one == pytest.approx(four, rel=1e-5)
    assert_moved_alike(runs.weights("whole-1"), runs.weights("whole-4"))


def assert_close(one: Any, other: Any) -> None:
    """Compare numbers, and what has none (None: the target paints no pixels)."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif one is None:
        assert other is None
    else:
        assert one == pytest.approx(other, rel=1e-12)


def assert_moved_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Compare weights; AdamW's first steps have the size of the rate whatever the gradient is."""
    for name, ours in one.items():
        if name.endswith(KEY_BIAS):
            continue
        gap = (ours - other[name]).abs().max()
        assert gap <= 1e-3 * max(float(ours.abs().max()), 1e-2), (name, gap)


def test_a_bad_file_on_one_rank_counts_nowhere(runs: Runs) -> None:
    for one, two in zip(runs.steps("bad-1"), runs.steps("bad-2"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    for name in ("bad-1", "bad-2"):
        lines = list(read_lines(runs.folder / name / "bad_files.jsonl"))
        assert [Path(line["file"]).name for line in lines] == ["007.png"]
        assert runs.result(name)["bad_files"] == 1


def test_finetuning_by_two_ranks(runs: Runs) -> None:
    """Mixing goes by sample, so that scores of each sample are the same, and in order."""
    for one, two in zip(runs.steps("finetune-1"), runs.steps("finetune-2"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    assert_moved_alike(runs.weights("finetune-1"), runs.weights("finetune-2"))
    scores = [
        list(read_lines(runs.folder / name / "predictions.jsonl"))
        for name in ("finetune-1", "finetune-2")
    ]
    assert len(scores[0]) == 7
    for ours, theirs in zip(*scores, strict=True):
        assert (ours["row"], ours["id"], ours["label"]) == tuple(
            theirs[key] for key in ("row", "id", "label")
        )
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=2e-5)
    assert runs.steps("finetune-22") == runs.steps("finetune-2")
    resumed, unbroken = runs.weights("finetune-22"), runs.weights("finetune-2")
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_probes_by_two_ranks(runs: Runs) -> None:
    """The paper's batch norm is of the whole batch; cached features are made by shares."""
    for one, two in zip(runs.steps("probe-1"), runs.steps("probe-2"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    for kind in ("probe", "knn"):
        one, two = runs.result(f"{kind}-1"), runs.result(f"{kind}-2")
        for key in ("top1", "floor", "per_class", "train_samples", "val_samples"):
            if key in one:
                assert one[key] == pytest.approx(two[key], abs=1e-6), key


def test_rank_0_speaks_for_all(runs: Runs) -> None:
    """Its stdout is that of one process; the others say nothing."""
    assert "holdout loss" in (runs.folder / "image-2.0.txt").read_text()
    assert (runs.folder / "image-2.1.txt").read_text() == ""
