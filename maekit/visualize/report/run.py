"""What a run folder holds, read as far as it came: nothing in it needs to be there or whole."""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from os.path import commonprefix
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from maekit.engine.lock import LOCK, in_use
from maekit.engine.reporters import duration
from maekit.engine.resume import recorded_source
from maekit.engine.run_folder import OURS, PREDICTIONS
from maekit.errors import DataError, MaekitError, RecipeError
from maekit.recipe.yaml12 import Plain, parse
from maekit.runs import RUNS, verb_of
from maekit.visualize.report.damage import (
    is_step,
    read_json,
    read_records,
    whole_metrics,
    whole_result,
)

LOG_LINES = 40
EXITS = {
    1: "a bug",
    2: "usage or recipe",
    3: "weights do not match",
    4: "non-finite loss",
    5: "out of memory",
    6: "data",
    7: "storage",
    8: "a worker died",
}
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_STOPPED = (75, 130)  # resumable, and the second Ctrl-C
_DIGEST = 8  # bytes that stand for a file name and a class


@dataclass(frozen=True)
class Verdict:
    """How a run stands.

    ``state`` is finished, running, interrupted, crashed, killed (without a result), or empty.
    """

    state: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        verb: the command that made it; None before it has written that down.
        steps: records of metrics.jsonl that describe an update, in order.
        measured: those that describe a measurement: ``{"step": ..., "holdout": {...}}``.
        recipe: the resolved recipe; None where there is none that can be read.
        log: its last lines.
        when: the times of log.txt's first and last line; empty where there is none.
        source: the weights that it began from, where it says.
        notes: what could not be read, and why.
    """

    path: Path
    verb: str | None
    verdict: Verdict
    steps: list[dict[str, Any]]
    measured: list[dict[str, Any]]
    result: dict[str, Any]
    recipe: Plain
    recipe_text: str
    environment: dict[str, Any]
    bad_files: list[dict[str, Any]]
    log: list[str]
    when: str = ""
    source: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Finished updates, as far as anyone wrote them down."""
        logged = int(self.steps[-1]["step"]) if self.steps else 0
        return max(logged, int(self.result.get("steps") or 0))

    @property
    def holdout(self) -> dict[str, float | None]:
        """The newest held-out errors; empty where none were measured."""
        for record in reversed(self.measured):
            if isinstance(record.get("holdout"), dict):
                found: dict[str, float | None] = record["holdout"]
                return found
        return {}

    def last(self, key: str) -> Any:  # noqa: ANN401 (any JSON value)
        """Return the newest value that was logged with the steps, or None."""
        return next((step[key] for step in reversed(self.steps) if step.get(key) is not None), None)


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RecipeError: it is not a run folder.
    """
    _check_run(path)
    notes: list[str] = []
    steps, measured = whole_metrics(read_records(path / "metrics.jsonl", notes), notes)
    result = whole_result(read_json(path / "result.json", notes), notes)
    text = _text(path / "recipe.yaml", notes)
    lines = _text(path / "log.txt", notes).splitlines()
    return Run(
        path=path,
        verb=verb_of(path),
        verdict=_verdict(result, steps, running=in_use(path / LOCK)),
        steps=steps,
        measured=measured,
        result=result,
        recipe=_recipe(text, notes),
        recipe_text=text,
        environment=read_json(path / "env.json", notes),
        bad_files=list(read_records(path / "bad_files.jsonl", notes)),
        log=lines[-LOG_LINES:],
        when=_when(lines),
        source=_source(path, result),
        notes=notes,
    )


def names_of(paths: list[Path]) -> list[str]:
    """Return the shortest ends of resolved paths, of two parts or more, that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    length = 2
    while True:
        names = [str(Path(*each[-length:])) for each in parts]
        if len(set(names)) == len(set(parts)) or length >= max(len(each) for each in parts):
            return names
        length += 1


def _check_run(path: Path) -> None:
    if not path.exists():
        raise RecipeError("there is no such folder", where=str(path), hint=_runs_near(RUNS))
    if not path.is_dir():
        raise RecipeError("not a folder", where=str(path), hint="give the run's folder")
    # A run that has only begun holds its lock and its log, and no recipe yet.
    begun = (path / "lock").is_file() and (path / "log.txt").is_file()
    if not begun and not any((path / name).is_file() for name in OURS):
        msg = "this is not a run: it holds neither recipe.yaml nor result.json"
        raise RecipeError(msg, where=str(path), hint=_runs_near(path))


def _runs_near(folder: Path) -> str:
    depths = ("*", "*/*")  # runs, and runs of recipes; a deeper search could take minutes
    found = {
        each.parent for name in OURS for deep in depths for each in folder.glob(f"{deep}/{name}")
    }
    if not found:
        return "name a folder that `maekit pretrain` wrote, by default runs/<recipe>/<n>"
    shown = sorted(str(each) for each in found)
    more = f", and {len(shown) - 5} more" if len(shown) > 5 else ""
    return "name a run: " + ", ".join(shown[:5]) + more


def _verdict(result: dict[str, Any], steps: list[dict[str, Any]], *, running: bool) -> Verdict:
    at = _progress(result, steps)
    code = result.get("exit")
    logged = int(steps[-1]["step"]) if steps else 0
    if running:
        left = steps[-1].get("seconds_left") if steps else None
        return Verdict("running", f"Running, {at}", _left(left))
    if code == 0:
        return Verdict("finished", f"Finished, {at}" if logged else "Finished")
    if code is None and not logged:
        return Verdict("empty", "Nothing was logged", "No step and no result.json.")
    if code is None or logged > int(result.get("steps") or 0):
        # result.json, where there is one, is of the time before this run was resumed.
        detail = "The process ended without a result.json: killed, or its machine went down."
        return Verdict("killed", f"Ended without a result, {at}", detail)
    error = str(result.get("error") or "")
    if code in _STOPPED:
        return Verdict("interrupted", f"Interrupted, {at}", "It continues with --resume.")
    reason = f" ({EXITS[code]})" if code in EXITS else ""
    return Verdict("crashed", f"Crashed with exit code {code}{reason}, {at}", error)


def _progress(result: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    done = max(int(result.get("steps") or 0), int(steps[-1]["step"]) if steps else 0)
    if not done:
        return "no step logged"
    total = next((step["total_steps"] for step in reversed(steps) if "total_steps" in step), None)
    return f"step {done:,}" if total is None else f"step {done:,} of {int(total):,}"


def _source(path: Path, result: dict[str, Any]) -> str:
    """Return the weights that a run began from; a tokenizer's or a pre-training's may be none."""
    said = result.get("from")
    if isinstance(said, str):
        return said
    try:
        return recorded_source(path) or ""
    except (OSError, ValueError, MaekitError):
        return ""


def _when(lines: list[str]) -> str:
    times = [found[0] for line in lines if (found := _TIME.match(line))]
    return f"Logged from {times[0]} to {times[-1]}, local time." if times else ""


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} left when it last logged."


def _text(path: Path, notes: list[str]) -> str:
    if not path.exists():
        return ""
    if not path.is_file():  # to read a named pipe would be to wait
        notes.append(f"{path.name} is not a file")
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}")
        return ""


def _recipe(text: str, notes: list[str]) -> Plain:
    try:
        node = parse(text, "recipe.yaml")
    except RecipeError as error:
        notes.append(f"{error.where}: {error.what}")
        return None
    return None if node is None else node.plain


@dataclass(frozen=True)
class Predictions:
    """The samples that a run judged, in the order of their rows.

    Attributes:
        rows: int64 ``[n]``, places in the set.
        samples: uint64 ``[n]``, a digest of each file's name (without its folders) and class.
        right: bool ``[n]``, whether the class has the highest score.
        folder: the deepest one that holds all files, as text; empty where they share none.
    """

    rows: np.ndarray
    samples: np.ndarray
    right: np.ndarray
    folder: str

    def same_samples(self, other: Predictions) -> bool:
        """Whether both judged the same rows, of the same file names and classes."""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.samples, other.samples)


def read_predictions(path: Path) -> Predictions:
    """Read a file of predictions; about 20 bytes of each line are kept.

    Raises:
        DataError: a line is cut short or is not the prediction of one class, or
            nothing can be read at all.
    """
    rows, samples, right, folder = array("q"), array("Q"), bytearray(), None
    try:
        if not path.is_file():
            what = f"{PREDICTIONS} is not a file"
            raise DataError(what, where=str(path))
        with path.open(encoding="utf-8", errors="replace") as file:  # cut within a character, too
            for number, line in enumerate(file, 1):
                row, name, label, best = _parsed(line, number)
                rows.append(row)
                base = name.rpartition("/")[2]
                sample = f"{label}/{base}".encode("utf-8", "surrogatepass")
                samples.append(int.from_bytes(blake2b(sample, digest_size=_DIGEST).digest()))
                right.append(best == label)
                if folder is None:
                    folder = name
                elif not name.startswith(folder):
                    # By characters: the last folder is found at the end.
                    folder = commonprefix((folder, name))  # noqa: RUF071
    except OSError as error:
        what = f"{PREDICTIONS} cannot be read: {error.strerror}"
        raise DataError(what, where=str(path)) from error
    if not rows:
        what = f"{PREDICTIONS} is empty"
        raise DataError(what, where=str(path))
    # As text: names that are not UTF-8 come with lone surrogates, which no terminal shows.
    shown = (folder or "").rpartition("/")[0].encode("utf-8", "backslashreplace").decode()
    return _in_order(rows, samples, right, shown)


def _in_order(rows: array[int], samples: array[int], right: bytearray, folder: str) -> Predictions:
    places = np.array(rows, np.int64)
    order = places.argsort(kind="stable")
    places = places[order]
    twice = places[1:][places[1:] == places[:-1]]
    if twice.size:
        what = f"{PREDICTIONS} has row {twice[0]} twice"
        raise DataError(what)
    known = np.array(samples, np.uint64)[order]
    return Predictions(places, known, np.frombuffer(bytes(right), np.bool_)[order], folder)


def _parsed(line: str, number: int) -> tuple[int, str, int, int]:
    """Row, file, class and the class of the highest score; of equal ones the first."""
    try:
        record = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        what = f"line {number} of {PREDICTIONS} is cut short or not JSON"
        raise DataError(what) from error
    values: Any = record if isinstance(record, dict) else {}
    row, name, label, scores = (values.get(key) for key in ("row", "id", "label", "scores"))
    if isinstance(label, (list, float)):
        what = "expected one class per sample"
        raise DataError(what)
    best = _highest(scores)
    fits = is_step(row) and isinstance(name, str) and type(label) is int
    if not fits or best is None or not 0 <= label < len(scores):
        what = f"line {number} of {PREDICTIONS} is not a class prediction"
        raise DataError(what)
    return row, name, label, best


def _highest(scores: object) -> int | None:
    """Return the class of the highest score; None where these are not scores of classes."""
    if not isinstance(scores, list) or len(scores) < 2:
        return None
    try:
        most = max(scores)
    except TypeError:  # numbers next to something else
        return None
    return scores.index(most) if isinstance(most, (int, float)) else None


def _refuse(word: str) -> NoReturn:
    what = f"{word} is not a number"
    raise ValueError(what)


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # NaN is above and below nothing
