"""Which weights are meant: those that are named, or else the newest run's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from maekit import demo
from maekit.errors import RecipeError
from maekit.evaluate.encoder import weights_or_newest
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.runs import run_of
from maekit.weights import locate
from maekit.weights.checkpoints import FORMAT, MODEL, STATE, Record
from maekit.weights.locate import (
    DEMO,
    SCRATCH,
    check_exists,
    find_weights,
    is_foreign,
    local_path,
    newest_or_demo,
)
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


def make_run(
    name: str, age: int, *, finished: bool = True, holdout: dict[str, float] | None = None
) -> str:
    """Leave a run that saved the demo's weights, ``age`` seconds ago."""
    folder = Path("runs") / name
    place = folder / "weights.safetensors"
    if not finished:
        place = folder / "checkpoints" / "step-00000005" / MODEL
    place.parent.mkdir(parents=True)
    shutil.copyfile(demo.WEIGHTS, place)
    if not finished:
        record = Record(
            format=FORMAT, step=5, visited=-1, streak=0, scaler=None, extra={},
            sha256={MODEL: sha256(place)},
        )  # fmt: skip
        (place.parent / STATE).write_text(record.text())
    os.utime(place, (2e9 - age, 2e9 - age))
    result = {"verb": "pretrain", "exit": 0 if finished else 75, "holdout": holdout}
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


def held_out(error: float) -> dict[str, float]:
    return {"hidden_mse": error, "mean_fill_mse": 0.04, "interpolated_fill_mse": 0.02}


def test_a_throwaway_run_does_not_win_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = make_run("mine/1", 50, holdout=held_out(0.016))
    unknown = make_run("mine/2", 60)
    throwaway = make_run("mine/3", 10, holdout=held_out(0.024))
    half = make_run("mine/4", 5, finished=False, holdout=held_out(0.010))
    found = newest_or_demo(None)
    assert found.source.startswith(good)
    assert "--from demo" in found.description
    (note,) = found.notes
    assert note.startswith(f"passed over {throwaway}: ")
    assert "0.8 dB worse" in note  # 10 log10(0.024 / 0.02)
    assert f"--from {throwaway} takes it" in note
    assert newest_or_demo(throwaway).source == throwaway
    # Features are not judged by how they predict pixels.
    assert newest_or_demo(None, predicts=False).source.startswith(throwaway)
    shutil.rmtree(good)
    assert newest_or_demo(None).source.startswith(unknown)  # nothing speaks against it
    shutil.rmtree(unknown)
    assert newest_or_demo(None).source.startswith(half)
    assert "not finished" in newest_or_demo(None).description
    shutil.rmtree(half)
    assert newest_or_demo(None).caption == DEMO


def test_the_demo_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run("mine/1", 50, holdout=held_out(0.016))
    assert newest_or_demo("demo").caption == DEMO
    assert find_weights("demo") == local_path("demo") == demo.WEIGHTS
    check_exists("demo")
    assert not is_foreign("demo")
    shutil.move("runs/mine/1", "demo")  # what is there comes first
    assert find_weights("demo").parent == Path("demo")
    assert newest_or_demo("demo").caption == "demo"


@pytest.mark.parametrize(("error", "taken"), [(0.0198, True), (0.0205, True), (0.03, False)])
def test_normalized_pixels_are_judged_with_their_brightness_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float, taken: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run("mine/1", 50, holdout=held_out(error))
    pixels = locate.read_header(demo.WEIGHTS)
    assert pixels.target is not None
    target = pixels.target.model_copy(update={"name": "norm-pixel"})
    header = pixels.model_copy(update={"target": target})
    monkeypatch.setattr(locate, "read_header", lambda _: header)
    assert newest_or_demo(None).source.startswith(run) == taken
