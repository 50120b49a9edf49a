"""``maekit pretrain`` on real clips: every set of videos, from folders and lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_recipes import VIDEOS, Recipe, write_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

REAL: Recipe = {
    "name": "real",
    "data": {"train": {"frames": 8, "stride": 2}, "size": 64},
    "model": {"backbone": {"width": 96, "depth": 3, "heads": 3}, "decoder": {"width": 64}},
    "pretrain": {
        "target": {"name": "pixel"},
        "epochs": 2,
        "batch": {"global": 8},
        "optimizer": {"name": "adamw", "base_lr": 3.2e-2},
        "pictures": {"every": 100000, "samples": 4},
    },
}
UNSET = ("data.val", "data.workers", "pretrain.steps")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "real.yaml", VIDEOS, REAL, without=UNSET)


def every_fifth_held_out(rows: Path, folder: Path) -> tuple[Path, Path]:
    """Write lists of absolute paths, to train on and to hold out."""
    lines = [f"{rows.parent / line}\n" for line in rows.read_text().splitlines()]
    train, val = folder / "train.txt", folder / "val.txt"
    train.write_text("".join(line for at, line in enumerate(lines) if at % 5))
    val.write_text("".join(lines[::5]))
    return train, val


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("motion8", marks=pytest.mark.slow),
        pytest.param("arid6-bright", marks=pytest.mark.nightly),
        pytest.param("colored-shape-actions", marks=pytest.mark.nightly),
    ],
)
def test_two_epochs_on_a_real_set(
    cli: Cli, recipe: str, shared_data: Path, tmp_path: Path, name: str
) -> None:
    folder = shared_data / name
    train, val = folder / "train.txt", folder / "val.txt"
    if not train.exists():
        train, val = every_fifth_held_out(folder / "all.txt", tmp_path)
    held_out = ["data.val.name=videos", f"data.val.path={val}", "data.val.stride=2"]
    done = cli("pretrain", recipe, f"data.train.path={train}", *held_out, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["bad_files"] == 0
    assert result["holdout"]["loss"] < result["holdout_start"]["loss"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["asl20", "arid6-orig-sample"])
def test_an_epoch_of_unlabeled_clips_runs_to_the_end(
    cli: Cli, recipe: str, shared_data: Path, name: str
) -> None:
    words = [f"data.train.path={shared_data / name}", "pretrain.epochs=1"]
    done = cli("pretrain", recipe, *words, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["bad_files"] == 0
    assert result["steps"] >= 1
