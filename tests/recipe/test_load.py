"""Parents, overrides and overlays: one set of rules, whatever lies on top of what."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maekit.errors import RecipeError
from maekit.recipe.dump import dump
from maekit.recipe.load import WITH_DEFAULTS, find, load, read, read_tree, with_overlays
from maekit.recipe.shipped import shipped
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str], Path]


def test_a_child_changes_only_what_it_names(write: Write) -> None:
    child = write("child.yaml", "extends: parent.yaml\nname: child\ndata: {size: [32, 48]}\n")
    loaded = load(child)
    assert loaded.recipe.name == "child"
    assert loaded.recipe.data.height_width == (32, 48)
    assert loaded.recipe.pretrain is not None
    assert loaded.recipe.pretrain.epochs == 10
    assert "extends" not in loaded.data
    assert str(loaded.marks["data", "size"]).endswith("child.yaml:3")
    assert str(loaded.marks["pretrain", "epochs"]).endswith("parent.yaml:13")


def test_parents_chain_nearest_first(write: Write) -> None:
    write("middle.yaml", "extends: parent.yaml\nseed: 1\ndata: {size: 16}\n")
    child = write("sub/child.yaml", "extends: ../middle.yaml\nseed: 2\n")
    recipe = load(child).recipe
    assert (recipe.seed, recipe.data.size, recipe.name) == (2, 16, "parent")


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        ("child.yaml", "circle: child.yaml > child.yaml"),
        ("other.yaml", "circle: child.yaml > other.yaml > child.yaml"),
        ("parrent.yaml", "no such file"),
        ("[parent.yaml, other.yaml]", "one parent"),
        ("3", "one parent"),
        ("", "one parent"),
    ],
)
def test_parents_that_cannot_be(write: Write, extends: str, words: str) -> None:
    write("other.yaml", "extends: child.yaml\n")
    child = write("child.yaml", f"name: child\nextends: {extends}\n")
    with pytest.raises(RecipeError) as caught:
        load(child)
    assert words in caught.value.what
    assert caught.value.where is not None
    assert caught.value.hint
    assert caught.value.where.endswith(("child.yaml:2", "other.yaml:1"))


def test_a_missing_parent_suggests_the_file_beside_it(write: Write) -> None:
    child = write("child.yaml", "extends: parrent.yaml\n")
    with pytest.raises(RecipeError) as caught:
        load(child)
    assert caught.value.hint == "did you mean 'parent.yaml'?"


def test_what_is_missing_is_missing_from_the_child(write: Write) -> None:
    write("half.yaml", "seed: 1\n")
    child = write("child.yaml", "\nextends: half.yaml\n")
    with pytest.raises(RecipeError) as caught:
        load(child)
    assert "child.yaml:2: name: missing" in str(caught.value)


class TestOverrides:
    def test_values_are_yaml_and_split_at_the_first_equals(self, parent: Path) -> None:
        data = load(
            parent,
            ["pretrain.optimizer.base_lr=1e-3", "data.train.path=x=1", "data.size=[8, 16]"],
        ).data
        assert data["pretrain"]["optimizer"] == {"base_lr": 1e-3, "betas": [0.9, 0.95]}
        assert data["data"]["train"]["path"] == "x=1"
        assert data["data"]["size"] == [8, 16]

    def test_their_marks_are_the_command_line(self, parent: Path) -> None:
        marks = load(parent, ["data.train.path=x"]).marks
        assert str(marks["data", "train", "path"]) == "command line"
        assert str(marks["data", "train"]).endswith("parent.yaml:3")

    def test_order_never_matters(self, parent: Path) -> None:
        words = ["data.train.name=other", "data.train.root=r", "data.train.frames=8", "~data.val"]
        results = [load(parent, order).data for order in itertools.permutations(words)]
        assert all(result == results[0] for result in results)
        assert results[0]["data"]["train"] == {
            "name": "other",
            "root": "r",
            "frames": 8,
            "stride": 4,
            "max_bad_fraction": 0.2,
        }

    def test_a_new_name_drops_the_old_options(self, parent: Path) -> None:
        data = load(parent, ["pretrain.masker.name=grid", "model.decoder.name=other"]).data
        assert data["pretrain"]["masker"] == {"name": "grid"}
        assert data["model"]["decoder"] == {"name": "other"}

    def test_the_same_name_keeps_them(self, parent: Path) -> None:
        data = load(parent, ["pretrain.masker={name: random, ratio: 0.5}"]).data
        assert data["pretrain"]["masker"] == {"name": "random", "ratio": 0.5, "rounding": "keep"}

    def test_the_recipes_own_name_drops_nothing(self, parent: Path) -> None:
        assert load(parent, ["name=other"]).recipe.data.size == 64

    def test_only_datasets_keep_what_the_core_owns(self, parent: Path) -> None:
        # `frames` on a masker is that masker's own option.
        data = load(parent, ["pretrain.masker={name: tube, frames: 2}"]).data
        assert data["pretrain"]["masker"] == {"name": "tube", "frames": 2}
        data = load(parent, ["pretrain.masker.frames=2"]).data
        assert data["pretrain"]["masker"]["frames"] == 2

    @pytest.mark.parametrize(
        ("word", "gone", "kept"),
        [
            ("pretrain.steps=5", ("epochs",), ("warmup", "epochs")),
            ("pretrain.samples=5", ("epochs",), ("warmup", "epochs")),
            ("pretrain.warmup.steps=5", ("warmup", "epochs"), ("epochs",)),
            ("pretrain.checkpoint.steps=5", ("checkpoint", "minutes"), ("checkpoint", "keep")),
        ],
    )
    def test_an_alternative_removes_the_others(
        self, parent: Path, word: str, gone: tuple[str, ...], kept: tuple[str, ...]
    ) -> None:
        tree = load(parent, [word]).tree
        assert tree.at(("pretrain", *gone)) is None
        assert tree.at(("pretrain", *kept)) is not None

    def test_a_childs_alternative_removes_the_parents(self, write: Write) -> None:
        child = write("child.yaml", "extends: parent.yaml\npretrain: {steps: 7}\n")
        pretrain = load(child).recipe.pretrain
        assert pretrain is not None
        assert (pretrain.steps, pretrain.epochs) == (7, None)
        pretrain = load(child, ["pretrain.samples=9"]).recipe.pretrain
        assert pretrain is not None
        assert (pretrain.samples, pretrain.steps) == (9, None)

    def test_two_alternatives_in_one_file_name_both_lines(self, write: Write) -> None:
        child = write("child.yaml", "extends: parent.yaml\npretrain:\n  steps: 7\n  epochs: 1\n")
        with pytest.raises(RecipeError) as caught:
            load(child)
        assert "child.yaml:4" in caught.value.what
        assert "child.yaml:3" in caught.value.what

    def test_segments_and_a_stride_name_both_keys(self, parent: Path) -> None:
        with pytest.raises(RecipeError, match=r"stride 4 means nothing with sampling segments"):
            load(parent, ["data.train.sampling=segments"])
        recipe = load(parent, ["data.train.sampling=segments", "~data.train.stride"]).recipe
        assert (recipe.data.train.sampling, recipe.data.train.stride) == ("segments", 1)

    def test_removing_what_is_not_there_is_a_note(self, parent: Path) -> None:
        notes = load(parent, ["~seed", "~data.val.x.y", "~pretrain.clip_grad"]).notes
        assert notes == tuple(
            f"~{key}: the recipe has no such key"
            for key in ("seed", "data.val.x.y", "pretrain.clip_grad")
        )

    def test_removing_and_setting_replaces_the_whole(self, parent: Path) -> None:
        for words in itertools.permutations(["~pretrain.masker", "pretrain.masker.name=random"]):
            assert load(parent, words).data["pretrain"]["masker"] == {"name": "random"}

    def test_long_paths_go_into_mappings_given_beside_them(self, parent: Path) -> None:
        words = ["data.stats.std=[2, 2, 2]", "data.stats={mean: [1, 1, 1], std: [1, 1, 1]}"]
        for order in itertools.permutations(words):
            assert load(parent, order).data["data"]["stats"] == {
                "mean": [1, 1, 1],
                "std": [2, 2, 2],
            }

    def test_keys_may_be_set_below_null(self, parent: Path) -> None:
        words = ["data.val=null", "data.val.name=folder"]
        assert load(parent, words).data["data"]["val"] == {"name": "folder"}


class TestOverlays:
    TEXT = """\
extends: parent.yaml
pretrain:
  data: {size: 32, train: {name: other, root: r}}
  model: {backbone: {size: small}}
"""

    def test_they_follow_the_rules_of_a_child(self, write: Write) -> None:
        loaded = load(write("child.yaml", self.TEXT))
        assert loaded.recipe.data.size == 64
        recipe = with_overlays(loaded, "pretrain").recipe
        assert recipe.data.size == 32
        assert (recipe.data.train.name, recipe.data.train.frames) == ("other", 16)
        assert recipe.data.train.options.model_dump(mode="json") == {"root": "r"}
        assert recipe.model.backbone.options.model_dump(mode="json") == {
            "size": "small",
            "patch": 8,
        }
        assert recipe.pretrain is not None
        assert recipe.pretrain.data is None
        assert recipe.pretrain.model is None

    def test_a_wrong_key_in_one_has_its_place(self, write: Write) -> None:
        loaded = load(write("child.yaml", self.TEXT.replace("size: 32", "sise: 32")))
        with pytest.raises(RecipeError) as caught:
            _ = with_overlays(loaded, "pretrain").recipe
        assert str(caught.value).startswith(f"{loaded.path}:3: data.sise: unknown key")
        assert "size" in str(caught.value.hint)

    def test_a_verb_without_a_section_is_an_error(self, parent: Path) -> None:
        for verb, hint in {
            "pretrain": "add `pretrain:`",
            "finetune": "add `finetune: {}`",
            "probe": "'probe={}' to the command",
            "tokenizer": "add `tokenizer:`",
        }.items():
            with pytest.raises(RecipeError, match="no such section") as caught:
                _ = with_overlays(load(parent, [f"~{verb}"]), verb).recipe
            assert hint in str(caught.value.hint)

    def test_an_empty_section_is_said_to_be_empty(self, parent: Path) -> None:
        for verb in ("pretrain", "finetune"):
            with pytest.raises(RecipeError, match="the section is empty") as caught:
                _ = with_overlays(load(parent, [f"{verb}="]), verb).recipe
            assert caught.value.where == "command line"
            assert f"it has: {verb}" not in str(caught.value.hint)

    @pytest.mark.parametrize("verb", WITH_DEFAULTS)
    def test_what_is_said_of_a_missing_section_helps(self, parent: Path, verb: str) -> None:
        loaded = load(parent, [f"~{verb}", f"{verb}={{}}"])
        assert getattr(with_overlays(loaded, verb).recipe, verb) is not None


class TestFinding:
    def test_a_file_on_disk_wins_over_a_shipped_name(
        self, parent: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = next(iter(shipped()))
        monkeypatch.chdir(parent.parent)
        assert find(name) == shipped()[name]
        assert find(f"recipes/{name}.yaml") == shipped()[name]
        assert find(f"{name}.yaml") == shipped()[name]
        Path(name).mkdir()
        assert find(name) == shipped()[name]
        Path(f"{name}.yaml").write_text(parent.read_text(encoding="utf-8"), encoding="utf-8")
        assert find(f"{name}.yaml") == Path(f"{name}.yaml")

    def test_places_are_relative_below_the_working_directory(
        self, parent: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(parent.parent)
        assert str(load(parent.absolute()).marks["name",]) == "parent.yaml:1"

    def test_a_copied_child_finds_its_shipped_parent(self, write: Write) -> None:
        name = next(iter(shipped()))
        child = write("far/away.yaml", f"extends: {name}.yaml\nname: away\n")
        assert read_tree(child).at(("name",)) is not None


def test_a_dumped_recipe_loads_as_the_same_recipe(write: Write, parent: Path) -> None:
    recipe = load(parent, ["data.train.none=null", "data.train.deep={a: [1e-5, {b: on}]}"]).recipe
    again = load(write("again.yaml", dump(recipe))).recipe
    assert again == recipe
    assert again.data.train.options == recipe.data.train.options


def test_byte_order_mark_is_no_part_of_the_first_key(write: Write, parent: Path) -> None:
    marked = write("marked.yaml", "\ufeff" + parent.read_text(encoding="utf-8"))
    assert load(marked).data == load(parent).data


def test_old_spellings_are_read_with_one_note(write: Write) -> None:
    words = "target: {name: norm-pixel, space: normalised}"
    child = write("older.yaml", f"extends: quickstart\nname: centre\npretrain:\n  {words}\n")
    loaded = read(child, ["model.backbone={name: video-vit, inflate: centre}"])
    (note,) = loaded.notes
    assert "older.yaml:4: space: normalised, now normalized" in note
    assert "inflate: centre, now center" in note
    pretrain = resolve(read(child), "pretrain").pretrain
    assert pretrain is not None
    assert pretrain.target.written["space"] == "normalized"


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_give_no_note(name: str) -> None:
    assert read(name).notes == ()
