"""What a shell completes; quickly, and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maekit.cli import completion
from maekit.recipe.shipped import names


def test_recipes_are_completed_by_name() -> None:
    assert completion.recipes("quick") == ["quickstart", "quickstart_video"]
    assert completion.recipes("") == names()


@pytest.mark.parametrize(("typed", "found"), [
    ("pretrain.ep", ["pretrain.epochs="]),
    ("~data.v", ["~data.val.name"]),
    ("finetune.head.k", ["finetune.head.kind="]),
    ("pretrain.target.name=n", ["pretrain.target.name=norm-pixel"]),
    ("pretrain.precision=fp", ["pretrain.precision=fp16", "pretrain.precision=fp32"]),
    ("log=w", ["log=wandb"]),
    ("nonsense", []),
])  # fmt: skip
def test_overrides_are_completed_by_key_and_value(typed: str, found: list[str]) -> None:
    assert completion.overrides(typed)[: max(1, len(found))] == found


def test_runs_are_completed_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert completion.runs("") == []
    for name in ("a/1", "a/2", "a/10", "b/1"):
        Path("runs", name).mkdir(parents=True)
    assert completion.runs("") == ["runs/a/10", "runs/a/2", "runs/a/1", "runs/b/1"]
    assert completion.runs("runs/b") == ["runs/b/1"]


def test_bash_is_answered_without_torch() -> None:
    words = {"COMP_WORDS": "maekit pretrain quickstart pretrain.mask", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "maekit"],
        env=os.environ | words | {"_MAEKIT_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pretrain.masker.name=" in done.stdout.split()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "av", "timm", "PIL"}
