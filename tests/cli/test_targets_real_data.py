"""Every target learns: 50 steps on real pictures and videos leave a lower held-out loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_recipes import IMAGES, Recipe, write_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

LEARNS: Recipe = {
    "name": "target",
    "data": {"size": 32},
    "model": {"backbone": {"width": 96, "heads": 3}, "decoder": {"width": 64}},
    "pretrain": {
        "masker": {"ratio": 0.75},
        "target": {"name": "pixel"},
        "augment": {"name": "random-resized-crop", "scale": [0.6, 1.0]},
        "steps": 50,
        "warmup": {"steps": 5},
        "batch": {"global": 32},
        "optimizer": {"base_lr": 1.6e-2},
        "validate": {"every": 50, "samples": 64},
        "pictures": {"every": 50, "samples": 2},
    },
}
VIDEOS = [
    "data.train.name=videos", "data.val.name=videos", "data.train.frames=4", "data.train.stride=4",
    "data.val.stride=4", "model.backbone.name=video-vit", "model.backbone.size=tiny",
    "model.backbone.width=96", "model.backbone.depth=2", "model.backbone.heads=3",
    "model.backbone.patch=[2,8,8]", "pretrain.masker.name=tube", "pretrain.masker.ratio=0.75",
    "pretrain.batch.global=16", "pretrain.optimizer.base_lr=3.2e-2",
]  # fmt: skip
TARGETS = {
    "pixel": [],
    "norm-pixel": ["pretrain.target.name=norm-pixel"],
    "pca": ["pretrain.target.name=pca"],
    "pixel, all tokens": ["pretrain.loss_on=all"],
    "pixel of blocks": ["pretrain.masker.name=block", "pretrain.masker.min_area=4"],
    "middle frame": [*VIDEOS, "pretrain.target.frames=center"],
    "twice the frames": [*VIDEOS, "pretrain.target.frames=double"],
    "normalized middle frame": [
        *VIDEOS, "pretrain.target.name=norm-pixel", "pretrain.target.frames=center",
    ],
    "dual masking": [*VIDEOS, "pretrain.decoder_masker.name=running-cell"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", TARGETS)
def test_fifty_steps_lower_the_held_out_loss(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = TARGETS[case]
    # By workers where nothing but the data differs; others read for themselves.
    without = ("data.workers",) if case in ("pixel", "middle frame") else ()
    write_recipe(Path("target.yaml"), IMAGES, LEARNS, without=without)
    train, val = ("train.txt", "val.txt") if words[:1] == VIDEOS[:1] else ("train", "val")
    folder = shared_data / ("motion8" if train == "train.txt" else "scene6-1500")
    paths = [f"data.train.path={folder / train}", f"data.val.path={folder / val}"]
    done = cli("pretrain", "target.yaml", *words, *paths, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["bad_files"] == 0
    assert result["holdout"]["loss"] < result["holdout_start"]["loss"]
    assert list(Path("runs/target/1/pictures").glob("*.png"))
