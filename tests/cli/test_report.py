"""``maekit report``, and what a training draws for it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from small_runs import PICTURES, result_of

from maekit.verbs import Pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    from maekit.engine.loop import TrainState

    Cli = Callable[..., Result]


def test_a_run_and_two_runs(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, PICTURES, "-q").code == 0
    assert cli("pretrain", small, "pretrain.masker.ratio=0.75", "-q").code == 0
    done = cli("report", "runs/small/1", "--json")
    assert done.code == 0, done.err
    page = Path("runs/small/1/report.html")
    record = json.loads(done.out)
    assert (record["verb"], record["output"]) == ("report", str(page))
    assert record["bytes"] == page.stat().st_size
    [numbers] = record["runs"]
    result = result_of("runs/small/1")
    assert numbers["state"] == "finished"
    assert numbers["loss_last"] == result["loss_last"]
    assert numbers["hidden_mse"] == result["holdout"]["hidden_mse"]
    text = page.read_text()
    assert text.count("<img ") == 3
    assert "Finished, step 12 of 12" in text
    both = cli("report", "runs/small/1", "runs/small/2")
    assert both.code == 0
    assert "runs/small/2" in both.out
    assert "report: report.html" in both.err
    page = Path("report.html")
    assert "pretrain.masker.ratio" in page.read_text().replace("<wbr>", "")
    assert {each.name for each in Path().iterdir()} == {
        "pictures", "small.yaml", "runs", "report.html",
    }  # fmt: skip


def test_a_report_of_a_crashed_run(cli: Cli, small: str) -> None:
    words = ["pretrain.optimizer.base_lr=1e38", "pretrain.max_nonfinite=3", "pretrain.steps=60"]
    assert cli("pretrain", small, *words, "--out", "run").code == 4
    assert cli("report", "run", "--out", "page.html").code == 0
    page = Path("page.html").read_text()
    assert "Crashed with exit code 4 (non-finite loss)" in page
    assert "the loss or its gradient was not finite in 3 steps in a row" in page
    assert "values are not finite" in page


def test_what_cannot_be_reported_is_refused(cli: Cli, small: str) -> None:
    Path("photos").mkdir()
    for word, message in (
        ("nowhere", "no such folder"),
        ("photos", "not a run"),
        (small, "a fold"),
    ):
        failed = cli("report", word)
        assert failed.code == 2, failed.err
        assert message in failed.err
        assert "try:" in failed.err
    assert not list(Path().rglob("*.html"))
    assert cli("pretrain", small, "pretrain.steps=1", "--out", "run", "-q").code == 0
    refused = cli("report", "run", "--out", "run/weights.safetensors")
    assert refused.code == 2
    assert "ends in .html" in refused.err
    for folder in (".", "run", "/"):
        refused = cli("report", "run", "--out", folder)
        assert refused.code == 2
        assert str(Path(folder) / "report.html") in refused.err
    assert cli("report", "run", "--out", "nowhere/page.html").code == 2
    Path("taken.html").mkdir()
    assert cli("report", "run", "--out", "taken.html").code == 7


def test_training_leaves_a_film_and_pictures_in_tensorboard(cli: Cli, small: str) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = cli("pretrain", small, PICTURES, "--out", "run", "-v")
    assert done.code == 0
    assert "time-lapse: run/pictures/timelapse.gif" in done.err
    assert result_of("run")["timelapse"] == "run/pictures/timelapse.gif"
    with Image.open("run/pictures/timelapse.gif") as film:
        assert film.n_frames == 3
    board = events.EventAccumulator("run/tensorboard").Reload()
    assert [each.step for each in board.Images("reconstructions")] == [0, 6, 12]


def test_an_interrupted_run_has_a_film_that_goes_on_after_resume(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [PICTURES, "pretrain.steps=24", "pretrain.warmup.steps=0", "--out", "run"]

    def draw_and_stop(self: Pictures, state: TrainState) -> None:
        draw(self, state)
        if state.step == 12:
            signal.raise_signal(signal.SIGTERM)

    draw = Pictures.__call__
    with monkeypatch.context() as patched:
        patched.setattr(Pictures, "__call__", draw_and_stop)
        assert cli("pretrain", small, *words, "-q").code == 75
    film = Path("run/pictures/timelapse.gif")
    assert result_of("run")["timelapse"] == str(film)
    with Image.open(film) as frames:
        assert frames.n_frames == 3
    report = json.loads(cli("report", "run", "--json").out)
    assert (report["runs"][0]["state"], report["runs"][0]["step"]) == ("interrupted", 12)
    assert cli("pretrain", small, *words, "--resume", "-q").code == 0
    with Image.open(film) as frames:
        assert frames.n_frames == 5


def test_without_pictures_there_is_no_film(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "~data.val", "pretrain.steps=2", "--out", "run", "-q").code == 0
    assert result_of("run")["timelapse"] is None
    assert cli("report", "run").code == 0
    assert "Reconstructions<" not in Path("run/report.html").read_text()
