"""Errors in plain words: the key as the recipe spells it, and what to try."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from maekit.engine.build import describe
from maekit.errors import MaekitError, RecipeError
from maekit.recipe.dump import to_yaml
from maekit.recipe.explain import validated
from maekit.recipe.load import load, read
from maekit.recipe.schema import Recipe
from maekit.recipe.yaml12 import COMMAND_LINE, Mark, Node, parse, tree
from maekit.registry import resolve


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = Field(description="pixels")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    mode: Literal["fast", "exact"] = "fast"
    either: Inner | Literal["auto"] | int | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    inner_: Inner | None = Field(None, alias="inner")

    @model_validator(mode="after")
    def _together(self) -> Outer:
        if self.mode == "exact" and self.pairs:
            raise ValueError("Pairs need mode: fast")
        return self


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"mode": "fasst"},
            "mode: expected 'fast' or 'exact', got fasst\n  try: did you mean 'fast'?",
        ),
        ({"mode": 3}, "mode: expected 'fast' or 'exact', got 3\n  try: known: fast, exact"),
        ({"inner": {"width": "x"}}, "inner.width: expected a whole number, got x\n  try: pixels"),
        ({"inner": {}}, "inner.width: missing\n  try: pixels"),
        ({"inner_": {}}, "inner_: unknown key\n  try: did you mean 'inner'?"),
        ({"inner": {"width": 1, "heigth": 1}}, "inner.heigth: unknown key\n  try: remove it"),
        ({"pairs": [[1, 2], [3]]}, "pairs[1][1]: missing"),
        ({"pairs": [[1, 2, 3]]}, "pairs[0]: expected at most 2 values, got 3"),
        # A union answers for the branch that came nearest, or names them all.
        ({"either": {"widht": 1}}, "2 problems"),
        ({"either": {"width": 1.5}}, "either.width: expected a whole number, got 1.5"),
        (
            {"either": 1.5},
            "either: expected a mapping (key: value) or 'auto' or a whole number, got 1.5",
        ),
        ({"mode": "exact", "pairs": [[1, 2]]}, "pairs need mode: fast"),
    ],
)
def test_messages(value: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validated(Outer, tree(value, COMMAND_LINE))
    assert message in str(caught.value)


def test_options_are_placed_in_the_recipe_around_them() -> None:
    recipe = parse("pretrain:\n  masker:\n    name: x\n    width: y\n", "f.yaml")
    assert recipe is not None
    with pytest.raises(RecipeError) as caught:
        validated(Recipe, recipe, lambda kind, _: Inner if kind == "maskers" else None)
    assert "f.yaml:4: pretrain.masker.width: expected a whole number" in str(caught.value)
    assert "pretrain.target: missing" in str(caught.value)  # with what the core misses


GOOD = """\
name: good
data: {train: {name: a, frames: 2}, size: [32, 48], stats: {mean: [0, 0, 0], std: [1, 1, 1]}}
model: {backbone: {name: b}, decoder: {name: c}}
pretrain:
  masker: {name: d}
  target: {name: e}
  augment: {name: random-resized-crop, scale: [0.2, 1.0]}
  steps: 3
  warmup: {steps: 1}
  batch: {global: 8}
  optimizer: {betas: [0.9, 0.95]}
expected: [{metric: loss, value: 1, band: [0, 1], source: us}]
"""
GOOD_TREE = parse(GOOD, "f.yaml")
assert GOOD_TREE is not None
PATHS = [path for path, _ in GOOD_TREE.walk() if path]


def replaced(node: Node, path: tuple[str | int, ...], value: Node) -> Node:
    if not path:
        return value
    entries = dict(node.fields) if node.fields else dict(enumerate(node.value))  # type: ignore[arg-type]
    entries[path[0]] = replaced(entries[path[0]], path[1:], value)
    return Node(entries if node.fields else list(entries.values()), node.mark)


@settings(max_examples=300)
@given(
    st.sampled_from(PATHS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text("abé'{}:% ", max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "x", "train", "steps"]), inner, max_size=3)
        ),
        max_leaves=5,
    ),
)
def test_any_value_anywhere_is_taken_or_refused_with_its_place(
    path: tuple[str | int, ...], value: object
) -> None:
    changed = parse(to_yaml(value), "other.yaml")
    assert GOOD_TREE is not None
    node = Node(None, Mark("other.yaml", 1)) if changed is None else changed
    refused: RecipeError | None = None
    try:
        validated(Recipe, replaced(GOOD_TREE, path, node))
    except RecipeError as error:
        refused = error
    if refused is not None:
        # At the new value, or at the section that it no longer fits.
        assert "other.yaml:" in str(refused) or "f.yaml:" in str(refused)
        assert refused.hint


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("finetune.lr", "finetune.optimizer.base_lr"),
        ("pretrain.learning_rate", "pretrain.optimizer.base_lr"),
        ("finetune.batch_size", "finetune.batch.global"),
        ("pretrain.min_lr", "pretrain.optimizer.min_lr"),
        ("tokenizer.beta", None),
        ("pretrain.label_smoothing", "finetune.label_smoothing"),  # only another verb has it
    ],
)
def test_a_key_is_looked_for_in_its_own_section_first(key: str, meant: str | None) -> None:
    section, name = key.split(".")
    recipe = parse(f"name: x\n{section}: {{{name}: 1}}\n", "f.yaml")
    assert recipe is not None
    with pytest.raises(RecipeError) as caught:
        validated(Recipe, recipe)
    said = next(line for line in str(caught.value).splitlines() if f"{key}: unknown" in line)
    assert (f"did you mean '{meant}'?" in said) == (meant is not None)


BARE = "name: x\ndata: {train: {name: images}}\n"


def test_options_of_defaults_can_be_changed_alone() -> None:
    """What is written is laid over the default, where that is more than its class's own."""
    text = (
        "name: x\ndata: {train: {name: images}}\nmodel: {backbone: {name: image-vit}}\n"
        "finetune: {augment: {flip: 0}, batch: {per_device: 4}}\n"
        "probe: {augment: {scale: [0.5, 1]}, batch: {accumulation: 2}, warmup: {endpoint: true}}\n"
    )
    node = parse(text, "f.yaml")
    assert node is not None
    recipe = validated(Recipe, node)
    assert recipe.finetune is not None
    assert recipe.probe is not None
    crop = recipe.finetune.augment
    assert (crop.name, crop.flip, crop.scale) == ("random-resized-crop", 0, (0.08, 1.0))
    assert (recipe.finetune.batch.global_, recipe.finetune.batch.per_device) == ("auto", 4)
    assert (recipe.probe.augment.name, recipe.probe.augment.scale) == ("single-try-crop", (0.5, 1))
    assert (recipe.probe.batch.global_, recipe.probe.batch.accumulation) == (16384, 2)
    assert (recipe.probe.warmup.epochs, recipe.probe.warmup.endpoint) == (10, True)


def test_an_alternative_takes_the_place_of_a_default() -> None:
    node = parse(f"{BARE}probe: {{warmup: {{steps: 3}}, augment: {{name: none}}}}", "f.yaml")
    assert node is not None
    probe = validated(Recipe, node).probe
    assert probe is not None
    assert (probe.warmup.epochs, probe.warmup.steps) == (None, 3)
    assert probe.augment.name == "none"


def test_a_mistake_in_a_default_part_is_placed() -> None:
    node = parse(f"{BARE}finetune:\n  augment: {{flipp: 0}}\n", "f.yaml")
    assert node is not None
    wrong = r"f.yaml:4: finetune.augment.flipp: unknown key\n.*'flip'"
    with pytest.raises(RecipeError, match=wrong):
        validated(Recipe, node)


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("data.train", "my/photos", "data.train.path=my/photos"),
        ("data.train", "my photos/a", "'data.train.path=my photos/a'"),
        ("data.val", "images", "data.val.name=images"),
        ("model.backbone", "image-vit", "model.backbone.name=image-vit"),
        ("pretrain.masker", "tube", "pretrain.masker.name=tube"),
    ],
)
def test_a_word_in_place_of_a_part_is_answered_in_the_way_it_was_given(
    key: str, value: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        _ = read("quickstart", [f"{key}={value}"]).recipe
    assert f"{key}: expected a mapping" in str(caught.value)
    assert str(caught.value).endswith(f"try: {hint}")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.backbone.heads=5", "divide into 5 heads"),
        ("data.stats={mean: [0.5], std: [0.1]}", "stats has 1 channels"),
        ("pretrain.masker.ratio=1.5", "ratio"),
    ],
)
def test_what_the_command_line_set_is_not_blamed_on_the_file_alone(word: str, said: str) -> None:
    with pytest.raises(MaekitError) as caught:
        describe(resolve(load("quickstart", [word]), "pretrain"))
    assert said in str(caught.value)
    assert "command line" in str(caught.value.where)
    with pytest.raises(MaekitError) as caught:
        describe(resolve(load("quickstart", ["model.backbone={name: image-vit, size: none}"])))
    assert "command line" in str(caught.value.where)
