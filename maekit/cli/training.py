"""A training in a run folder: what `maekit pretrain`, `tokenizer` and later verbs share.

A verb is a ``Verb``: how its training is put together, drawn and summed up. Everything around it is
here: the folder, who listens, resuming, signals, checkpoints, result.json and the exit code.
"""

from __future__ import annotations

import json as json_format
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rich.console import Console

from maekit.atomic import write_text
from maekit.cli.exits import code_of
from maekit.cli.expected import compare
from maekit.cli.pictures import Pictures, film
from maekit.cli.reporters import Heard, JsonLines, LogFile, Reporters, TensorBoard, Terminal
from maekit.cli.result import make_result, tell_result
from maekit.cli.resume import check_same, check_verb, runs_to_resume
from maekit.engine.checkpoint import Checkpoints, Loaded, write_state
from maekit.engine.events import Emit, Note
from maekit.engine.loop import Occasion, run
from maekit.engine.run_folder import (
    RUNS,
    RunFolder,
    chosen_folder,
    new_folder,
    newest_unfinished,
    read_result,
)
from maekit.engine.stop import Interrupted, StopSignal
from maekit.engine.training import Training, pick_device, section_of
from maekit.errors import NonFiniteError, RecipeError
from maekit.recipe.dump import dump
from maekit.recipe.load import read
from maekit.registry import resolve
from maekit.weights.source import local_path

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from maekit.recipe.schema import Recipe

INTERRUPTED = 75  # resumable (EX_TEMPFAIL): schedulers take it as "run me again"
DEFAULT_MINUTES = 10.0  # between checkpoints, where the recipe does not say

Job = TypeVar("Job", bound=Training)
Made_co = TypeVar("Made_co", bound=Training, covariant=True)


class Assemble(Protocol[Made_co]):
    """Puts a training together from a resolved recipe."""

    def __call__(
        self,
        recipe: Recipe,
        device: torch.device,
        emit: Emit,
        *,
        source: str | None = None,
        loaded: Loaded | None = None,
        bad_files: Path | None = None,
    ) -> Made_co: ...


@dataclass(frozen=True)
class Painter:
    """Draws held-out samples every so many steps."""

    every: int
    draw: Callable[[], Image | None]


@dataclass(frozen=True)
class Verb(Generic[Job]):
    """What is a verb's own of a training in a run folder.

    Attributes:
        name: the command, the recipe's section, and the word in result.json.
        assemble: puts the training together.
        painter: what draws the held-out samples anew, or None where there is nothing to draw.
        sizes: what ``--dry-run --json`` tells of the model, by name.
        size_row: the same for people: a heading and a text.
        next_steps: lines for whoever has just finished a run, from its result and folder.
        source: the weights that a fresh run starts from, of those asked for; it may refuse, before
            there is a folder.
        more: what is done on the way beside what the training itself measures.
    """

    name: str
    assemble: Assemble[Job]
    painter: Callable[[Job], Painter | None]
    sizes: Callable[[Job], Mapping[str, int]]
    size_row: Callable[[Job], tuple[str, str]]
    next_steps: Callable[[Mapping[str, Any], Path], list[str]]
    source: Callable[[Recipe, str | None, Emit], str | None] = lambda _, asked, __: asked
    more: Callable[[Job], Sequence[Occasion]] = lambda _: ()


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, beside the recipe."""

    out: Path | None
    resume: bool
    overwrite: bool
    source: str | None
    json: bool
    compare: bool = False  # with what the recipe expects


def command(
    verb: Verb[Job],
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
    compare_expected: bool = False,
) -> int:
    """Train as a recipe says; returns the exit code."""
    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    loaded = read(recipe, overrides)
    resolved = resolve(loaded, verb.name)
    console = Console(stderr=True, highlight=False)
    terminal = Terminal(console, title=verb.name, quiet=quiet, verbose=verbose)
    for note in loaded.notes:
        terminal(Note(note))
    where = pick_device(device)
    resume = resume or runs_to_resume()
    with Heard(terminal).listening():
        if dry_run or not resume:
            source = verb.source(resolved, source, terminal)
        if dry_run:
            from maekit.cli.dry_run import dry_run as rehearse

            return rehearse(verb, resolved, where, terminal, source=source, json=json)
        asked = Asked(out, resume, overwrite, source, json, compare_expected)
        return train(verb, resolved, where, terminal, asked)


def train(
    verb: Verb[Job], recipe: Recipe, device: torch.device, terminal: Terminal, asked: Asked
) -> int:
    """Run in a folder, and leave result.json there whatever happens."""
    folder = RunFolder(choose_folder(verb.name, recipe, asked))
    with folder, StopSignal() as stop, _reporters(folder, terminal) as (emit, log):
        # What is refused here leaves the run as it was, its result.json included.
        loaded = _resume_point(verb.name, recipe, folder, emit)
        before = read_result(folder.path)
        if loaded is not None and before.get("exit") == 0:
            emit(Note(f"{folder.path} is finished"))
            if asked.compare or "expected" in before:  # the recipe may expect others by now
                before["expected"] = compare(recipe.expected, verb.name, before)
            tell_result(verb, before, folder, json=asked.json, quiet=terminal.quiet)
            return 0
        job: Job | None = None
        try:
            job = _start(verb, recipe, device, folder, emit, asked, loaded)
            _loop(verb, job, folder, emit, stop)
            job.export(folder.path / "weights.safetensors")
            film(folder.path, job.state.step, emit)
            result = make_result(verb.name, job, folder, 0)
            if asked.compare:
                result["expected"] = compare(recipe.expected, verb.name, result)
            folder.write_result(result)
        except BaseException as error:
            code = INTERRUPTED if isinstance(error, Interrupted) else code_of(error)
            log.write(f"exit {code}: " + "".join(traceback.format_exception(error)))
            if isinstance(error, NonFiniteError) and job is not None:
                _capture(job, folder, emit)
            if isinstance(error, Interrupted) and job is not None:
                film(folder.path, job.state.step, emit)
            folder.write_result(make_result(verb.name, job, folder, code) | {"error": str(error)})
            if not isinstance(error, Interrupted):
                raise
            emit(Note(f"{error}, saved; go on with --resume --out {folder.path}", warning=True))
            return INTERRUPTED
    tell_result(verb, result, folder, json=asked.json, quiet=terminal.quiet)
    return 0


def choose_folder(verb: str, recipe: Recipe, asked: Asked) -> Path:
    """The folder asked for, that of the run to resume, or a new one."""
    if asked.out is not None:
        _refuse_moved_weights(asked, asked.out)
        return chosen_folder(asked.out, resume=asked.resume, overwrite=asked.overwrite)
    if asked.resume:
        found = newest_unfinished(RUNS, recipe.name, verb)
        if found is not None:
            return found
    return new_folder(RUNS, recipe.name)


def _refuse_moved_weights(asked: Asked, out: Path) -> None:
    """``--overwrite`` moves the folder away, and with it weights that are to be started from."""
    if asked.overwrite and asked.source is not None:
        source = local_path(asked.source)
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


def _resume_point(verb: str, recipe: Recipe, folder: RunFolder, emit: Reporters) -> Loaded | None:
    """The checkpoint that a run goes on from, or None.

    Raises:
        RecipeError: the folder holds a run of another recipe, or of another verb.
    """
    check_verb(folder.path, verb)
    checkpoints = Checkpoints(folder.checkpoints, section_of(recipe, verb).checkpoint.keep)
    checkpoints.sweep()
    loaded, notes = checkpoints.newest_good()
    for note in notes:
        emit(Note(note, warning=True))
    if loaded is not None:
        check_same(folder.path, recipe, verb)
        emit(Note(f"resuming {folder.path} at step {loaded.step}"))
    else:
        emit(Note(f"run folder: {folder.path}"))
    return loaded


def _start(
    verb: Verb[Job],
    recipe: Recipe,
    device: torch.device,
    folder: RunFolder,
    emit: Reporters,
    asked: Asked,
    loaded: Loaded | None,
) -> Job:
    """Build the training, at its checkpoint where it goes on from one."""
    write_text(folder.path / "recipe.yaml", dump(recipe))
    folder.write_env(verb.name, str(device))
    bad_files = folder.path / "bad_files.jsonl"
    source = None if loaded is not None else asked.source
    job = verb.assemble(recipe, device, emit, source=source, loaded=loaded, bad_files=bad_files)
    job.prepare(loaded)
    folder.trim_metrics(job.state.step, job.state.visited)
    emit.members.append(JsonLines(folder.path / "metrics.jsonl"))
    emit.members += TensorBoard.if_installed(folder.path / "tensorboard", job.state.step)
    _tell_start(job, emit)
    return job


def _tell_start(job: Training, emit: Reporters) -> None:
    schedule = job.state.schedule
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    emit(Note(f"{parameters:,} parameters, {job.device} {job.precision.name}"))
    emit(Note(f"batch: {batch_line(job)}"))
    epochs = schedule.steps / job.state.steps_per_epoch
    emit(Note(f"{schedule.steps:,} steps ({epochs:.1f} epochs), {schedule.warmup:,} warm-up"))
    if job.section.compile:
        emit(Note("compiling: the first step takes long"))


def batch_line(job: Training) -> str:
    """The effective batch and the learning rate, in one line."""
    split, schedule, base_lr = job.split, job.state.schedule, job.section.optimizer.base_lr
    times, repeats = job.reader.repeats, ""
    if times > 1:
        counted = schedule.counted > split.effective
        repeats = f", x {times} repeats{' (counted)' if counted else ' (not in the lr)'}"
    return (
        f"{split.per_device} per device x {split.accumulation} accumulation x {split.world} "
        f"device(s) = {split.effective}{repeats}; lr = {base_lr:g} x "
        f"{schedule.counted} / 256 = {schedule.peak:.3g}"
    )


def _loop(verb: Verb[Job], job: Job, folder: RunFolder, emit: Reporters, stop: StopSignal) -> None:
    section = job.section
    job.open_holdout()
    checkpoints = Checkpoints(folder.checkpoints, section.checkpoint.keep)
    occasions = [*job.occasions(), *verb.more(job)]
    draw = verb.painter(job)
    if draw is not None:
        occasions.append(Occasion(draw.every, Pictures(draw.draw, folder.path, emit)))
    save = Occasion(
        section.checkpoint.steps
        or timedelta(minutes=section.checkpoint.minutes or DEFAULT_MINUTES),
        lambda _: job.save(checkpoints),
        at_start=False,
        also=job.is_best,
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


def _capture(job: Training, folder: RunFolder, emit: Reporters) -> None:
    """Keep what is needed to meet the same non-finite step again: weights, optimizer, batch."""
    path = folder.path / "nan_capture"
    path.mkdir(exist_ok=True)
    write_state(path, job.state, job.tensors(), job.described())
    first = job.state.step - int(job.state.streak)
    steps = {
        str(step): [[key.epoch, key.index] for key in job.stream.keys(step)]
        for step in range(first, job.state.step)
    }
    write_text(path / "batches.json", json_format.dumps({"steps": steps}))
    emit(Note(f"weights, optimizer and samples of the failing steps: {path}", warning=True))
