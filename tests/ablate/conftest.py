"""Sweeps whose runs take no time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maekit.ablate import run as run_module
from maekit.ablate import sweep as sweep_module


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let sweeps run the fake, in a directory of their own."""
    script = Path(__file__).with_name("fake_maekit.py")
    monkeypatch.setattr(sweep_module, "MAEKIT", (sys.executable, "-S", str(script)))
    monkeypatch.setattr(sweep_module, "POLL", 0.01)
    monkeypatch.setattr(run_module, "write_plot", lambda table, folder: False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
