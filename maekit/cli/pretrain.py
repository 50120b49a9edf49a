"""``maekit pretrain``: a run folder around the engine's loop."""

from __future__ import annotations

import json as json_format
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from maekit.cli.exits import code_of
from maekit.cli.pictures import Pictures
from maekit.cli.reporters import Heard, JsonLines, LogFile, Reporters, TensorBoard, Terminal
from maekit.cli.result import make_result, tell_result
from maekit.cli.resume import check_same, runs_to_resume
from maekit.engine.checkpoint import Checkpoints, Loaded, write_state, write_text
from maekit.engine.events import Note
from maekit.engine.feed import required_pretrain
from maekit.engine.loop import Occasion, run
from maekit.engine.pretrain import Pretraining, assemble, pick_device
from maekit.engine.run_folder import (
    RunFolder,
    chosen_folder,
    new_folder,
    newest_unfinished,
    read_result,
)
from maekit.engine.stop import Interrupted, StopSignal
from maekit.errors import NonFiniteError, RecipeError
from maekit.model import Statistics
from maekit.recipe.dump import dump
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.visualise.training import can_paint
from maekit.weights.file import read_header
from maekit.weights.model import model_tensors
from maekit.weights.source import local_path

if TYPE_CHECKING:
    import torch

    from maekit.recipe.schema import Recipe

RUNS = Path("runs")
INTERRUPTED = 75  # resumable (EX_TEMPFAIL): schedulers take it as "run me again"
DEFAULT_MINUTES = 10.0  # between checkpoints, where the recipe does not say


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, beside the recipe."""

    out: Path | None
    resume: bool
    overwrite: bool
    source: str | None
    json: bool


def pretrain(
    recipe: str,
    overrides: list[str],
    *,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    source: str | None,
    dry_run: bool,
    seed: int | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Pre-train as a recipe says; returns the exit code."""
    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    loaded = load(recipe, overrides)
    resolved = resolve(loaded, "pretrain")
    console = Console(stderr=True, highlight=False)
    terminal = Terminal(console, quiet=quiet, verbose=verbose)
    for note in loaded.notes:
        terminal(Note(note))
    where = pick_device(device)
    with Heard(terminal).listening():
        if dry_run:
            from maekit.cli.dry_run import dry_run as rehearse

            return rehearse(resolved, where, terminal, source=source, json=json)
        asked = Asked(out, resume or runs_to_resume(), overwrite, source, json)
        return train(resolved, where, terminal, asked)


def train(recipe: Recipe, device: torch.device, terminal: Terminal, asked: Asked) -> int:
    """Run in a folder, and leave result.json there whatever happens."""
    folder = RunFolder(_choose_folder(recipe, asked))
    with folder, StopSignal() as stop, _reporters(folder, terminal) as (emit, log):
        # What is refused here leaves the run as it was, its result.json included.
        loaded = _resume_point(recipe, folder, emit)
        before = read_result(folder.path)
        if loaded is not None and before.get("exit") == 0:
            emit(Note(f"{folder.path} is finished"))
            tell_result(before, folder, json=asked.json, quiet=terminal.quiet)
            return 0
        job: Pretraining | None = None
        try:
            job = _start(recipe, device, folder, emit, asked, loaded)
            _loop(job, folder, emit, stop)
            job.export(folder.path / "weights.safetensors")
            result = make_result(job, folder, 0)
            folder.write_result(result)
        except BaseException as error:
            code = INTERRUPTED if isinstance(error, Interrupted) else code_of(error)
            log.write(f"exit {code}: " + "".join(traceback.format_exception(error)))
            if isinstance(error, NonFiniteError) and job is not None:
                _capture(job, folder, emit)
            folder.write_result(make_result(job, folder, code) | {"error": str(error)})
            if not isinstance(error, Interrupted):
                raise
            emit(Note(f"{error}, saved; go on with --resume --out {folder.path}", warning=True))
            return INTERRUPTED
    tell_result(result, folder, json=asked.json, quiet=terminal.quiet)
    return 0


def _choose_folder(recipe: Recipe, asked: Asked) -> Path:
    if asked.out is not None:
        _refuse_moved_weights(asked, asked.out)
        return chosen_folder(asked.out, resume=asked.resume, overwrite=asked.overwrite)
    if asked.resume:
        found = newest_unfinished(RUNS, recipe.name, "pretrain")
        if found is not None:
            return found
    return new_folder(RUNS, recipe.name)


def _refuse_moved_weights(asked: Asked, out: Path) -> None:
    """``--overwrite`` moves the folder away, and with it weights that are to be started from."""
    if asked.overwrite and asked.source is not None:
        source = local_path(asked.source)
        if source is not None and not source.exists():
            raise RecipeError(f"no such weights: {asked.source}", where="--from", hint="check it")
        if source is not None and source.resolve().is_relative_to(out.resolve()):
            msg = f"--from {asked.source} is in the folder that --overwrite moves away"
            raise RecipeError(msg, where=f"--out {out}", hint="give another --out")


@contextmanager
def _reporters(folder: RunFolder, terminal: Terminal) -> Iterator[tuple[Reporters, LogFile]]:
    """The terminal and what is written into the folder."""
    log = LogFile(folder.path / "log.txt")
    emit = Reporters(terminal, log)
    try:
        yield emit, log
    finally:
        emit.close()


def _resume_point(recipe: Recipe, folder: RunFolder, emit: Reporters) -> Loaded | None:
    """The checkpoint that a run goes on from, or None.

    Raises:
        RecipeError: the folder holds a run of another recipe.
    """
    checkpoints = Checkpoints(folder.checkpoints, required_pretrain(recipe).checkpoint.keep)
    checkpoints.sweep()
    loaded, notes = checkpoints.newest_good()
    for note in notes:
        emit(Note(note, warning=True))
    if loaded is not None:
        check_same(folder.path / "recipe.yaml", recipe)
        emit(Note(f"resuming {folder.path} at step {loaded.step}"))
    else:
        emit(Note(f"run folder: {folder.path}"))
    return loaded


def _start(
    recipe: Recipe,
    device: torch.device,
    folder: RunFolder,
    emit: Reporters,
    asked: Asked,
    loaded: Loaded | None,
) -> Pretraining:
    """Build the training, at its checkpoint where it goes on from one."""
    write_text(folder.path / "recipe.yaml", dump(recipe))
    folder.write_env(str(device))
    job = assemble(
        recipe,
        device,
        emit,
        statistics=_statistics(loaded),
        bad_files=folder.path / "bad_files.jsonl",
    )
    job.prepare(asked.source, loaded)
    folder.trim_metrics(job.state.step, job.state.visited)
    emit.members.append(JsonLines(folder.path / "metrics.jsonl"))
    emit.members += TensorBoard.if_installed(folder.path / "tensorboard", job.state.step)
    _tell_start(job, emit)
    return job


def _statistics(loaded: Loaded | None) -> Statistics | None:
    """Those that a resumed run began with: ``stats: auto`` is never computed twice."""
    if loaded is None:
        return None
    header = read_header(loaded.folder / "model.safetensors")
    return Statistics(header.mean, header.std)


def _tell_start(job: Pretraining, emit: Reporters) -> None:
    pretrain, schedule = required_pretrain(job.recipe), job.state.schedule
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    emit(Note(f"{parameters:,} parameters, {job.device} {job.precision.name}"))
    emit(Note(f"batch: {batch_line(job)}"))
    epochs = schedule.steps / job.state.steps_per_epoch
    emit(Note(f"{schedule.steps:,} steps ({epochs:.1f} epochs), {schedule.warmup:,} warm-up"))
    if pretrain.compile:
        emit(Note("compiling: the first step takes long"))


def batch_line(job: Pretraining) -> str:
    """The effective batch and the learning rate, in one line."""
    split, schedule = job.split, job.state.schedule
    pretrain = required_pretrain(job.recipe)
    counted = " (counted)" if pretrain.optimizer.lr_counts_repeats else " (not in the lr)"
    repeats = f", x {pretrain.repeats} repeats{counted}" if pretrain.repeats > 1 else ""
    return (
        f"{split.per_device} per device x {split.accumulation} accumulation x {split.world} "
        f"device(s) = {split.effective}{repeats}; lr = {pretrain.optimizer.base_lr:g} x "
        f"{split.effective} / 256 = {schedule.peak:.3g}"
    )


def _loop(job: Pretraining, folder: RunFolder, emit: Reporters, stop: StopSignal) -> None:
    pretrain = required_pretrain(job.recipe)
    job.open_holdout()
    checkpoints = Checkpoints(folder.checkpoints, pretrain.checkpoint.keep)
    occasions = [Occasion(pretrain.validate_.every, job.validate)]
    if job.shown is not None and can_paint(job.model):
        occasions.append(Occasion(pretrain.pictures.every, Pictures(job, folder.path, emit)))
    save = Occasion(
        pretrain.checkpoint.steps
        or timedelta(minutes=pretrain.checkpoint.minutes or DEFAULT_MINUTES),
        lambda _: job.save(checkpoints),
        at_start=False,
    )
    job.model.train()
    with job.batches() as batches:
        run(
            job.state,
            job.step,
            occasions,
            batches=iter(batches),
            save=save,
            emit=emit,
            stop=stop,
        )


def _capture(job: Pretraining, folder: RunFolder, emit: Reporters) -> None:
    """Keep what is needed to meet the same non-finite step again: weights, optimizer, batch."""
    path = folder.path / "nan_capture"
    path.mkdir(exist_ok=True)
    write_state(path, job.state, model_tensors(job.model), job.header)
    first = job.state.step - int(job.state.streak)
    steps = {
        str(step): [[key.epoch, key.index] for key in job.stream.keys(step)]
        for step in range(first, job.state.step)
    }
    write_text(path / "batches.json", json_format.dumps({"steps": steps}))
    emit(Note(f"weights, optimizer and samples of the failing steps: {path}", warning=True))
