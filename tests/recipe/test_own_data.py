"""``data`` of one's own: a share held out, and sets that are named by what lies at a path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from small_recipes import IMAGES, laid_over

from maekit.errors import DataError, MaekitError, RecipeError
from maekit.recipe.dump import dump
from maekit.recipe.load import read
from maekit.recipe.yaml12 import parse
from maekit.registry import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.recipe.schema import Recipe

BARE = laid_over(IMAGES, without=("data.train", "data.val"))


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "mixed"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "a.jpg")
    (tmp_path / "clips").mkdir()
    for folder in ("clips", "mixed"):
        (tmp_path / folder / "a.mp4").touch()


def of(data: dict[str, Any], *overrides: str) -> Recipe:
    return resolve(read(laid_over(BARE, {"data": data}), overrides), "pretrain")


def test_a_share_has_all_that_data_train_has(tmp_path: Path) -> None:
    train = {"name": "videos", "path": "clips", "frames": 4, "stride": 2, "labels": "none"}
    recipe = of({"train": train, "val": {"split": 0.25, "by": "folder", "sampling": "spread"}})
    val = recipe.data.val
    assert val is not None
    assert val.held_out is not None
    assert (val.held_out.split, val.held_out.by) == (0.25, "folder")
    assert (val.name, val.frames, val.stride, val.sampling) == ("videos", 4, 2, "spread")
    assert val.options == recipe.data.train.options
    written = parse(dump(recipe))
    assert written is not None
    plain = written.plain["data"]["val"]  # type: ignore[index,call-overload]
    assert set(plain) == {"split", "by", "stride", "sampling", "jitter", "max_bad_fraction"}
    (tmp_path / "again.yaml").write_text(dump(recipe), encoding="utf-8")
    assert resolve(read("again.yaml"), "pretrain") == recipe
    # Another set later: the share is of that one.
    other = resolve(read("again.yaml", ["data.train.path=photos"]), "pretrain").data
    assert other.val is not None
    assert other.val.options == other.train.options


@pytest.mark.parametrize(
    ("before", "word", "after"),
    [
        ({"path": "photos"}, "data.val.split=0.1", 0.1),
        ({"name": "sample-images", "split": "val"}, "data.val={split: 0.5}", 0.5),
        ({"split": 0.1, "by": "folder"}, "data.val.split=0.2", 0.2),
        ({"split": 0.1, "by": "folder"}, "data.val.path=photos", None),
        ({"split": 0.1}, "data.val={name: sample-images, split: val}", None),
        # A set's own split is a word, and has a name beside it.
        ({"name": "sample-images", "split": "train"}, "data.val.split=val", None),
    ],
)
def test_a_share_and_a_set_take_each_others_place(
    before: dict[str, Any], word: str, after: float | None
) -> None:
    val = of({"train": {"path": "photos"}, "val": before}, word).data.val
    assert val is not None
    assert (None if val.held_out is None else val.held_out.split) == after


@pytest.mark.parametrize(
    ("val", "said"),
    [
        ({"split": 1.5}, "data.val.split: expected a share between 0 and 1, got 1.5"),
        ({"split": 0}, "data.val.split: expected a share"),
        ({"split": True}, "data.val.split: expected a share"),
        ({"split": 0.1, "path": "photos"}, "data.val.path: means nothing beside split"),
        ({"split": 0.1, "fold": 3}, "data.val.fold: means nothing beside split"),
    ],
)
def test_a_share_with_more_is_refused(val: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        of({"train": {"path": "photos"}, "val": val})


def test_a_path_says_what_reads_it() -> None:
    data = of({"train": {"path": "photos"}, "val": {"path": "photos"}}).data
    assert data.val is not None
    assert (data.train.name, data.val.name) == ("images", "images")
    assert of({"train": {"path": "clips", "frames": 4}}).data.train.name == "videos"


@pytest.mark.parametrize(
    ("train", "kind", "said"),
    [
        ({"path": "nope"}, DataError, "nope does not exist"),
        ({"path": "."}, RecipeError, "can be read as images or videos"),
        ({"path": "mixed"}, RecipeError, "can be read as images or videos"),
        (
            {"name": "sample-images", "path": "photos"},
            RecipeError,
            "try: data.train.name=images data.train.path=photos; and 'data.val={split: 0.1}'",
        ),
        (
            {"name": "sample-videos", "path": "clips"},
            RecipeError,
            "'sample-videos' draws its own samples\n  try: data.train.name=videos",
        ),
        ({"name": "torchvision", "path": "photos"}, RecipeError, "'torchvision' reads no path"),
    ],
)
def test_a_path_that_says_nothing(
    train: dict[str, Any], kind: type[MaekitError], said: str
) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        of({"train": train})
