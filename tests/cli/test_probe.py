"""``maekit probe``: numbers beside their floor, what is refused, what is left in the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numerics import close, vit_terms
from small_runs import result_of

from maekit.engine.run_folder import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

KINDS = ("linear", "knn", "attentive")


def probed(cli: Cli, *words: str) -> dict[str, Any]:
    result = cli("probe", *words, "--from", "scratch", "--json", "-q")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_result_has_accuracies_and_their_floor(cli: Cli, labeled: str, kind: str) -> None:
    result = probed(cli, labeled, "--kind", kind, "--out", "out")
    assert result == result_of("out")
    assert (result["verb"], result["exit"], result["recipe"]) == ("probe", 0, "labeled")
    assert result["protocol"].startswith(kind)
    assert 0 <= result["top1"] <= result["top5"] == 1  # of three classes
    assert result["per_class"].keys() == {"blue", "green", "red"}
    assert np.mean(list(result["per_class"].values())) == pytest.approx(result["top1"])
    assert result["floor"].keys() == {"random", "pixels"}
    # Without training, the model is its own random floor.
    assert result["floor"]["random"] == result["top1"]
    assert 0 <= result["floor"]["pixels"] <= 1
    assert result["chance"] == pytest.approx(1 / 3)
    assert (result["train_samples"], result["val_samples"], result["classes"]) == (36, 12, 3)
    lines = list(read_lines(Path("out/predictions.jsonl")))
    assert [line["row"] for line in lines] == list(range(12))
    assert [line["label"] for line in lines] == [0] * 4 + [1] * 4 + [2] * 4
    assert lines[0]["id"].endswith("pictures/val/blue/00.png")
    right = [int(np.argmax(line["scores"]) == line["label"]) for line in lines]
    assert np.mean(right) == pytest.approx(result["top1"])
    assert {path.name for path in Path("out").iterdir()} >= {"recipe.yaml", "env.json", "log.txt"}


@pytest.mark.parametrize("kind", KINDS)
def test_two_probes_are_equal(cli: Cli, labeled: str, kind: str) -> None:
    for out in ("one", "two"):
        probed(cli, labeled, "--kind", kind, "--out", out)
    one, two = (Path(out, "predictions.jsonl").read_bytes() for out in ("one", "two"))
    assert one == two


def test_views_are_reported_beside_a_single_one(cli: Cli, labeled: str) -> None:
    views = "probe.views={clips: 1, crops: 3, enlarge: 1.5}"
    result = probed(cli, labeled, views, "--out", "three")
    assert result["settings"]["views"] == "1x3"
    assert 0 <= result["single_view"]["top1"] <= 1
    one = probed(cli, labeled, "probe.views.enlarge=1.5", "--out", "one")
    assert one["single_view"] == {key: one[key] for key in ("top1", "top5")}


def test_the_table_names_the_floor(cli: Cli, labeled: str) -> None:
    result = cli("probe", labeled, "--kind", "knn", "--from", "scratch", "--compare-expected")
    assert result.code == 0
    for words in ("knn", "floor: random initialization", "floor: raw pixels", "chance"):
        assert words in result.out
    assert "3 classes, 36 samples to train on (12 a class), 12 to judge (4 a class)" in result.err
    assert result.err.count(": blue\n") == 2  # of five examples, evenly spaced
    assert "inside" in result.out
    assert "OUTSIDE" in result.out
    assert "finetune.top1" not in result.out


def test_what_is_expected_never_changes_the_exit_code(cli: Cli, labeled: str) -> None:
    result = probed(cli, labeled, "--kind", "knn", "--compare-expected")
    inside = {each["metric"]: each["inside"] for each in result["expected"]}
    assert inside == {"probe.top1": True, "probe.floor.random": False}
    assert "expected" not in probed(cli, labeled, "--kind", "knn")


def test_the_newest_finished_pretraining_is_judged(cli: Cli, labeled: str) -> None:
    refused = cli("probe", labeled)
    assert refused.code == 2
    assert "no finished pre-training run of labeled" in refused.err
    assert "--from scratch" in refused.err
    assert cli("pretrain", labeled, "-q").code == 0
    assert cli("pretrain", labeled, "-q", "pretrain.steps=2", "--seed", "3").code == 0
    again = cli("probe", labeled, "--kind", "knn", "--json")
    assert "runs/labeled/2, the newest finished pre-training" in again.err
    result = json.loads(again.out)
    assert result["weights"] == "runs/labeled/2"
    other = cli("probe", labeled, "--kind", "knn", "--json", "--from", "runs/labeled/1")
    assert json.loads(other.out)["weights"] == "runs/labeled/1"
    # The folder of the first probe is no pre-training: it is not taken for one.
    assert Path("runs/labeled/3/predictions.jsonl").is_file()


def test_weights_of_another_model_are_refused_with_both_values(cli: Cli, labeled: str) -> None:
    assert cli("pretrain", labeled, "-q").code == 0
    refused = cli("probe", labeled, "model.backbone.depth=3")
    assert refused.code == 3
    assert "backbone.depth: 2 in the weights, 3 requested" in refused.err
    other = cli("probe", labeled, "data.size=[24, 24]", "--kind", "knn", "-q")
    assert other.code == 0  # size is of load time


def test_refused_before_anything_is_computed(cli: Cli, labeled: str) -> None:
    scratch = ("--from", "scratch")
    assert cli("probe", labeled, "~data.val", *scratch).code == 2
    assert cli("probe", labeled, "~probe", *scratch).code == 2
    assert cli("probe", labeled, "--kind", "knn", "~probe", *scratch).code in (0, 2)
    alone = cli("probe", labeled, "data.train.path=pictures/train/red", *scratch)
    assert alone.code == 6
    assert "no labels" in alone.err
    single = cli(
        "probe",
        labeled,
        "data.train.path=pictures/train/red",
        "data.train.labels=none",
        *scratch,
    )
    assert single.code == 6
    Path("pictures/val/violet").mkdir()
    Path("pictures/val/red/00.png").rename("pictures/val/violet/00.png")
    strange = cli("probe", labeled, *scratch)
    assert strange.code == 6
    assert "data.train does not have: violet" in strange.err


def test_one_class_is_refused(cli: Cli, labeled: str) -> None:
    Path("one.csv").write_text("path,label\npictures/train/red/00.png,red\n")
    refused = cli("probe", labeled, "data.train.path=one.csv", "--from", "scratch")
    assert refused.code == 6
    assert "all 1 samples are of one class: red" in refused.err


def test_a_bad_file_of_val_is_fatal_and_of_train_is_left_out(cli: Cli, labeled: str) -> None:
    Path("pictures/train/red/03.png").write_bytes(b"bad")
    result = probed(cli, labeled, "--kind", "knn", "--out", "out")
    assert (result["train_samples"], result["bad_files"]) == (35, 1)
    assert next(read_lines(Path("out/bad_files.jsonl")))["file"].endswith("red/03.png")
    Path("pictures/val/red/02.png").write_bytes(b"bad")
    fatal = cli("probe", labeled, "--kind", "knn", "--from", "scratch", "--out", "fatal")
    assert fatal.code == 6
    assert "pictures/val/red/02.png: cannot be read" in fatal.err
    assert result_of("fatal")["exit"] == 6


def test_chance_is_warned_of(cli: Cli, labeled: str) -> None:
    rows = [
        f"pictures/val/{name}/0{n}.png,{'abc'[n % 3]}" for name in ("red", "blue") for n in range(4)
    ]
    Path("val.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    rows = [f"pictures/train/red/{n:02d}.png,{'abc'[n % 3]}" for n in range(12)]
    Path("train.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    sets = ("data.train.path=train.csv", "data.val.path=val.csv")
    result = cli("probe", labeled, *sets, "--kind", "knn", "--from", "scratch")
    assert result.code == 0
    assert "no better than chance" in result.err


def test_a_dry_run_writes_nothing(cli: Cli, labeled: str) -> None:
    before = sorted(Path().rglob("*"))
    result = cli("probe", labeled, "--from", "scratch", "--dry-run", "--json", "-q")
    assert result.code == 0
    costs = json.loads(result.out)
    assert costs["views"] == 48
    assert costs["protocol"] == "linear/cached"
    assert sorted(Path().rglob("*")) == before


def test_folders_that_hold_something_are_kept(cli: Cli, labeled: str) -> None:
    probed(cli, labeled, "--kind", "knn", "--out", "out")
    refused = cli("probe", labeled, "--kind", "knn", "--out", "out", "--from", "scratch")
    assert refused.code == 2
    probed(cli, labeled, "--kind", "knn", "--out", "out", "--overwrite")
    assert Path("out.overwritten").is_dir()


@pytest.mark.usefixtures("embed_here")
def test_somebody_elses_weights_are_judged_alike(cli: Cli, labeled: str) -> None:
    """transformers' folder of the same encoder gives the same scores and features."""
    square = "data.size=16"  # transformers' ViTMAE knows no other pictures
    assert cli("pretrain", labeled, square, "-q", "--out", "pre").code == 0
    assert cli("weights", "convert", "pre", "theirs", "--to", "hf").code == 0
    for source, out in (("pre", "ours"), ("hf:theirs", "theirs-judged")):
        words = (labeled, square, "--kind", "knn", "--from", source, "-q")
        assert cli("probe", *words, "--out", out).code == 0
        embedded = cli("embed", "pictures/val", "--from", source, "--out", f"{out}.npz", "-q")
        assert embedded.code == 0, embedded.err
    one, other = (Path(out, "predictions.jsonl").read_bytes() for out in ("ours", "theirs-judged"))
    assert one == other
    with np.load("ours.npz") as ours, np.load("theirs-judged.npz") as theirs:
        close(ours["features"], theirs["features"], terms=vit_terms(192, 32, 2, 5))
