"""The quickstarts as a new user runs them: in a process and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_process import run

FEW = "pretrain.steps=250"


@pytest.mark.slow
def test_a_quarter_of_quickstart_beats_both_fills(tmp_path: Path) -> None:
    holdout = run(tmp_path, "pretrain", "quickstart", FEW, threads=1)["holdout"]
    assert holdout["hidden_mse"] < 0.6 * holdout["mean_fill_mse"]
    assert holdout["hidden_mse"] < holdout["interpolated_fill_mse"]


@pytest.mark.slow
def test_a_quarter_of_quickstart_video_beats_mean_colors(tmp_path: Path) -> None:
    holdout = run(tmp_path, "pretrain", "quickstart_video", FEW, threads=1)["holdout"]
    assert holdout["hidden_mse"] < 0.9 * holdout["mean_fill_mse"]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_quickstart_beats_both_fills_clearly(tmp_path: Path) -> None:
    holdout = run(tmp_path, "pretrain", "quickstart")["holdout"]
    assert holdout["hidden_mse"] < 0.5 * holdout["mean_fill_mse"]
    assert holdout["hidden_mse"] < 0.8 * holdout["interpolated_fill_mse"]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_quickstart_video_beats_both_fills(tmp_path: Path) -> None:
    holdout = run(tmp_path, "pretrain", "quickstart_video")["holdout"]
    assert holdout["hidden_mse"] < holdout["mean_fill_mse"]
    assert holdout["hidden_mse"] < holdout["interpolated_fill_mse"]
