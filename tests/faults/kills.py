"""Kill runs at random, resume them, and compare what they leave with an undisturbed run's.

    python -m tests.faults.kills --cases 50 [--config NAME] [--seed N] [--keep FOLDER]

Of every configuration a reference is run; then a case is killed at a random instant, or at a random
file operation below its folder, is resumed until it ends (some are killed again), and must be
bit-equal: weights, last and best checkpoint, metrics (no step twice or missing), predictions,
result and pictures, with no stray file and no process left.

One process has imported torch and maekit, and never computes anything: each command is a fork of
it, so that a run costs no import.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")

import PIL.Image
import yaml

from maekit.cli import app
from maekit.stop import leaving_at_once
from tests.small_recipes import (
    IMAGES,
    VIDEOS,
    Recipe,
    draw_sides,
    draw_smooth,
    draw_tints,
    laid_over,
    write_noise,
)

# What the children would import, each anew.
IMPORTED = (
    "maekit.cli.probe",
    "maekit.cli.verbs",
    "maekit.evaluate.finetune",
    "maekit.evaluate.probe_training",
    "maekit.tokenizer",
    "torch._dynamo",
    "torch.utils.tensorboard",
)
LIMIT = 300.0  # seconds that a run may take, on a busy machine too
LEAVING = 120.0  # seconds that a killed run's workers may take to see that it is gone
OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}
# What differs between two runs of the same numbers.
TIMES = {"seconds", "seconds_before", "samples_per_second", "data_wait", "memory", "seconds_left"}
# Of files whose headers name the same things in any order.
DIGESTS = {"digest", "sha256"}
UNCOMPARED = {"env.json", "log.txt", "lock"}  # only whether they are there
INTERRUPTED, STOPPED = 75, 130


@dataclass(frozen=True)
class Config:
    """A kind of run.

    Attributes:
        verb: the command.
        data: which of the folders of ``draw_data`` it reads.
        recipe: all but the paths of its data.
        words: further arguments.
    """

    verb: str
    data: str
    recipe: Recipe
    words: Sequence[str] = ()

    @property
    def keep(self) -> int:
        """How many checkpoints stay."""
        return int(self.recipe[self.verb]["checkpoint"].get("keep", 2))


_PICTURES = {"every": 6, "samples": 2}
_IMAGE: Recipe = {
    "pretrain": {
        "steps": 30,
        "warmup": {"steps": 2},
        "optimizer": {"name": "adamw", "base_lr": 0.03},
        "checkpoint": {"steps": 5},
        "validate": {"every": 6, "samples": 8},
        "pictures": _PICTURES,
    },
}
_WORKERS: Recipe = {
    "data": {"workers": 2},
    "pretrain": {"batch": {"accumulation": 2}, "pictures": None, "checkpoint": {"keep": 1}},
}
_VIDEO: Recipe = {
    "pretrain": {
        "steps": 20,
        "checkpoint": {"steps": 4},
        "validate": {"every": 10, "samples": 2},
        "pictures": {"every": 10, "samples": 1},
    },
}
_FINETUNE: Recipe = {
    "finetune": {
        "model": {"backbone": {"drop_path": 0.2}},
        "steps": 24,
        "warmup": {"steps": 2},
        "batch": {"global": 8},
        "optimizer": {"name": "adamw", "base_lr": 0.1},
        "erase": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "ema": 0.9,
        "head": {"dropout": 0.1},
        "checkpoint": {"steps": 5, "keep": 1},
        "validate": {"every": 4},
    },
}
_PROBE: Recipe = {
    "probe": {
        "kind": "linear",
        "protocol": "paper",
        "pixels": 8,
        "steps": 20,
        "warmup": {"steps": 2},
        "batch": {"global": 12},
        "optimizer": {"base_lr": 10},
        "checkpoint": {"steps": 4},
    },
}
_TOKENIZER: Recipe = {
    "tokenizer": {
        "dvae": {"vocabulary": 32, "width": 16, "init_width": 16, "groups": 3, "blocks": 1},
        "steps": 20,
        "warmup": {"steps": 5},
        "batch": {"global": 8},
        "checkpoint": {"steps": 4},
        "validate": {"every": 10, "samples": 8},
        "pictures": {"every": 10, "samples": 2},
    },
}
_SCRATCH = ("--from", "scratch")
CONFIGS = {
    "image": Config("pretrain", "smooth", laid_over(IMAGES, _IMAGE)),
    "image-workers": Config("pretrain", "smooth", laid_over(IMAGES, _IMAGE, _WORKERS)),
    "video": Config("pretrain", "clips", laid_over(VIDEOS, _VIDEO)),
    "finetune": Config("finetune", "sides", laid_over(IMAGES, _FINETUNE), _SCRATCH),
    "probe": Config("probe", "tints", laid_over(IMAGES, _PROBE), _SCRATCH),
    "tokenizer": Config("tokenizer", "smooth", laid_over(IMAGES, _TOKENIZER)),
}


@dataclass(frozen=True)
class Kill:
    """How and when a run is ended.

    Attributes:
        number: the signal.
        after: seconds from its start; None: at an operation.
        operation: the how manieth file operation below the run's folder.
        group: its workers get the signal too.
        again: seconds after the first that a second signal comes.
    """

    number: int
    after: float | None = None
    operation: int | None = None
    group: bool = False
    again: float | None = None

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        if self.operation is not None:
            return f"{name} at operation {self.operation}"
        twice = "" if self.again is None else f", again {self.again:.3f} s later"
        return f"{name} after {self.after:.3f} s{' to the group' if self.group else ''}{twice}"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    seconds: float
    operations: int
    error: str
    left: bool  # a process of its group lived on


def draw_data(folder: Path) -> None:
    """Draw what all configurations read."""
    draw_smooth(folder / "smooth/train", 50, seed=0)
    draw_smooth(folder / "smooth/val", 9, seed=1)
    draw_sides(folder / "sides/train", 40, seed=0)
    draw_sides(folder / "sides/val", 16, seed=1)
    draw_tints(folder / "tints/train", 12, seed=0)
    draw_tints(folder / "tints/val", 4, seed=1)
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            write_noise(folder / "clips" / split / f"{number}.mp4", 8 + number)


def command(config: Config, folder: Path, data: Path, *, resume: bool) -> list[str]:
    """Return the words of a run in ``folder/run``."""
    recipe = folder / "recipe.yaml"
    if not recipe.exists():
        sets = {split: {"path": str(data / config.data / split)} for split in ("train", "val")}
        whole = laid_over(config.recipe, {"data": sets})
        recipe.write_text(yaml.safe_dump(whole, sort_keys=False))
    words = [config.verb, "recipe.yaml", *config.words, "--out", "run"]
    return [*words, "--resume"] if resume else words


def run(words: Sequence[str], folder: Path, kill: Kill | None = None) -> Ended:
    """Run a command in a child of its own process group, and end it as a kill says."""
    began = time.monotonic()
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    child = os.fork()
    if child == 0:
        _be_a_run(words, folder, None if kill is None else kill.operation)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = _end(child, kill, began)
    seconds = time.monotonic() - began
    code = os.waitstatus_to_exitcode(status)
    counted = folder / "operations"
    return Ended(
        code,
        seconds,
        int(counted.read_text()) if counted.exists() else 0,
        (folder / "stderr").read_text(errors="replace"),
        _leave(child),
    )


def _be_a_run(words: Sequence[str], folder: Path, fatal: int | None) -> NoReturn:
    """Become a run; never returns."""
    code = 1
    count = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in OPERATIONS or not _is_below(args):
            return
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        os.setsid()
        os.chdir(folder)
        error = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, place in ((nothing, 0), (nothing, 1), (error, 2)):
            os.dup2(number, place)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.addaudithook(watch)
        try:
            with leaving_at_once():  # as the command does from its first moments
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
                app.main([*words, "-q"])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        fatal = None
        sys.stderr.flush()
        Path("operations").write_text(str(count), encoding="utf-8")
    except BaseException:  # noqa: BLE001 - whatever it is, it is told and judged
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def _is_below(args: tuple[Any, ...]) -> bool:
    """Return whether an operation is one below the run's folder, or relative to an open one."""
    path = args[0] if args else None
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        return False
    inside = Path(path).parts[:1] == ("run",) or "/run/" in path
    return inside or (len(args) > 1 and isinstance(args[-1], int) and "/" not in path)


def _end(child: int, kill: Kill | None, began: float) -> int:
    """Send what a kill says, and wait for the end; returns the status."""
    times = []
    if kill is not None and kill.after is not None:
        times.append(kill.after)
        if kill.again is not None:
            times.append(kill.after + kill.again)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        passed = time.monotonic() - began
        if times and passed >= times[0]:
            times.pop(0)
            _send(child, kill.number if kill else signal.SIGKILL, group=bool(kill and kill.group))
        elif passed > LIMIT:
            _send(child, signal.SIGABRT, group=True)
            return os.waitpid(child, 0)[1]
        until = times[0] - passed if times else 0.02
        time.sleep(min(max(until, 0.0005), 0.02))


def _send(child: int, number: int, *, group: bool) -> None:
    try:
        (os.killpg if group else os.kill)(child, number)
    except ProcessLookupError:  # it has ended, or has not made its group yet
        if group:
            os.kill(child, number)


def _leave(group: int) -> bool:
    """Wait until a group of processes is gone; returns whether it had to be ended."""
    until = time.monotonic() + LEAVING
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        if time.monotonic() > until:
            os.killpg(group, signal.SIGKILL)
            return True
        time.sleep(0.01)


def draw_kill(rng: random.Random, reference: Ended) -> Kill:
    """Draw one of the ways in which a run is ended."""
    kind = rng.choice(("kill", "kill", "term", "term", "twice", "operation", "operation"))
    if kind == "operation":
        return Kill(signal.SIGKILL, operation=rng.randint(1, reference.operations))
    kill = Kill(signal.SIGKILL, rng.uniform(0, reference.seconds), group=rng.random() < 0.5)
    if kind == "term":
        return replace(kill, number=signal.SIGTERM)
    if kind == "twice":
        return replace(kill, number=signal.SIGINT, again=rng.uniform(0, 0.3))
    return kill


def expected_codes(kill: Kill | None) -> set[int]:
    """Return how a run that is killed so may end."""
    if kill is None:
        return {0}
    return {0} | {
        signal.SIGKILL: {-signal.SIGKILL},
        signal.SIGTERM: {INTERRUPTED},
        signal.SIGINT: {INTERRUPTED, STOPPED},
    }[signal.Signals(kill.number)]


def disturbed(
    config: Config, folder: Path, data: Path, reference: Ended, rng: random.Random
) -> tuple[list[Kill], list[str]]:
    """Run, kill, and resume until it ends; returns what was done, and what was wrong."""
    faults: list[str] = []
    kills: list[Kill] = []
    for attempt in range(6):
        again = attempt == 0 or (attempt < 4 and rng.random() < 0.3)
        kill = draw_kill(rng, reference) if again else None
        kills += [kill] if kill else []
        ended = run(command(config, folder, data, resume=attempt > 0), folder, kill)
        if ended.code not in expected_codes(kill):
            faults.append(f"exit {ended.code}: {ended.error.strip()[-2000:]}")
        elif "Traceback" in ended.error:
            faults.append(f"traceback: {ended.error.strip()[-2000:]}")
        if ended.left:
            faults.append("processes lived on")
        if kill is None or (attempt > 0 and ended.code == 0):
            break
    return kills, faults


def differences(reference: Path, found: Path, keep: int) -> list[str]:
    """Compare two run folders; returns what differs, in words."""
    named = {name: _pointer(reference / "checkpoints" / name) for name in ("last", "best")}
    faults = [
        f"checkpoints/{name}: {step} in the reference, {_pointer(found / 'checkpoints' / name)}"
        for name, step in named.items()
        if step != _pointer(found / "checkpoints" / name)
    ]
    steps = {each.name for each in (found / "checkpoints").glob("step-*")}
    if len(steps - set(named.values())) > keep - 1:
        faults.append(f"{len(steps)} checkpoints, keep {keep}: {sorted(steps)}")
    compared = set(named.values())
    ours, theirs = (_files(each, compared) for each in (reference, found))
    faults += [f"missing: {name}" for name in sorted(ours - theirs)]
    faults += [f"stray: {name}" for name in sorted(theirs - ours)]
    for name in sorted(ours & theirs):
        if name not in UNCOMPARED and _content(reference / name) != _content(found / name):
            faults.append(f"differs: {name}")
    faults += _doubled(found / "metrics.jsonl")
    return faults


def _pointer(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _files(run: Path, steps: set[str | None]) -> set[str]:
    """List a run's files and folders, but for TensorBoard's and for checkpoints between."""
    found = set()
    for path in run.rglob("*"):
        parts = path.relative_to(run).parts
        between = parts[0] == "checkpoints" and len(parts) > 1 and parts[1].startswith("step-")
        if parts[0] == "tensorboard" or (between and parts[1] not in steps):
            continue
        if path.is_file() or not any(path.iterdir()):
            found.add("/".join(parts))
    return found


def _content(path: Path) -> object:
    """Return what of a file must be equal."""
    if path.suffix == ".jsonl":
        return [_untimed(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return _untimed(json.loads(path.read_text()))
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        return json.loads(content[8:start]), content[start:]
    return path.read_bytes() if path.is_file() else None


def _untimed(value: object) -> object:
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if k not in TIMES | DIGESTS}
    return [_untimed(each) for each in value] if isinstance(value, list) else value


def _doubled(metrics: Path) -> list[str]:
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [line["step"] for line in lines if "loss" in line]
    others = [
        (line["step"], key)
        for line in lines
        for key in line
        if key != "step" and "loss" not in line
    ]
    faults = [f"step {step} {n} times" for step, n in Counter(losses).items() if n > 1]
    faults += [f"{what} {n} times" for what, n in Counter(others).items() if n > 1]
    missing = sorted(set(range(1, max(losses) + 1)) - set(losses))
    return faults + ([f"steps missing: {missing}"] if missing else [])


def check(
    cases: int, names: Sequence[str], seed: int, work: Path, say: Callable[[str], None] = print
) -> int:
    """Run so many cases over the configurations in turn; returns how many failed."""
    PIL.Image.init()
    for module in IMPORTED:
        with suppress(ImportError):  # TensorBoard may be missing
            import_module(module)
    data = work / "data"
    draw_data(data)
    references: dict[str, Ended] = {}
    failed, killed = 0, 0
    for number in range(cases):
        name = names[number % len(names)]
        config, whole = CONFIGS[name], work / f"{name}-whole"
        if name not in references:
            whole.mkdir()
            references[name] = run(command(config, whole, data, resume=False), whole, None)
            if references[name].code != 0:
                say(f"{name}: the reference ended with {references[name]}")
                return cases
        folder = work / f"{name}-{number}"
        folder.mkdir()
        rng = random.Random(f"{seed} {number} {name}")
        kills, faults = disturbed(config, folder, data, references[name], rng)
        killed += len(kills)
        if not faults:
            faults = differences(whole / "run", folder / "run", config.keep)
        if faults:
            failed += 1
            told = "; then ".join(map(str, kills))
            say(f"{name} {number} ({told}): " + "; ".join(faults))
        else:
            shutil.rmtree(folder)
    pace = ", ".join(f"{name} {ended.seconds:.1f} s" for name, ended in references.items())
    say(f"{cases} cases, {killed} kills, {failed} failed (seed {seed}; an undisturbed run: {pace})")
    return failed


def main() -> int:
    """Run as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--config", choices=sorted(CONFIGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="new folder, kept, for what failed")
    options = parser.parse_args()
    names = [options.config] if options.config else list(CONFIGS)
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        return int(check(options.cases, names, options.seed, options.keep.resolve()) > 0)
    with tempfile.TemporaryDirectory(prefix="maekit-kills-") as work:
        return int(check(options.cases, names, options.seed, Path(work).resolve()) > 0)


if __name__ == "__main__":
    sys.exit(main())
