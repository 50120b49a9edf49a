"""A sample of the killed runs; ``python -m tests.faults.kills`` makes as many as are wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_killed_runs_of_every_kind_end_as_if_nothing_had_been() -> None:
    command = [sys.executable, "-m", "tests.faults.kills", "--cases", "6", "--seed", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
