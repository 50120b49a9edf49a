"""The recipe's ``log``, as it is typed."""

from __future__ import annotations

import csv
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from small_runs import losses, result_of

if TYPE_CHECKING:
    from small_runs import Cli


def test_a_logger_that_fails_ends_no_run_and_a_table_is_whole_after_a_resume(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ModuleType("wandb")
    broken.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", broken)
    words = ["pretrain", small, "--out", "run"]
    half = cli(*words, "pretrain.steps=12", "log=[csv,wandb]", "--json")
    assert half.code == 0
    assert half.err.count("W&B is not written any more: AttributeError") == 1
    assert result_of("run")["steps"] == 12
    with Path("run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    written = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert written == pytest.approx(losses("run"), rel=1e-8)
    assert [row["step"] for row in rows if row["holdout/loss"]] == ["0", "6", "12"]
    assert not Path("run/tensorboard").exists()
    again = cli(*words, "log=tensorboard", "--resume")  # where it goes may change
    assert again.code == 0
    assert "is finished" in again.err


def test_what_a_logger_needs_is_said_and_leaves_nothing(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maekit.engine.loggers.find_spec", lambda _: None)
    refused = cli("pretrain", small, "log=[csv,mlflow]")
    assert refused.code == 2
    assert "pip install 'maekit[mlflow]'" in refused.err
    assert not Path("runs").exists()
