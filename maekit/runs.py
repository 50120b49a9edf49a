"""Read what runs left on disk: which verb made a folder, how it ended, and which is the newest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RUNS = Path("runs")  # holds a run as ``<recipe>/<n>``, unless --out names another folder


def read_result(folder: Path) -> dict[str, Any]:
    """Read a run's result.json; empty where there is none yet, or none that is whole."""
    return read_json(folder / "result.json")


def verb_of(folder: Path) -> str | None:
    """Return the verb that made a run; None where it has only begun, or is not a run.

    A run that was killed left no result.json, but its env.json.
    """
    for record in (read_result(folder), read_json(folder / "env.json")):
        if isinstance(record.get("verb"), str):
            return str(record["verb"])
    return None


def runs_of(recipe: str, runs: Path = RUNS) -> Iterator[Path]:
    """List the run folders of a recipe, newest first."""
    numbered = [each for each in (runs / recipe).glob("*") if each.name.isdigit()]
    yield from sorted(numbered, key=lambda each: int(each.name), reverse=True)


def newest_finished(recipe: str, verb: str, runs: Path = RUNS) -> Path | None:
    """Return the newest run of this verb and recipe that ended well."""
    for folder in runs_of(recipe, runs):
        result = read_result(folder)
        if result.get("verb") == verb and result.get("exit") == 0:
            return folder
    return None


def run_of(weights: Path) -> Path | None:
    """Return the run folder that weights, or those of a checkpoint, lie in; None without one."""
    folder = weights.absolute().parent
    if folder.parent.name == "checkpoints":
        folder = folder.parent.parent
    return folder if (folder / "recipe.yaml").is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none, or none that is whole."""
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
