"""The quickstarts as a new user runs them: in a process and a cache of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(recipe: str, folder: Path) -> dict[str, Any]:
    """A quickstart's result, computed with all threads."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    command = [sys.executable, "-m", "maekit", "pretrain", recipe, "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quickstart_beats_both_fills_clearly(tmp_path: Path) -> None:
    holdout = run("quickstart", tmp_path)["holdout"]
    assert holdout["hidden_mse"] < 0.5 * holdout["mean_fill_mse"]
    assert holdout["hidden_mse"] < 0.8 * holdout["interpolated_fill_mse"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quickstart_video_beats_both_fills(tmp_path: Path) -> None:
    holdout = run("quickstart_video", tmp_path)["holdout"]
    assert holdout["hidden_mse"] < holdout["mean_fill_mse"]
    assert holdout["hidden_mse"] < holdout["interpolated_fill_mse"]
