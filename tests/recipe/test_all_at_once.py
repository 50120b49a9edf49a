"""Mistakes in a recipe's core and in its parts are told in one answer, each at its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maekit import registry
from maekit.errors import MaekitError, PartError, RecipeError
from maekit.recipe.load import read
from maekit.registry import resolve

THREE = ["pretrain.masker.ration=1", "model.backbone.patsh=2", "pretrain.steps=x"]


def problems(recipe: str | Path, overrides: list[str]) -> str:
    with pytest.raises(MaekitError) as caught:
        resolve(read(recipe, overrides), "pretrain")
    return str(caught.value)


def test_on_the_command_line() -> None:
    said = problems("quickstart", THREE)
    for words in (
        "3 problems:",
        "command line: pretrain.masker.ration: unknown key (did you mean 'ratio'?)",
        "command line: model.backbone.patsh: unknown key (did you mean 'patch'?)",
        "command line: pretrain.steps: expected a whole number, got x",
    ):
        assert words in said


def test_in_a_file_and_in_its_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(
        "extends: quickstart\npretrain:\n  masker: {ration: 1}\n  stepz: 2\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nmodel:\n  backbone:\n    patsh: 2\n")
    said = problems(child, ["data.train.cuont=3"])
    parent = tmp_path / "parent.yaml"
    assert f"{parent}:3: pretrain.masker.ration: unknown key" in said
    assert f"{parent}:4: pretrain.stepz: unknown key" in said
    assert f"{child}:4: model.backbone.patsh: unknown key" in said
    assert "command line: data.train.cuont: unknown key (did you mean 'count'?)" in said


def test_with_a_part_that_nobody_installed() -> None:
    said = problems("quickstart", [*THREE, "pretrain.target.name=pixle"])
    assert "4 problems:" in said
    assert "pretrain.target.name: unknown target 'pixle' (did you mean 'pixel'?" in said
    with pytest.raises(PartError, match=r"pretrain\.target\.name: unknown target"):
        resolve(read("quickstart", ["pretrain.target.name=pixle"]), "pretrain")


def test_with_a_part_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise ValueError('{half} a plugin')")
    info = tmp_path / "broken_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: broken-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[maekit.maskers]\nbroken = broken_plugin:Broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entries.cache_clear()
    said = problems("quickstart", ["pretrain.masker.name=broken", *THREE[1:]])
    assert "3 problems:" in said
    assert "pretrain.masker.name: masker 'broken' of broken-plugin 1 cannot be imported" in said
    assert "{half} a plugin" in said
    registry._entries.cache_clear()
    sys.modules.pop("broken_plugin", None)


def test_in_a_verbs_overlay(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: quickstart\npretrain:\n  model:\n    backbone: {patsh: 2}\n")
    with pytest.raises(RecipeError) as caught:
        resolve(read(child, ["pretrain.masker.ratio=1.5"]), "pretrain")
    said = str(caught.value)
    assert f"{child}:4: model.backbone.patsh" in said
    assert "pretrain.masker.ratio: expected less than 1" in said
