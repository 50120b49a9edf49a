"""Which weights are meant: those that are named, or else the newest run's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maekit.errors import RecipeError
from maekit.evaluate.encoder import weights_or_newest
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.runs import run_of
from maekit.weights.checkpoints import FORMAT, MODEL, STATE, Record
from maekit.weights.locate import SCRATCH, find_weights, is_foreign, local_path
from maekit.weights.safetensors_io import sha256, write_weights


def test_a_run_folder_gives_its_final_or_newest_weights(tmp_path: Path) -> None:
    for step in (5, 20):
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        write_weights(folder / MODEL, {"a": torch.ones(1)})
        record = Record(
            format=FORMAT, step=step, visited=-1, streak=0, scaler=None, extra={},
            sha256={MODEL: sha256(folder / MODEL)},
        )  # fmt: skip
        (folder / STATE).write_text(record.text())
    newest = find_weights(tmp_path)
    assert newest.parent.name == "step-00000020"
    assert run_of(newest) is None
    (tmp_path / "recipe.yaml").touch()
    assert run_of(newest) == tmp_path
    write_weights(tmp_path / "weights.safetensors", {"a": torch.ones(1)})
    assert find_weights(tmp_path).name == "weights.safetensors"
    assert run_of(find_weights(tmp_path)) == tmp_path


def test_nothing_to_find_says_why(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such run or weights file"):
        find_weights(tmp_path / "absent")
    with pytest.raises(RecipeError, match=r"neither weights\.safetensors nor a checkpoint"):
        find_weights(tmp_path)


def test_a_source_that_does_not_exist_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    recipe = resolve(load("quickstart"), "pretrain")
    there = tmp_path / "some.pth"
    for absent in (str(there), f"hf:{tmp_path / 'folder'}"):
        with pytest.raises(RecipeError, match="no such run or weights file"):
            weights_or_newest(recipe, absent, print)
    there.touch()
    for source in (str(there), f"hf:{tmp_path}", "timm:vit_tiny_patch16_224", SCRATCH):
        assert weights_or_newest(recipe, source, print) == source


def test_who_wrote_weights_and_where_they_are(tmp_path: Path) -> None:
    foreign, other = tmp_path / "w.pth", tmp_path / "hf"
    foreign.write_bytes(b"a pickle or so")
    other.mkdir()
    (other / "config.json").write_text("{}")
    assert all(map(is_foreign, (foreign, other, f"hf:{other}", "timm:vit_tiny_patch16_224")))
    assert not is_foreign(tmp_path)
    assert not is_foreign(tmp_path / "absent")  # so that one message says that it is not there
    assert local_path(f"hf:{other}") == local_path(other) == other
    assert local_path("timm:vit_tiny_patch16_224") is None
