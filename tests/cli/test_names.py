"""Files, classes and folders whose names are not UTF-8, or would steer a terminal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maekit import demo
from maekit.recipe.load import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

BYTES = os.fsdecode(b"\xe9t\xe9")


@pytest.fixture
def sets(two: str, tmp_path: Path) -> list[str]:
    """Rename what the recipe reads; return the words that read it again."""
    (tmp_path / "pictures").rename(tmp_path / BYTES)
    for part in ("train", "val"):
        folder = tmp_path / BYTES / part
        (folder / "l").rename(folder / BYTES)
        for file in list(folder.rglob("*.png"))[::2]:
            file.rename(file.with_name(f"{file.stem}-{BYTES}.png"))
    shutil.copy(two, f"{BYTES}.yaml")
    return [f"data.{part}.path={BYTES}/{part}" for part in ("train", "val")]


def test_names_that_are_not_utf8_work_in_every_verb(
    cli: Callable[..., Result], sets: list[str]
) -> None:
    recipe, run = f"{BYTES}.yaml", f"run-{BYTES}"
    short = ["pretrain.steps=2", "pretrain.warmup.steps=0", "finetune.steps=2"]
    short += ["finetune.warmup.steps=0"]
    words = [recipe, *sets, *short]
    found = cli("pretrain", *words, "--out", run)
    assert found.code == 0, found.err
    train = load(Path(run, "recipe.yaml")).data["data"]["train"]
    assert train["path"] == str(Path.cwd() / BYTES / "train")
    tuned = cli("finetune", *words, "--from", run, "--out", f"{run}-f", "--json")
    assert tuned.code == 0, tuned.err
    assert r"\xe9t\xe9" in json.loads(tuned.out)["per_class"]
    judged = cli("probe", *words, "--kind", "knn", "--from", run, "--out", f"{run}-p")
    assert judged.code == 0, judged.err
    for kind in ("npz", "safetensors"):
        made = cli("embed", BYTES, "--from", f"{run}-f", "--out", f"{BYTES}.{kind}")
        assert made.code == 0, made.err
    assert cli("weights", "inspect", f"{run}-f").code == 0
    assert cli("report", run, f"{run}-f", "--out", f"{BYTES}.html").code == 0
    assert cli("pretrain", *words, "--out", run, "--resume").code == 0


NAME = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\n.png"


@pytest.mark.parametrize("verb", ["embed", "reconstruct", "weights inspect", "--from"])
def test_names_do_not_steer_the_terminal(
    verb: str, cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(b"no picture")
    words = ["embed", NAME, "--from", NAME] if verb == "--from" else [*verb.split(), NAME]
    found = cli(*words)
    assert found.code != 0
    assert r"\x1b]0;OWNED\x07" in found.err
    assert not set("\x1b\x07\x9b") & set(found.err + found.out)


def test_places_that_cannot_be_written_are_storage(cli: Callable[..., Result], small: str) -> None:
    for words in (
        ("recipes", "copy", "quickstart", "/proc/x.yaml"),
        ("recipes", "schema", "--out", "/proc/x.json"),
        ("weights", "convert", str(demo.WEIGHTS), "/proc/x.safetensors", "--to", "maekit"),
    ):
        found = cli(*words)
        assert (found.code, "cannot be written" in found.err) == (7, True), (small, found)
    assert cli("recipes", "schema", "--out", "no/folder/x.json").code == 2
