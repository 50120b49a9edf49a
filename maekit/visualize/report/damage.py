"""What a run's records may hold: whatever else stands in them is left out, and said."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maekit.engine.skipped import WORDS

_LARGEST = 1e150  # of a number that is still computed with
_MOST_STEPS = 2**53
_DEEPEST = 20
_SHOWN = 5


def read_records(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a .jsonl file; count lines that are none, but for a cut last one."""
    if not path.exists():
        return
    if not path.is_file():
        notes.append(f"{path.name} is not a file")
        return
    broken, cut = 0, False
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if isinstance(record, dict):
                    yield {str(key): _shallow(value) for key, value in record.items()}
                else:
                    broken, cut = broken + 1, not line.endswith("\n")
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}")
    if broken - cut:
        notes.append(f"{path.name}: {broken - cut:,} lines are no records and are left out")


def read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        notes.append(f"{path.name} is damaged and left out")
        return {}
    return {str(key): _shallow(value) for key, value in found.items()}


def whole_metrics(
    records: Iterator[dict[str, Any]], notes: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records of updates and those of measurements, with what can be shown of them."""
    damaged: Counter[str] = Counter()
    steps: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    for record in records:
        if not is_step(record.get("step")):
            damaged["step"] += 1
            continue
        kept: dict[str, Any] = {"step": record["step"]}
        update = "loss" in record
        for key, value in record.items():
            if key == "step":
                continue
            if isinstance(value, dict) and not update:
                values = {name: each for name, each in value.items() if _is_number(each)}
                damaged[key] += len(values) < len(value)
                kept[key] = values
            elif _is_number(value) or (key == "skipped" and value in WORDS.values()):
                kept[key] = value
            elif update and isinstance(value, (list, str, dict)):
                pass  # of another version, or names of samples: the page shows numbers
            else:
                damaged[key] += 1
                kept |= {key: None} if update else {}
        (steps if update else measured).append(kept)
    _tell("metrics.jsonl", damaged, notes)
    return steps, measured


def whole_result(result: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return a result.json without values that are not of the kind that its keys have."""
    damaged = Counter(key for key, value in result.items() if not _RESULT.get(key, _is_any)(value))
    _tell("result.json", damaged, notes)
    return {key: value for key, value in result.items() if key not in damaged}


def is_step(value: object) -> bool:
    """Return whether a value counts updates."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEPS


def _is_number(value: Any) -> bool:  # noqa: ANN401
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # A whole number may be too long to become a float.
    return abs(value) <= _LARGEST if isinstance(value, int) else math.isfinite(value)


def _is_text(value: Any) -> bool:  # noqa: ANN401
    return value is None or isinstance(value, str)


def _is_code(value: Any) -> bool:  # noqa: ANN401
    return value is None or (isinstance(value, int) and abs(value) < 1000)


def _is_any(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, (str, bool, list, dict)) or _is_number(value)


_RESULT: dict[str, Callable[[Any], bool]] = {
    "exit": _is_code,
    "steps": lambda value: value is None or is_step(value),
    "verb": _is_text,
    "error": _is_text,
    "protocol": _is_text,
    **dict.fromkeys(
        ("seconds", "loss_first", "loss_last", "top1", "top5", "map", "r2", "exact", "mse", "mae"),
        _is_number,
    ),
}


def _tell(file: str, damaged: Counter[str], notes: list[str]) -> None:
    damaged = +damaged
    if damaged:
        shown = ", ".join(f"{key[:40]} ({count:,}x)" for key, count in damaged.most_common(_SHOWN))
        more = f" and {len(damaged) - _SHOWN} more" if len(damaged) > _SHOWN else ""
        notes.append(f"{file} is damaged; left out: {shown}{more}")


def _shallow(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float) and abs(value) > _LARGEST:
        return math.nan
    if isinstance(value, (list, dict)) and depth >= _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {key: _shallow(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_shallow(each, depth + 1) for each in value]
    return value
