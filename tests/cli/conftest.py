"""The command line, called in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from small_recipes import IMAGES, Recipe, draw_sides, draw_smooth, draw_tints, sets, write_recipe

from maekit.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL: Recipe = {
    "pretrain": {
        "steps": 12,
        "warmup": {"steps": 2},
        "optimizer": {"name": "adamw", "base_lr": 0.03},
        "checkpoint": {"steps": 5},
        "validate": {"every": 6, "samples": 8},
    },
}
LABELED: Recipe = {
    "name": "labeled",
    "pretrain": {
        "steps": 6,
        "optimizer": {"name": "adamw", "base_lr": 0.03},
        "checkpoint": {"steps": 2, "keep": 1},
        "validate": {"every": 6, "samples": 8},
    },
    "probe": {
        "kind": "linear",
        "protocol": "cached",
        "pixels": 8,
        "linear": {"strengths": [0.01, 1.0], "held_out": 0.3},
        "knn": {"k": 5},
        "attentive": {"epochs": 3, "batch": 16},
    },
    "expected": [
        {"metric": "probe.top1", "value": 0.9, "band": [0.0, 1.0], "source": "these tests"},
        {"metric": "probe.floor.random", "value": 2.0, "band": 0.1, "source": "these tests"},
        {"metric": "finetune.top1", "value": 0.9, "band": 0.1, "source": "these tests"},
    ],
}
TWO: Recipe = {
    "name": "two",
    "finetune": {
        "model": {"backbone": {"drop_path": 0.2}},
        "steps": 12,
        "warmup": {"steps": 2},
        "batch": {"global": 8},
        "optimizer": {"name": "adamw", "base_lr": 0.1},
        "layer_decay": 0.75,
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "erase": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "head": {"dropout": 0.1},
        "checkpoint": {"steps": 5},
        "validate": {"every": 4},
    },
}


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``cli("recipes", "list")`` runs a command and returns its code, stdout and stderr."""

    def call(*words: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int) or code is None
        return Result(code or 0, captured.out, captured.err)

    return call


@pytest.fixture
def embed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let embed read in this process, which for a few files is faster than starting another."""
    monkeypatch.setattr("maekit.cli.embed.workers_of", lambda _asked, _device: 0)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a recipe over 50 pictures, in a working directory of its own."""
    folder = tmp_path / "pictures"
    draw_smooth(folder / "train", 50, seed=0)
    draw_smooth(folder / "val", 9, seed=1)
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "small.yaml", IMAGES, sets(folder), SMALL)


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a recipe over 36 pictures of three classes, in a working directory of its own."""
    folder = tmp_path / "pictures"
    draw_tints(folder / "train", 12, seed=0)
    draw_tints(folder / "val", 4, seed=1)
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "labeled.yaml", IMAGES, sets(folder), LABELED)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a recipe that fine-tunes on two classes of pictures, in a directory of its own."""
    folder = tmp_path / "pictures"
    draw_sides(folder / "train", 40, seed=0)
    draw_sides(folder / "val", 16, seed=1)
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "two.yaml", IMAGES, sets(folder), TWO)
