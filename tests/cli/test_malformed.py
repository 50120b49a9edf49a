"""Whatever is wrong with a recipe or a command line: exit 2, the place, the key, a hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Result

BASE = """\
name: base
data:
  train: {name: sample-images}
  size: 32
model:
  backbone: {name: image-vit, size: tiny, patch: 8}
  decoder: {name: vit, width: 64, depth: 1, heads: 2}
pretrain:
  masker: {name: random, ratio: 0.75}
  target: {name: pixel}
  steps: 3
"""
MODEL = BASE[BASE.index("model:") : BASE.index("pretrain:")]
TOKENIZER = "tokenizer:\n  steps: 3\n"


def bomb() -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    return BASE + "\n".join(lines)


def changed(old: str, new: str) -> str:
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


# The file, the place in it, and what the message says.
FILES: dict[str, tuple[str | bytes, str, str]] = {
    "typo in a key": (changed("steps: 3", "stpes: 3"), ":11", "did you mean 'steps'?"),
    "typo in a section": (changed("pretrain:", "pretrian:"), ":8", "did you mean 'pretrain'?"),
    "key in the wrong section": (BASE + "epochs: 3", ":12", "did you mean 'pretrain.epochs'?"),
    "unknown part option": (changed("ratio: 0.75", "ration: 0.75"), ":9", "did you mean 'ratio'?"),
    "unknown masker": (changed("name: random", "name: randon"), ":9", "did you mean 'random'?"),
    "part of another kind": (changed("name: pixel", "name: vit"), ":10", "'vit' is a decoder"),
    "unknown distribution": (changed("name: pixel", "name: x/pixel"), ":10", "'pixel' is of x"),
    "part without a name": (changed("name: pixel", "loss: l1"), ":10", "pretrain.target.name"),
    "part as a word": (changed("{name: pixel}", "pixel"), ":10", "target: {name: pixel}"),
    "part option out of range": (changed("0.75", "1.75"), ":9", "ratio: expected less than"),
    "part option of the wrong type": (changed("0.75", "[0.75]"), ":9", "expected a number"),
    "part option not finite": (changed("0.75", ".nan"), ":9", "expected a finite number"),
    "two budgets": (BASE + "  epochs: 2\n", ":12", "exclude each other"),
    "no budget": (changed("  steps: 3\n", ""), ":8", "one of epochs, steps, samples"),
    "negative": (changed("steps: 3", "steps: -3"), ":11", "at least 1, got -3"),
    "fraction of a step": (changed("steps: 3", "steps: 1.5"), ":11", "a whole number, got 1.5"),
    "number in quotes": (changed("steps: 3", "steps: '3'"), ":11", "a whole number, got '3'"),
    "switch for a number": (changed("steps: 3", "steps: true"), ":11", "a whole number"),
    "word for a switch": (BASE + "  compile: on\n", ":12", "true or false"),
    "infinite": (changed("steps: 3", "epochs: .inf"), ":11", "a finite number, got .inf"),
    "list too short": (changed("size: 32", "size: [224]"), ":4", "data.size[1]: missing"),
    "list too long": (changed("size: 32", "size: [1, 2, 3]"), ":4", "at most 2 values, got 3"),
    "size of zero": (changed("size: 32", "size: 0"), ":4", "at least 1"),
    "wrong word": (changed("size: 32", "stats: imagnet"), ":4", "did you mean 'imagenet'?"),
    "stats without std": (changed("size: 32", "stats: {mean: [1]}"), ":4", "data.stats.std"),
    "unknown augmentation": (BASE + "  augment: {name: rrc}\n", ":12", "random-resized-crop"),
    "betas of two": (BASE + "  optimizer: {betas: [0.9, 2]}\n", ":12", "betas[1]"),
    "two warm-ups": (BASE + "  warmup: {epochs: 1, steps: 1}\n", ":12", "pretrain.warmup.steps"),
    "section as a number": (changed("steps: 3", "batch: 3"), ":11", "expected a mapping"),
    "section left empty": (BASE + "  batch:\n", ":12", "expected a mapping"),
    "name with a slash": (changed("name: base", "name: a/b"), ":1", "name: a/b"),
    "missing section": (BASE.partition("data:")[0], ":1", "data: missing"),
    "no model to train": (changed(MODEL, ""), ":1", "model: missing; pretrain needs"),
    "a model for the tokenizer": (BASE + TOKENIZER + "  model: {}\n", ":14", "tokenizer.model"),
    "width of the dVAE": (BASE + TOKENIZER + "  dvae: {width: 6}\n", ":14", "dvae.width"),
    "several at once": (changed("size: 32", "sise: 32\n  bad: 1"), ":5", "2 problems"),
    "duplicate key": (BASE + "seed: 1\nseed: 2\n", ":13", "first at"),
    "alias bomb": (bomb(), "", "fewer aliases"),
    "recursive alias": (BASE + "expected: &a [*a]\n", ":12", "inside the value"),
    "undefined alias": (BASE + "seed: *one\n", ":12", "undefined alias"),
    "merge key": (BASE + "<<: {seed: 1}\n", ":12", "merge keys"),
    "tag": (BASE + "seed: !!python/name:os.system ''\n", ":12", "tag"),
    "tab": (changed("  size: 32", "\tsize: 32"), ":4", "spaces, not tabs"),
    "open bracket": (changed("size: 32", "size: [32"), "", "not YAML"),
    "two documents": (BASE + "---\nname: b\n", ":12", "one document"),
    "number as a key": (BASE + "3: x\n", ":12", "a key must be text"),
    "deep nesting": (BASE + "seed: " + "[" * 10_000, ":12", "levels deep"),
    "prose": ("It was a dark and stormy night.\n", ":1", "a recipe is a mapping"),
    "list at the top": ("- name: base\n", ":1", "this is a list"),
    "empty": ("", ":1", "the file is empty"),
    "only comments": ("# nothing\n", ":1", "the file is empty"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "", "binary file"),
    "latin-1": ("name: b\n# \xe9t\xe9\n".encode("latin-1"), ":2", "not UTF-8"),
    "utf-16": (BASE.encode("utf-16"), "", "binary file"),
    "control character": (BASE + "seed: \x1b\n", ":12", "U+001B"),
    "too large": (b"# " + b"x" * (1 << 20), "", "larger than 1 MiB"),
    "parent of its own": ("extends: recipe.yaml\n", ":1", "circle"),
    "parent missing": ("name: x\nextends: recipi.yaml\n", ":2", "did you mean 'recipe.yaml'?"),
    "two parents": ("extends: [a.yaml, b.yaml]\n", ":1", "one parent"),
}

# The overrides, the key and what the message says.
LINES: dict[str, tuple[list[str], str, str]] = {
    "no equals": (["pretrain.steps"], "pretrain.steps", "KEY=VALUE"),
    "no key": (["=3"], "'=3'", "the key is empty"),
    "empty part of a key": (["data..size=3"], "data..size", "between dots"),
    "removal with a value": (["~data.size=3"], "~data.size=3", "~KEY"),
    "typo": (["pretrain.step=3"], "pretrain.step", "did you mean 'steps'?"),
    "unknown section": (["pretran.steps=3"], "pretran", "did you mean 'pretrain'?"),
    "inside a number": (["data.size.height=3"], "data.size.height", "not a mapping"),
    "inside a list": (
        ["pretrain.steps=[1]", "pretrain.steps.0=2"],
        "pretrain.steps",
        "whole value",
    ),
    "bad YAML": (["data.size=[1, 2"], "data.size=[1, 2", "not YAML"),
    "alias": (["data.train.name=*x"], "data.train.name=*x", "undefined alias"),
    "duplicate key in a value": (["data.stats={mean: [1], mean: [2]}"], "mean", "duplicate key"),
    "set twice": (["seed=1", "seed=2"], "seed", "set twice"),
    "two budgets": (["pretrain.epochs=1", "pretrain.samples=2"], "pretrain.samples", "exclude"),
    "two checkpoint rules": (["pretrain.checkpoint={steps: 1, minutes: 1}"], "minutes", "exclude"),
    "wrong type": (["pretrain.steps=many"], "pretrain.steps", "a whole number, got many"),
    "overflow": (["pretrain.optimizer.base_lr=1e999"], "base_lr", "finite"),
    "long number": (["seed=" + "9" * 30], "seed", "less than"),
    "longer number": (["seed=" + "9" * 5000], "seed", "not a valid int"),
    "not text": (['name="\\ud800"'], "name", "not a valid str"),
    "required part removed": (["pretrain.masker=null"], "pretrain.masker", "expected a mapping"),
    "unknown part": (["data.train.name=image"], "data.train.name", "did you mean 'images'?"),
    "new part without its option": (["data.train.name=images"], "data.train.path", "missing"),
    "old part's option": (["pretrain.masker={name: grid, ratio: 0.5}"], "masker.ratio", "unknown"),
    "parent on the command line": (["extends=a.yaml"], "extends", "in the file"),
    "python name of a key": (["pretrain.validate_={}"], "pretrain.validate_", "'validate'"),
}


def check(result: Result, *words: str) -> None:
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "try: " in result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


@pytest.mark.parametrize("case", FILES)
def test_file(case: str, cli: Callable[..., Result], tmp_path: Path) -> None:
    content, line, words = FILES[case]
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(cli("recipes", "show", str(path), "--resolved"), f"{path}{line}", words)


@pytest.mark.parametrize("case", LINES)
def test_command_line(case: str, cli: Callable[..., Result], tmp_path: Path) -> None:
    overrides, key, words = LINES[case]
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE, encoding="utf-8")
    check(cli("recipes", "show", str(path), *overrides, "--resolved"), "command line", key, words)


def test_the_base_is_well_formed(cli: Callable[..., Result], tmp_path: Path) -> None:
    # Or every case above would fail for a reason of its own.
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE, encoding="utf-8")
    assert cli("recipes", "show", str(path), "--resolved").code == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["missing.yaml"], "maekit recipes list"),
        (["quikstart"], "did you mean 'quickstart'?"),
        (["recipi.yaml"], "did you mean 'recipe.yaml'?"),
        (["folder"], ".yaml file"),
        (["run"], "run/recipe.yaml"),
        (["pipe"], ".yaml file"),
        (["recipe.yaml", "other.yaml"], "KEY=VALUE"),
    ],
)
def test_source(
    words: list[str],
    hint: str,
    cli: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    (tmp_path / "recipe.yaml").write_text(BASE, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(BASE, encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    check(cli("recipes", "show", *words), words[-1], hint)


@pytest.mark.parametrize(
    "words",
    [
        ["recipes", "show"],
        ["recipes", "show", "quickstart", "--resolve"],
        ["recipes", "shw", "quickstart"],
        ["recipes", "validate"],
        ["pretrain"],
        ["pretrain", "quickstart", "--seed", "x"],
        ["pretrain", "quickstart", "--epochs", "3"],
        ["pretain", "quickstart"],
        ["plugins", "list", "--kind"],
    ],
)
def test_usage(words: list[str], cli: Callable[..., Result]) -> None:
    result = cli(*words)
    assert result.code == 2
    assert "Error" in result.err
    assert "Traceback" not in result.err
