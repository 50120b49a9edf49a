"""The folder of a run: made, locked, described."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch

from maekit.atomic import PARTIAL, sweep, write_text
from maekit.data.jpeg import decoders
from maekit.engine.lock import LOCK, held_lock, in_use
from maekit.errors import RecipeError, StorageError
from maekit.runs import RUNS, read_json, read_result, runs_of, verb_of
from maekit.version import __version__

OURS = ("recipe.yaml", "result.json")  # what makes a folder one of ours
_MOST_LOSS = 1e300  # so that sums stay numbers
# What each resume writes anew, or appends to.
WRITTEN = ("bad_files.jsonl", "data.json", "env.json", "log.txt", "result.json")
# What a start leaves that was refused, besides its log; and the exit codes of refusals.
REFUSAL = ("recipe.yaml", "env.json", "data.json", "started.json", "result.json")
REFUSED = (2, 3, 6)
GONE = "the run folder is gone: something removed or renamed it"
PREDICTIONS = "predictions.jsonl"  # of each sample of data.val
BOXES = "predictions.csv"  # of each box of data.val, in AVA's result format
PACKAGES = ("torch", "timm", "numpy", "pillow", "av", "safetensors", "pydantic")


class RunFolder:
    """A run's folder, held by an exclusive lock while it is entered.

    Args:
        path: is made.
        locks: False: no lock is taken; for file systems that have none.
        writes: False: another process has it, and nothing is made or written here.
    """

    def __init__(self, path: Path, *, locks: bool = True, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._locks = locks
        self._held = ExitStack()

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"the run folder cannot be made: {error}"
            raise StorageError(msg, where=str(self.path), hint="choose another --out") from error
        self._held.enter_context(held_lock(self.path / LOCK, locks=self._locks))
        for name in WRITTEN if self.writes else ():
            make_way(self.path / name)
        for folder in (self.path, self.path / "pictures"):
            sweep(folder)  # what a killed process left half written
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        if not self.writes:
            return
        text = json.dumps(plain(result), indent=2, allow_nan=False)
        write_text(self.path / "result.json", text + "\n")

    def write_env(
        self, verb: str, device: str, plugins: Mapping[str, str] | None = None
    ) -> list[str]:
        """Write env.json: verb, versions and machine, so that numbers can be understood later.

        Returns:
            Other decoders than at the last start, in words: pixels may differ in their last bits.
        """
        path, now = self.path / "env.json", decoders()
        before = read_json(path).get("decoders")
        before = before if isinstance(before, dict) else {}
        before.setdefault("crops", before.get("other pictures", now["crops"]))  # before it was kept
        record = {"verb": verb, **environment(device), "plugins": dict(plugins or {})}
        write_text(path, json.dumps(record, indent=2) + "\n")
        return [
            f"{kind} come from {new}, and came from {before[kind]} before"
            for kind, new in now.items()
            if before.get(kind, new) != new
        ]

    def trim_metrics(self, step: int, last_evaluated: int) -> list[str]:
        """Drop what a resumed run makes and logs again.

        Args:
            step: finished updates.
            last_evaluated: the last step at which was measured.

        Returns:
            What was damaged, in words; it is put aside.
        """
        path = self.path / "metrics.jsonl"
        if path.is_symlink() or (path.exists() and not path.is_file()):
            aside = free_name(path.with_name(f"{path.name}.aside"))
            path.rename(aside)
            return [f"{path} is not a file; it is now {aside.name}"]
        if not path.exists():
            return []
        kept, damaged = [], 0
        for record in read_lines(path):
            number = record.get("step")
            if type(number) is not int:
                damaged += 1
            elif number <= (step if "loss" in record else last_evaluated):
                kept.append(json.dumps(record))
        notes = []
        if damaged:
            aside = free_name(path.with_name(f"{path.name}.aside"))
            aside.write_bytes(path.read_bytes())
            notes = [f"{damaged} lines of {path} are damaged, and left out; {aside.name} has all"]
        write_text(path, "".join(f"{line}\n" for line in kept))
        return notes


def plain(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Make a value fit for JSON: NaN and infinity, which it has no words for, become null."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a .jsonl file, but for a last line that a crash cut short."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:  # cut within a character, too
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):  # the rest of a line may be a bare number
                yield record


def loss_summary(steps: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Return ``loss_first`` and ``loss_last``: means over the first and the last tenth of steps.

    Losses that are no numbers (a file was damaged) are left out.
    """
    numbers = []
    for step in steps:
        loss = step.get("loss")
        if isinstance(loss, int | float) and loss is not True and abs(loss) < _MOST_LOSS:
            numbers.append(loss)
    if not numbers:
        return {"loss_first": None, "loss_last": None}
    tenth = max(1, len(numbers) // 10)
    first, last = numbers[:tenth], numbers[-tenth:]
    return {"loss_first": sum(first) / tenth, "loss_last": sum(last) / tenth}


def new_folder(runs: Path, recipe: str) -> Path:
    """Make ``runs/<recipe>/<n>`` with the next free n; two processes never get the same.

    Raises:
        StorageError: the folder cannot be made.
    """
    parent = runs / recipe
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(each.name) for each in parent.iterdir() if each.name.isdigit()]
        number = max(taken, default=0) + 1
        while True:
            try:
                (parent / str(number)).mkdir()
            except FileExistsError:
                number += 1
            else:
                return parent / str(number)
    except OSError as error:
        msg = f"cannot make a run folder: {error}"
        raise StorageError(msg, where=str(parent), hint="choose another with --out") from error


def chosen_folder(out: Path, *, resume: bool, overwrite: bool, locks: bool = True) -> Path:
    """Check ``--out``: an empty or new folder, one to resume, or an own one to put aside.

    What is put aside is renamed to ``<out>.overwritten`` and kept: the new run may fail. A folder
    in which nothing was done but to refuse a start is as good as new; its log goes on.

    Raises:
        RecipeError: it holds something, and neither --resume nor --overwrite says what to do.
    """
    if out.exists() and not out.is_dir():
        msg = "not a folder"
        raise RecipeError(msg, where=f"--out {out}", hint="give a folder that is new or empty")
    if _only_refused(out):
        with held_lock(out / LOCK, locks=locks):
            for name in REFUSAL:
                (out / name).unlink(missing_ok=True)
        return out
    filled = out.is_dir() and any(map(_counts, out.iterdir()))
    if not filled or resume:
        return out
    if not overwrite:
        msg = "the folder is not empty"
        hint = "--resume to continue its run, --overwrite to start anew, or another folder"
        raise RecipeError(msg, where=f"--out {out}", hint=hint)
    if not any((out / name).exists() for name in OURS):
        msg = "this is not a maekit run: it holds neither recipe.yaml nor result.json"
        raise RecipeError(
            msg, where=f"--out {out}", hint="empty it yourself, or use another folder"
        )
    with held_lock(out / LOCK, locks=locks):  # raises where a live run holds it
        out.rename(free_name(out.with_name(f"{out.name}.overwritten")))
    return out


def _only_refused(out: Path) -> bool:
    """Return whether a folder holds a start that was refused, and nothing else."""
    if read_result(out).get("exit") not in REFUSED:
        return False
    return all(path.name in (*REFUSAL, "log.txt") for path in out.iterdir() if _counts(path))


def make_way(path: Path) -> None:
    """Put aside what is no file in the place of one that is about to be written."""
    if path.exists() and not path.is_file() and not path.is_symlink():
        path.rename(free_name(path.with_name(f"{path.name}.aside")))


def _counts(path: Path) -> bool:
    """Return whether a folder is no longer empty by this: not by what a kill at the start left."""
    return path.name != LOCK and not path.name.startswith(PARTIAL)


def free_name(path: Path) -> Path:
    """Return the path, or one with a number that nothing has yet."""
    number = 0
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate


def unfinished_runs(
    recipe: str, verb: str, runs: Path = RUNS, *, finished: bool = False
) -> Iterator[Path]:
    """Yield the runs of a verb and a recipe's name that did not end (or all), newest first.

    Those that another process holds now are left out.
    """
    for folder in runs_of(recipe, runs):
        same = verb_of(folder) in (None, verb)
        wanted = same and (finished or read_result(folder).get("exit") != 0)
        if wanted and not in_use(folder / LOCK):
            yield folder


def environment(device: str) -> dict[str, Any]:
    """Return versions and machine."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a vendored or stripped install
            found[name] = "unknown"
    return {
        "maekit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": found,
        "decoders": decoders(),
        "device": device,
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def free_space(path: Path | None = None) -> int:
    """Return free bytes on the disk of a folder; default: the working directory."""
    return shutil.disk_usage(path or Path.cwd()).free
