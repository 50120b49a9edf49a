"""``maekit pretrain``: a run folder around the engine's loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from maekit.cli.exits import code_of
from maekit.cli.output import print_json, print_table
from maekit.cli.reporters import JsonLines, LogFile, Reporters, TensorBoard, Terminal
from maekit.cli.resume import check_same, runs_to_resume
from maekit.engine.checkpoint import Checkpoints, Loaded, write_state, write_text
from maekit.engine.events import Note, Saved
from maekit.engine.loop import Occasion, run
from maekit.engine.pretrain import Pretraining, assemble, pick_device, summary
from maekit.engine.run_folder import RunFolder, chosen_folder, new_folder, read_lines
from maekit.engine.stop import Interrupted, StopSignal
from maekit.errors import NonFiniteError, StorageError
from maekit.model import Statistics
from maekit.recipe.dump import dump
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.visualise.training import can_paint, reconstructions
from maekit.weights.file import read_header
from maekit.weights.model import model_tensors

if TYPE_CHECKING:
    import torch

    from maekit.engine.state import TrainState
    from maekit.recipe.schema import Pretrain, Recipe

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
    if dry_run:
        from maekit.cli.dry_run import dry_run as rehearse

        return rehearse(resolved, where, terminal, source=source, json=json)
    asked = Asked(out, resume or runs_to_resume(), overwrite, source, json)
    return train(resolved, where, terminal, asked)


def train(recipe: Recipe, device: torch.device, terminal: Terminal, asked: Asked) -> int:
    """Run in a folder, and leave result.json there whatever happens."""
    folder = RunFolder(_choose_folder(recipe, asked))
    with folder, StopSignal() as stop, _reporters(folder, terminal) as (emit, log):
        job: Pretraining | None = None
        try:
            job = _start(recipe, device, folder, emit, asked)
            _loop(job, folder, emit, stop)
            job.export(folder.path / "weights.safetensors")
            result = _result(job, folder, 0)
            folder.write_result(result)
        except BaseException as error:
            code = INTERRUPTED if isinstance(error, Interrupted) else code_of(error)
            log.write(f"exit {code}: {error!r}")
            if isinstance(error, NonFiniteError) and job is not None:
                _capture(job, folder, emit)
            folder.write_result(_result(job, folder, code) | {"error": str(error)})
            if not isinstance(error, Interrupted):
                raise
            emit(Note(f"{error}, saved; go on with --resume --out {folder.path}", warning=True))
            return INTERRUPTED
    _tell_end(result, folder, asked, terminal)
    return 0


def _choose_folder(recipe: Recipe, asked: Asked) -> Path:
    if asked.out is not None:
        return chosen_folder(asked.out, resume=asked.resume, overwrite=asked.overwrite)
    if asked.resume:
        from maekit.engine.run_folder import newest_unfinished

        found = newest_unfinished(RUNS, recipe.name, "pretrain")
        if found is not None:
            return found
    return new_folder(RUNS, recipe.name)


@contextmanager
def _reporters(folder: RunFolder, terminal: Terminal) -> Iterator[tuple[Reporters, LogFile]]:
    """The terminal and what is written into the folder."""
    log = LogFile(folder.path / "log.txt")
    emit = Reporters(terminal, log)
    try:
        yield emit, log
    finally:
        emit.close()


def _start(
    recipe: Recipe, device: torch.device, folder: RunFolder, emit: Reporters, asked: Asked
) -> Pretraining:
    """Build the training, at its checkpoint where it goes on from one."""
    pretrain = _section(recipe)
    loaded, notes = Checkpoints(folder.checkpoints, pretrain.checkpoint.keep).newest_good()
    for note in notes:
        emit(Note(note, warning=True))
    if loaded is not None:
        check_same(folder.path / "recipe.yaml", recipe)
        emit(Note(f"resuming {folder.path} at step {loaded.step}"))
    else:
        emit(Note(f"run folder: {folder.path}"))
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
    folder.trim_metrics(job.state.step)
    emit.members.append(JsonLines(folder.path / "metrics.jsonl"))
    emit.members += TensorBoard.if_installed(folder.path / "tensorboard")
    _tell_start(job, emit)
    return job


def _section(recipe: Recipe) -> Pretrain:
    from maekit.engine.feed import required_pretrain

    return required_pretrain(recipe)


def _statistics(loaded: Loaded | None) -> Statistics | None:
    """Those that a resumed run began with: ``stats: auto`` is never computed twice."""
    if loaded is None:
        return None
    header = read_header(loaded.folder / "model.safetensors")
    return Statistics(header.mean, header.std)


def _tell_start(job: Pretraining, emit: Reporters) -> None:
    pretrain, split, schedule = _section(job.recipe), job.split, job.state.schedule
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    emit(Note(f"{parameters:,} parameters, {job.device} {job.precision.name}"))
    emit(Note(batch_line(job)))
    epochs = schedule.steps / job.state.steps_per_epoch
    emit(Note(f"{schedule.steps:,} steps ({epochs:.1f} epochs), {schedule.warmup:,} warm-up"))
    if split.accumulation > 1 and pretrain.compile:
        emit(Note("compiling: the first step takes long"))


def batch_line(job: Pretraining) -> str:
    """The effective batch and the learning rate, in one line."""
    split, schedule = job.split, job.state.schedule
    pretrain = _section(job.recipe)
    counted = " (counted)" if pretrain.optimizer.lr_counts_repeats else " (not in the lr)"
    repeats = f", x {pretrain.repeats} repeats{counted}" if pretrain.repeats > 1 else ""
    return (
        f"batch: {split.per_device} per device x {split.accumulation} accumulation x {split.world} "
        f"device(s) = {split.effective}{repeats}; lr = {pretrain.optimizer.base_lr:g} x "
        f"{split.effective} / 256 = {schedule.peak:.3g}"
    )


def _loop(job: Pretraining, folder: RunFolder, emit: Reporters, stop: StopSignal) -> None:
    pretrain = _section(job.recipe)
    job.open_holdout()
    checkpoints = Checkpoints(folder.checkpoints, pretrain.checkpoint.keep)
    occasions = [Occasion(pretrain.validate_.every, job.validate)]
    if job.shown is not None and can_paint(job.model):
        occasions.append(Occasion(pretrain.pictures.every, _Pictures(job, folder.path, emit)))
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


class _Pictures:
    """An occasion: draw the same held-out samples again."""

    def __init__(self, job: Pretraining, folder: Path, emit: Reporters) -> None:
        self.job = job
        self.folder = folder / "pictures"
        self.emit = emit

    def __call__(self, state: TrainState) -> None:
        if self.job.shown is None:
            return
        image = reconstructions(self.job.model, self.job.shown, self.job.precision)
        if image is None:
            return
        path = self.folder / f"step-{state.step:08d}.png"
        try:
            self.folder.mkdir(exist_ok=True)
            image.save(path)
        except OSError as error:
            msg = f"the picture could not be written: {error}"
            raise StorageError(msg, where=str(path), hint="free some space") from error
        for member in self.emit.members:
            if isinstance(member, TensorBoard):
                member.picture(image, state.step)
        self.emit(Saved(state.step, "picture", str(path)))


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
    import json

    write_text(path / "batches.json", json.dumps({"steps": steps}))
    emit(Note(f"weights, optimizer and samples of the failing steps: {path}", warning=True))


def _result(job: Pretraining | None, folder: RunFolder, code: int) -> dict[str, Any]:
    """result.json as far as the run came."""
    result: dict[str, Any] = {"verb": "pretrain", "exit": code}
    if job is None:
        return result
    state = job.state
    lines = (line for line in read_lines(folder.path / "metrics.jsonl") if "loss" in line)
    weights = folder.path / "weights.safetensors"
    return result | {
        "recipe": job.recipe.name,
        "steps": state.step,
        "samples": state.step * state.samples_per_step,
        "seconds": round(job.seconds, 1),
        **summary(lines),
        "holdout": state.extra.get("holdout"),
        "holdout_start": state.extra.get("holdout_start"),
        "bad_files": len(job.ledger),
        "weights": str(weights) if weights.is_file() and state.finished else None,
    }


def _tell_end(result: dict[str, Any], folder: RunFolder, asked: Asked, terminal: Terminal) -> None:
    """What came out, where it is, and what to type next."""
    if asked.json:
        print_json(result)
    else:
        print_table(("result", ""), list(_rows(result)))
    if terminal.quiet:
        return
    pictures = sorted((folder.path / "pictures").glob("*.png"))
    lines = [f"weights:  {result['weights']}"]
    if pictures:
        lines.append(f"pictures: {pictures[-1]}")
    lines += [
        "next:     maekit pretrain quickstart data.train.path=YOUR_PICTURES ~data.val",
        f"          python -c \"import maekit; print(maekit.load('{folder.path}'))\"",
    ]
    typer.echo("\n".join(lines), err=True)


def _rows(result: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield "steps", f"{result['steps']:,}"
    yield "minutes", f"{result['seconds'] / 60:.1f}"
    for key in ("loss_first", "loss_last"):
        value = result[key]
        yield key, "-" if value is None else f"{value:.4f}"
    for key, value in (result["holdout"] or {}).items():
        yield f"holdout {key}", "-" if value is None else f"{value:.5f}"
    if result["bad_files"]:
        yield "bad files", f"{result['bad_files']}"
