"""The online probe: a curve, the best checkpoint by it, and off where nothing is labeled."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from small_runs import result_of, same_weights

import maekit
from maekit.engine.run_folder import read_lines
from maekit.evaluate import online_probe
from maekit.evaluate.probe_heads import Ridge

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

ASKED = "pretrain.online_probe={every: 2, samples: 30, k: 3}"


def curve(run: str) -> dict[int, dict[str, Any]]:
    lines = read_lines(Path(run) / "metrics.jsonl")
    return {line["step"]: line["probe"] for line in lines if "probe" in line}


def test_the_curve_and_the_best_checkpoint(cli: Cli, labeled: str) -> None:
    assert cli("pretrain", labeled, ASKED, "--out", "run", "-q").code == 0
    found = curve("run")
    assert sorted(found) == [0, 2, 4, 6]
    assert all(0 <= each["top1"] <= 1 for each in found.values())
    assert [each["chance"] for each in found.values()] == pytest.approx([1 / 3] * 4)
    result = result_of("run")
    assert result["probe"] == pytest.approx(found[6])
    highest = max(found[step]["top1"] for step in (2, 4, 6))
    assert result["best"]["top1"] == pytest.approx(highest)
    step = result["best"]["step"]
    assert found[step]["top1"] == pytest.approx(highest)
    assert step == min(each for each in (2, 4, 6) if found[each]["top1"] == found[step]["top1"])
    assert Path("run/checkpoints/best").read_text().strip() == f"step-{step:08d}"
    assert Path(f"run/checkpoints/step-{step:08d}/model.safetensors").is_file()


@pytest.mark.usefixtures("embed_here")
def test_it_is_worked_out_from_the_weights(cli: Cli, labeled: str) -> None:
    """Ridge on the mean tokens of the center crops, by scikit-learn."""
    from sklearn.linear_model import Ridge as TheirRidge

    words = "pretrain.online_probe={every: 6, samples: 36, kind: ridge, ridge: 0.5}"
    assert cli("pretrain", labeled, words, "--out", "run", "-q").code == 0
    for split in ("train", "val"):
        out = ("--pool", "mean", "--out", f"{split}.npz")
        assert cli("embed", f"pictures/{split}", "--from", "run", *out, "-q").code == 0
    sets = {}
    for split in ("train", "val"):
        with np.load(f"{split}.npz") as file:
            labels = np.array([Path(each).parent.name for each in file["ids"]])
            sets[split] = (
                file["features"].astype(np.float64),
                np.unique(labels, return_inverse=True)[1],
            )
    (features, labels), (queries, truth) = sets["train"], sets["val"]
    mean, deviation = features.mean(0), features.std(0)
    theirs = TheirRidge(alpha=0.5 * len(features))
    theirs.fit((features - mean) / deviation, np.eye(3)[labels])
    guesses = theirs.predict((queries - mean) / deviation).argmax(1)
    assert curve("run")[6]["top1"] == pytest.approx((guesses == truth).mean())


def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge as TheirRidge

    rng = np.random.default_rng(0)
    features, labels = rng.normal(3, [1, 5, 0.1], (40, 3)), rng.integers(0, 4, 40)
    queries = rng.normal(3, 1, (9, 3))
    ours = Ridge(torch.from_numpy(features), torch.from_numpy(labels), 4, 0.2)
    theirs = TheirRidge(alpha=0.2 * 40)
    mean, deviation = features.mean(0), features.std(0)
    theirs.fit((features - mean) / deviation, np.eye(4)[labels])
    expected = theirs.predict((queries - mean) / deviation)
    np.testing.assert_allclose(ours.scores(torch.from_numpy(queries)).numpy(), expected, atol=1e-10)


def test_it_changes_nothing_of_the_training(cli: Cli, labeled: str) -> None:
    assert cli("pretrain", labeled, "--out", "without", "-q").code == 0
    assert cli("pretrain", labeled, ASKED, "--out", "with", "-q").code == 0
    assert same_weights("without", "with")
    assert "probe" not in result_of("without")


def test_many_clips_are_read_anew_each_time(
    cli: Cli, labeled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("pretrain", labeled, ASKED, "--out", "kept", "-q").code == 0
    monkeypatch.setattr(online_probe, "KEPT_BYTES", 0)
    assert cli("pretrain", labeled, ASKED, "--out", "read", "-q").code == 0
    assert curve("kept") == curve("read")


def test_samples_that_cannot_be_read_are_left_out_and_said_once(cli: Cli, labeled: str) -> None:
    Path("pictures/val/red/01.png").write_bytes(b"bad")
    words = ("pretrain.validate.samples=1", "pretrain.pictures.samples=1", "--out", "run")
    made = cli("pretrain", labeled, ASKED, *words)
    assert made.code == 0, made.err
    assert made.err.count("the online probe leaves out 1 of 12 samples") == 1
    assert made.err.count("red/01.png") == 1
    assert curve("run")[2]["chance"] == pytest.approx(4 / 11)


def test_an_interrupted_run_has_the_same_curve_and_best(cli: Cli, labeled: str) -> None:
    words = ("pretrain", labeled, "pretrain.online_probe={every: 2, samples: 30, k: 3}", "-q")
    assert cli(*words, "--out", "whole").code == 0
    measure, calls = online_probe.OnlineProbe.measure, []

    def interrupting(self: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:  # at step 4
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_probe.OnlineProbe, "measure", interrupting)
        assert cli(*words, "--out", "cut").code == 75
    assert cli(*words, "--out", "cut", "--resume").code == 0
    assert curve("cut") == curve("whole")
    best = [Path(run, "checkpoints/best").read_text() for run in ("whole", "cut")]
    assert best[0] == best[1]
    assert result_of("cut")["best"] == result_of("whole")["best"]
    assert same_weights("cut", "whole")


def test_without_labels_it_is_off_and_said(cli: Cli, labeled: str) -> None:
    unlabeled = cli("pretrain", labeled, ASKED, "data.train.labels=none", "--out", "a")
    assert unlabeled.code == 0
    assert "no online probe: data.train.path: the set has no labels" in unlabeled.err
    assert curve("a") == {}
    without = cli("pretrain", labeled, ASKED, "~data.val", "--out", "b")
    assert without.code == 0
    assert "no data.val: no online probe" in without.err


def test_the_best_checkpoint_outlives_the_others(
    cli: Cli, labeled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept though the recipe keeps one."""
    tops = iter([0.1, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(
        online_probe.OnlineProbe, "measure", lambda self: {"top1": next(tops), "chance": 0.3}
    )
    words = "pretrain.online_probe={every: 1}"
    assert cli("pretrain", labeled, words, "--out", "run", "-q").code == 0
    assert result_of("run")["best"]["step"] == 1
    kept = sorted(path.name for path in Path("run/checkpoints").glob("step-*"))
    assert kept == ["step-00000001", "step-00000006"]
    assert maekit.load("run/checkpoints/step-00000001/model.safetensors") is not None
