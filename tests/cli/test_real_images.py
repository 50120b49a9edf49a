"""``maekit pretrain`` on real pictures: every image set, and the hard files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from small_recipes import IMAGES, Recipe, write_recipe

from maekit.datasets.images import SUFFIXES
from maekit.engine.run_folder import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

REAL: Recipe = {
    "name": "real",
    "data": {"size": 64, "stats": "imagenet"},
    "model": {"backbone": {"width": 64}, "decoder": {"width": 32}},
    "pretrain": {
        "masker": {"ratio": 0.75},
        "target": {"name": "pixel"},
        "epochs": 2,
        "batch": {"global": 64},
        "optimizer": {"name": "adamw", "base_lr": 4e-3},
        "pictures": {"every": 100000, "samples": 4},
    },
}
UNSET = ("data.val", "data.workers", "pretrain.steps")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "real.yaml", IMAGES, REAL, without=UNSET)


SETS = {
    "cifar10-10k": ("test", ["data.size=32", "model.backbone.patch=4"]),
    "tiny-imagenet-20": ("val", []),
    "caltech101-24": ("val", []),
    "scene6-1500": ("val", ["data.size=[48,72]"]),
    "mnist-gray-3k": ("test", ["data.size=28", "model.backbone.patch=4", "data.channels=1"]),
}
SMALLEST = "mnist-gray-3k"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == SMALLEST else pytest.mark.nightly)
        for name in SETS
    ],
)
def test_two_epochs_on_a_real_set(cli: Cli, recipe: str, shared_data: Path, name: str) -> None:
    val, more = SETS[name]
    words = [
        f"data.train.path={shared_data / name / 'train'}",
        "data.val.name=images",
        f"data.val.path={shared_data / name / val}",
        *more,
    ]
    done = cli("pretrain", recipe, *words, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["bad_files"] == 0
    assert result["holdout"]["loss"] < result["holdout_start"]["loss"]
    # Two epochs of the small sets are 40 steps: too few to ask for more than a falling loss.


def test_hard_files_are_read_or_listed_once(cli: Cli, recipe: str, shared_data: Path) -> None:
    """Each file exactly once: what Pillow cannot decode is listed, all else is trained on.

    A file without a suffix counts where its first bytes are a picture's.
    """
    odd = shared_data / "odd"
    seen = [
        path
        for path in odd.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(odd).parts)
    ]
    files = [
        path for path in seen
        if path.suffix.lower() in SUFFIXES or (not path.suffix and decodes(path))
    ]  # fmt: skip
    words = [
        f"data.train.path={odd}", "data.train.max_bad_fraction=1",
        "~pretrain.epochs", "pretrain.epochs=1", "pretrain.batch.global=1",
    ]  # fmt: skip
    done = cli("pretrain", recipe, *words, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == len(files)
    listed = list(read_lines(Path("runs/real/1/bad_files.jsonl")))
    assert all(line["reason"] for line in listed)
    names = [line["file"] for line in listed]
    assert len(names) == len(set(names))
    unreadable = {str(path) for path in files if not decodes(path)}
    assert {str(odd / name) for name in names} == unreadable
    assert len(unreadable) > 5
    assert "Traceback" not in done.err


def decodes(path: Path) -> bool:
    """Whether Pillow alone makes a picture of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True
