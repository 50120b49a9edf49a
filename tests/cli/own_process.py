"""The command line in a process and a cache of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(folder: Path, *words: str, threads: int | None = None) -> dict[str, Any]:
    """Return what a command prints with ``--json``, run in a folder.

    Args:
        folder: where it runs.
        words: of the command line.
        threads: that it computes with; None: as many as there are cores, as a user's process does.
    """
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    command = [sys.executable, "-m", "maekit", *words, "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
