"""Clips of data.val are as long as data.train's: followed where unset, else refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maekit.errors import RecipeError
from maekit.recipe.dump import as_dict, dump
from maekit.recipe.load import load, with_overlays
from maekit.recipe.schema import Recipe
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str], Path]

CLIPS = """\
name: clips
data:
  train: {name: sample-videos, frames: 16, stride: 4}
  val: {name: sample-videos, split: val}
model:
  backbone: {name: video-vit, size: tiny, patch: [2, 16, 16]}
probe: {kind: knn}
"""


def frames(recipe: Recipe) -> tuple[int, int]:
    assert recipe.data.val is not None
    return recipe.data.train.frames, recipe.data.val.frames


def test_they_follow_data_trains(parent: Path) -> None:
    assert frames(load(parent).recipe) == (16, 16)
    assert frames(load(parent, ["data.train.frames=8"]).recipe) == (8, 8)
    assert frames(load(parent, ["~data.train.frames"]).recipe) == (1, 1)
    assert frames(load(parent, ["data.val.name=other"]).recipe) == (16, 16)


def test_the_same_number_may_be_given(parent: Path) -> None:
    assert frames(load(parent, ["data.val.frames=16"]).recipe) == (16, 16)
    words = ["data.train.frames=4", "data.val.frames=4"]
    assert frames(load(parent, words).recipe) == (4, 4)


@pytest.mark.parametrize("asked", [1, 8])
def test_another_one_is_an_error_that_names_both(parent: Path, asked: int) -> None:
    with pytest.raises(RecipeError) as caught:
        load(parent, [f"data.val.frames={asked}"])
    told = f"data.val.frames: expected 16, as data.train.frames, got {asked}: a model has clips of"
    assert caught.value.what == f"{told} one length"
    assert caught.value.hint == "leave it out (~data.val.frames), or set both"
    assert caught.value.exit_code == 2
    assert caught.value.where == "command line"


def test_the_line_is_that_of_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "clips.yaml"
    own = CLIPS.replace("{kind: knn}", "{kind: knn, data: {val: {frames: 4}}}")
    other = CLIPS.replace("split: val", "split: val, frames: 4")
    for text, line in ((own, 7), (other, 4)):
        path.write_text(text)
        with pytest.raises(RecipeError, match="expected 16") as caught:
            resolve(load(path), "probe")
        assert str(caught.value.where).endswith(f"clips.yaml:{line}")


def test_overlays_follow_and_contradict_alike(write: Write) -> None:
    child = write("child.yaml", "extends: parent.yaml\npretrain: {data: {train: {frames: 4}}}\n")
    assert frames(with_overlays(load(child), "pretrain").recipe) == (4, 4)
    explicit = load(child, ["data.val.frames=16"])  # right for all verbs but this one
    with pytest.raises(RecipeError, match=r"expected 4, as data\.train\.frames, got 16"):
        _ = with_overlays(explicit, "pretrain").recipe
    own = ["pretrain.data.val.frames=4", "data.val.frames=16"]
    assert frames(with_overlays(load(child, own), "pretrain").recipe) == (4, 4)


def test_a_resolved_recipe_reads_back_and_still_follows(tmp_path: Path) -> None:
    path = tmp_path / "clips.yaml"
    path.write_text(CLIPS.replace("{kind: knn}", "{kind: knn, data: {train: {frames: 8}}}"))
    for number, words in enumerate(([], ["data.val.frames=16", "probe.data.val.frames=8"])):
        for verb in (None, "probe"):
            resolved = resolve(load(path, words), verb)
            again = tmp_path / f"{number}-{verb}.yaml"
            again.write_text(dump(resolved))
            loaded = load(again)
            assert resolve(loaded, None) == (resolved if verb is None else resolve(loaded))
            assert as_dict(loaded.recipe) == as_dict(resolved)
            assert frames(loaded.recipe) == ((16, 16) if verb is None else (8, 8))
            if verb is None:
                assert frames(with_overlays(loaded, "probe").recipe) == (8, 8)
            assert frames(load(again, ["data.train.frames=2"]).recipe) == (2, 2)


def test_no_default_is_told_of_that_is_none(parent: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(parent, ["data.val.frames=null"])
    assert caught.value.hint == "data.train's, which it follows where it is not given"


def test_a_wrong_data_train_is_told_of_alone(parent: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(parent, ["data.train.frames=0"])
    assert caught.value.what == "data.train.frames: expected at least 1, got 0"
