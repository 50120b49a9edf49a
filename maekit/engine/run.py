"""Run a job in a folder: the one lifecycle of everything that leaves a result.json.

The folder is chosen and locked; the run starts, or resumes from its newest good checkpoint;
result.json is written whatever happens, with the exit code of an error.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit import progress
from maekit.atomic import write_text
from maekit.engine import distributed
from maekit.engine.checkpoint import Checkpoints, write_state
from maekit.engine.events import Emit, Ended, Event, Note
from maekit.engine.expected import compare
from maekit.engine.extension import (
    WHERE,
    How,
    Pending,
    apply_extensions,
    budget_before,
    extend,
    option_words,
    read_extensions,
    record_extensions,
)
from maekit.engine.job import Job, section_of
from maekit.engine.left_out import announce_left_out
from maekit.engine.loggers import About, open_loggers, require_loggers
from maekit.engine.loop import Periodic, train
from maekit.engine.parallel import whole
from maekit.engine.replay import BATCHES, FOLDER
from maekit.engine.reporters import Dispensable, JsonLines, LogFile, Reporters
from maekit.engine.resume import (
    changed_parts,
    check_data,
    check_same,
    check_source,
    check_verb,
    newest_of,
    passed_over,
    record_data,
    record_source,
    recorded_source,
)
from maekit.engine.run_folder import (
    GONE,
    RunFolder,
    chosen_folder,
    loss_summary,
    new_folder,
    plain,
    read_lines,
)
from maekit.engine.skipped import KEY, summary
from maekit.errors import (
    INTERRUPTED,
    DataError,
    Interrupted,
    NonFiniteError,
    PartError,
    RecipeError,
    StorageError,
    WeightsError,
    code_of,
    storage_advice,
)
from maekit.origin import blamed
from maekit.recipe.dump import dump
from maekit.runs import RUNS, read_result
from maekit.stop import StopSignal
from maekit.weights.checkpoints import MODEL
from maekit.weights.locate import local_path

if TYPE_CHECKING:
    import torch

    from maekit.recipe.schema import Recipe
    from maekit.weights.checkpoints import CheckpointOnDisk

MOST_CAPTURED = 100  # steps whose samples nan_capture names
# What a run's folder holds once something was done in it.
BEGUN = ("metrics.jsonl", "checkpoints", "bad_files.jsonl", FOLDER)
DEFAULT_MINUTES = 10.0  # between checkpoints, where the recipe does not say


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run besides its recipe.

    Attributes:
        out: run folder; None: ``runs/<recipe>/<n>``, or with ``resume`` the newest unfinished run.
        resume: continue from the newest good checkpoint, if there is one.
        overwrite: move an earlier run in ``out`` away first.
        source: weights to start from, as ``--from`` takes them.
        compare: compare the result with what the recipe expects.
        signals: save and stop at SIGINT, SIGTERM, SIGUSR1 or SIGHUP (only in the main thread).
        locks: lock the folder; False: for file systems that have no locks.
        accept_data: resume though the data has changed since the run began.
        extend: the recipe has a larger budget than the run that is resumed; what the learning rate
            does then.
    """

    out: Path | None = None
    resume: bool = False
    overwrite: bool = False
    source: str | None = None
    compare: bool = False
    signals: bool = False
    locks: bool = True
    accept_data: bool = False
    extend: How | None = None


class Finished(NamedTuple):
    """The contents of result.json, and its folder."""

    result: dict[str, Any]
    folder: Path


class OpenRun(NamedTuple):
    """A locked folder, and what writes into it."""

    folder: RunFolder
    emit: Reporters
    log: Dispensable[LogFile]

    @contextmanager
    def recorded(self, failed: Callable[[BaseException, int], dict[str, Any]]) -> Iterator[None]:
        """Write any error into the log and into result.json, and let it pass.

        Args:
            failed: returns result.json as far as the run came, of an error and its exit code.
        """
        try:
            yield
        except BaseException as error:
            known = (
                self._own_storage_error(error)
                or distributed.lost_rank(error)
                or blamed(error)
                or error
            )
            code = code_of(known)
            what = "".join(traceback.format_exception(error))
            if isinstance(error, (Interrupted, KeyboardInterrupt)):  # as was asked for
                what = str(error) or "stopped at once"
            text = f"exit {code}: {what}"
            self.log.use(lambda log: log.write(text))
            result = failed(known, code) | {"error": str(known)}
            try:
                self.folder.write_result(result)
            except OSError as also:
                self.emit(Note(f"result.json cannot be written: {also}", warning=True))
            self.emit(Ended(result))
            if known is error:
                raise
            raise known from error

    def _own_storage_error(self, error: BaseException) -> StorageError | None:
        """Return what a failing file of this very folder means, in our own words."""
        if not isinstance(error, OSError) or error.filename is None:
            return None
        path = Path(os.fsdecode(error.filename)).absolute()
        if not path.is_relative_to(self.folder.path.absolute()):
            return None
        what, hint = str(error.strerror or error), f"{storage_advice(error)}; then --resume"
        if not self.folder.path.is_dir():
            what, hint = GONE, "start anew"
        return StorageError(what, where=str(path), hint=hint)

    def describe(self, recipe: Recipe, verb: str, device: torch.device) -> None:
        """Write recipe.yaml and env.json."""
        write_text(self.folder.path / "recipe.yaml", dump(recipe))
        for change in self.folder.write_env(verb, str(device), recipe.plugins):
            self.emit(Note(change, warning=True))


@contextmanager
def open_run(path: Path, listener: Emit, *, locks: bool = True) -> Iterator[OpenRun]:
    """Make and lock a run folder, and open its log.

    Raises:
        StorageError: another process holds it, or it cannot be written.
    """
    if not distributed.is_first():
        # Rank 0 speaks and writes for all.
        unheard = Dispensable(lambda: LogFile(Path(os.devnull)), os.devnull, _silent)
        yield OpenRun(RunFolder(path, writes=False), Reporters(_silent), unheard)
        return
    with RunFolder(path, locks=locks) as folder:
        log = Dispensable(lambda: LogFile(path / "log.txt"), str(path / "log.txt"), listener)
        emit = Reporters(listener, log)
        try:
            with progress.listening(emit):
                yield OpenRun(folder, emit, log)
        finally:
            emit.close()


def _silent(event: Event) -> None:
    """Take an event of which rank 0 speaks."""


def choose_folder(verb: str, recipe: Recipe, options: RunOptions, listener: Emit = _silent) -> Path:
    """Return the requested folder, that of the run to resume, or a new one.

    Args:
        verb: the command.
        recipe: resolved for the verb.
        options: of the run.
        listener: is told of an interrupted run that the recipe is near to, but not that of.
    """
    if options.out is not None:
        _refuse_moved_weights(options, options.out)
        return chosen_folder(
            options.out,
            resume=options.resume,
            overwrite=options.overwrite,
            locks=options.locks,
        )
    if options.resume:  # a scheduler starts a job again by the same words
        extended = options.extend is not None
        found = newest_of(recipe, verb, options.source, extended=extended)
        if found is not None:
            return found
        if extended:
            msg = f"no run of this recipe is below {RUNS / recipe.name}"
            raise RecipeError(msg, where=WHERE, hint="name it by --out RUN")
        other = passed_over(recipe, verb, options.source)
        if other is not None:
            run, refusal = other
            how = resume_command(verb, run, options)
            listener(Note(f"{run} is not resumed: {refusal}; to go on with it: {how}"))
    return new_folder(RUNS, recipe.name)


def _refuse_moved_weights(options: RunOptions, out: Path) -> None:
    """Refuse to start from weights in a folder that ``--overwrite`` is about to move away."""
    if options.overwrite and options.source is not None:
        source = local_path(options.source)
        if source is not None and source.resolve().is_relative_to(out.resolve()):
            msg = f"--from {options.source} is in the folder that --overwrite moves away"
            raise RecipeError(msg, where=f"--out {out}", hint="give another --out")


def run_in_folder(
    kind: type[Job], recipe: Recipe, device: torch.device, options: RunOptions, listener: Emit
) -> Finished:
    """Train a job in a folder, from its start or its newest checkpoint to its exported weights.

    Args:
        kind: the verb's job.
        recipe: resolved for the verb.
        device: where to train.
        options: folder, weights to start from, and so on.
        listener: called with every event.

    Returns:
        result.json and its folder. Where a signal stopped the run its ``exit`` is 75.

    Raises:
        MaekitError: what is wrong; result.json holds it too, unless the run was refused before it
            began.
    """
    verb = kind.verb
    distributed.on_first(lambda: require_loggers(recipe))  # which alone writes to them
    path = distributed.on_first(lambda: choose_folder(verb, recipe, options, listener))
    with (
        StopSignal(signals=options.signals) as stop,
        no_trace_of_a_failed_start(path, options),
        open_run(path, listener, locks=options.locks) as run,
    ):
        # What is refused here leaves the run as it was, its result.json included.
        checkpoints = Checkpoints(
            run.folder.checkpoints, section_of(recipe, verb).checkpoint.keep, run.emit
        )
        checkpoint, before, pending = distributed.on_first(
            lambda: _resume_point(verb, recipe, run, checkpoints, options)
        )
        if checkpoint is not None and pending is None and _is_finished(before, verb):
            run.emit(Note(f"{path} is finished"))
            if options.compare or "expected" in before:  # the recipe may expect others by now
                before["expected"] = compare(recipe.expected, verb, before)
            return Finished(before, path)
        job: Job | None = None
        result: dict[str, Any] = {}

        def failed(error: BaseException, code: int) -> dict[str, Any]:
            nonlocal result
            if isinstance(error, NonFiniteError) and job is not None:
                _capture(job, run)
                run.emit(Note(_way_back(job, checkpoints), warning=True))
            if isinstance(error, Interrupted) and job is not None and distributed.is_first():
                job.finish_pictures(path)
            result = make_result(verb, job, run.folder, code) | {"error": str(error)}
            return result

        try:
            # A run that is to be extended keeps its recipe and result until it goes on.
            with run.recorded(failed) if pending is None else nullcontext():
                job = _build(
                    kind, recipe, device, run, options, checkpoint, described=pending is None
                )
                extensions = distributed.on_first(lambda: read_extensions(path))
                if pending is None:
                    apply_extensions(job, extensions)
                else:
                    extensions = extend(job, pending, extensions)
            # A refusal leaves a resumed run as it was here, too.
            sets, resumed = {"data.train": job.train, "data.val": job.val}, checkpoint is not None
            data = distributed.on_first(
                lambda: check_data(
                    path, sets, resumed=resumed, accept=options.accept_data, emit=run.emit
                )
            )

            def record() -> None:
                if pending is not None:
                    record_extensions(path, extensions, pending.at)
                    run.describe(recipe, verb, device)
                record_data(path, data)

            with run.recorded(failed):
                distributed.on_first(record)
                _begin(job, run, checkpoint)
                _train(job, run, checkpoints, stop)
                with whole(job.model, *job.state.averages):
                    result = _finish(job, run, compared=options.compare)
        except Interrupted as error:
            # Where nothing was recorded the run is as it was before it was resumed.
            words = () if result or pending is None else option_words(recipe, verb, pending.how)
            how = resume_command(verb, path, options, words)
            result = result or {"verb": verb, "exit": INTERRUPTED, "error": str(error)}
            run.emit(Note(f"{error}; continue with {how}", warning=True))
    return Finished(result, path)


@contextmanager
def no_trace_of_a_failed_start(
    path: Path, options: RunOptions, kept: Sequence[str] = ()
) -> Iterator[None]:
    """Remove a numbered folder made for a run that was refused before it did anything.

    A wrong path is said on the terminal; it needs no number, nor a folder without a run. What was
    named by ``--out``, or holds anything of a training, stays.

    Args:
        path: the run's folder.
        options: of the run.
        kept: patterns of further names below it that hold what was computed.
    """
    fresh = distributed.is_first() and options.out is None and not any(path.iterdir())
    try:
        yield
    except (RecipeError, PartError, WeightsError, DataError):
        if fresh and not any(any(path.glob(name)) for name in (*BEGUN, *kept)):
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.parent.rmdir()  # unless it holds others
        raise


def resume_command(verb: str, path: Path, options: RunOptions, more: Sequence[str] = ()) -> str:
    """Return what to type to go on with a run: its own recipe has all overrides."""
    words = ["maekit", verb, str(path / "recipe.yaml"), "--resume", "--out", str(path), *more]
    return shlex.join([*words, *([] if options.locks else ["--no-lock"])])


def _is_finished(result: dict[str, Any], verb: str) -> bool:
    """Return whether a result.json is that of a run that ended well, and whole."""
    return (result.get("exit"), result.get("verb")) == (0, verb) and isinstance(
        result.get("steps"), int
    )


def _resume_point(
    verb: str, recipe: Recipe, run: OpenRun, checkpoints: Checkpoints, options: RunOptions
) -> tuple[CheckpointOnDisk | None, dict[str, Any], Pending | None]:
    """Return the checkpoint that a run continues from, its result.json, and how it is extended.

    Raises:
        RecipeError: the folder holds a run of another recipe, of another verb, or from other
            weights; or there is nothing to extend.
        WeightsError: all of its checkpoints are damaged, or one has another maekit's format.
        StorageError: a checkpoint cannot be read now.
    """
    folder = run.folder
    check_verb(folder.path, verb)
    checkpoint, extended = checkpoints.open(), options.extend is not None
    if extended and checkpoint is None:
        msg = "there is no checkpoint here to go on from"
        raise RecipeError(msg, where=str(folder.path), hint="start the longer run without --extend")
    if checkpoint is not None or (folder.path / "recipe.yaml").is_file():
        check_same(folder.path, recipe, verb, extended=extended)
        check_source(folder.path, options.source)
        for line in changed_parts(folder.path, recipe):
            run.emit(Note(line, warning=True))
    if checkpoint is not None:
        run.emit(Note(f"resuming {folder.path} at step {checkpoint.step}"))
    else:
        run.emit(Note(f"run folder: {folder.path}"))
    pending: Pending | None = None
    if checkpoint is not None and options.extend is not None:
        budget = budget_before(folder.path, recipe, verb)
        pending = None if budget is None else Pending(budget, checkpoint.step, options.extend)
        made = read_extensions(folder.path)
        if pending is None and made and made[-1].how != options.extend:
            text = f"it was extended as {made[-1].how} before, and goes on so"
            run.emit(Note(f"--extend-as {options.extend} changes nothing: {text}", warning=True))
    return checkpoint, read_result(folder.path), pending


def _build(
    kind: type[Job],
    recipe: Recipe,
    device: torch.device,
    run: OpenRun,
    options: RunOptions,
    checkpoint: CheckpointOnDisk | None,
    *,
    described: bool,
) -> Job:
    """Describe the run in its folder, unless that is done later, and build its job."""
    folder, emit = run.folder, run.emit

    def describe() -> str | None:
        if described:
            run.describe(recipe, kind.verb, device)
        if checkpoint is not None:
            return None
        source = options.source or recorded_source(folder.path)
        source = kind.find_source(recipe, source, emit)
        record_source(folder.path, source)
        return source

    source = distributed.on_first(describe)
    return kind(
        recipe,
        device,
        emit,
        source=source,
        checkpoint=checkpoint,
        bad_files_path=folder.path / "bad_files.jsonl",
    )


def _begin(job: Job, run: OpenRun, checkpoint: CheckpointOnDisk | None) -> None:
    """Bring the job to where it starts or resumes, and open what its numbers go to."""
    folder, emit = run.folder, run.emit
    job.prepare(checkpoint)
    if distributed.is_first():
        for note in folder.trim_metrics(job.state.step, job.state.last_evaluated):
            emit(Note(note, warning=True))
        emit.members.append(JsonLines(folder.path / "metrics.jsonl"))
        emit.members += open_loggers(About(folder.path, job.state.step, job.verb, job.recipe, emit))
    _announce_start(job)


def _announce_start(job: Job) -> None:
    schedule, emit = job.state.schedule, job.emit
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    emit(Note(f"{parameters:,} parameters, {job.device} {job.precision.name}"))
    emit(Note(f"batch: {job.batch_line()}"))
    epochs = schedule.steps / job.state.steps_per_epoch
    emit(Note(f"{schedule.steps:,} steps ({epochs:.1f} epochs), {schedule.warmup:,} warm-up"))
    if job.state.sharding is not None and distributed.size() == 1:
        emit(Note("sharding: fsdp: there is one device, which has all parameters"))
    if job.section.compiles(job.device.type):
        emit(Note("compiling: the first step takes long"))


def _train(job: Job, run: OpenRun, checkpoints: Checkpoints, stop: StopSignal) -> None:
    section = job.section
    job.open_holdout()
    save = Periodic(
        section.checkpoint.steps
        or timedelta(minutes=section.checkpoint.minutes or DEFAULT_MINUTES),
        lambda _: job.save(checkpoints),
        at_start=False,
        or_when=job.is_best,
    )
    callbacks = [*job.measures(), *job.pictures(run.folder.path)]
    job.model.train()
    with job.batches() as batches:
        train(
            job.state,
            job.step,
            callbacks,
            batches=iter(batches),
            save=save,
            emit=run.emit,
            stop=stop,
            name_samples=job.nonfinite_samples,
        )


def _finish(job: Job, run: OpenRun, *, compared: bool) -> dict[str, Any]:
    """Write what a finished training leaves; return the contents of result.json."""
    path = run.folder.path
    job.export(path / "weights.safetensors")
    if distributed.is_first():
        job.finish_pictures(path)
    for key, counts in job.left_out.items():
        announce_left_out(key, counts, run.emit)
    result = make_result(job.verb, job, run.folder, 0)
    for doubt in result["doubts"]:
        run.emit(Note(doubt, warning=True))
    if compared:
        result["expected"] = compare(job.recipe.expected, job.verb, result)
    run.folder.write_result(result)
    run.emit(Ended(result))
    return result


def make_result(verb: str, job: Job | None, folder: RunFolder, code: int) -> dict[str, Any]:
    """Return result.json as far as the run came."""
    result: dict[str, Any] = {"verb": verb, "exit": code}
    if job is None:
        return result
    state = job.state
    lines = (line for line in read_lines(folder.path / "metrics.jsonl") if "loss" in line)
    weights = folder.path / "weights.safetensors"
    losses = loss_summary(lines)
    film = folder.path / "pictures" / "timelapse.gif"
    whole: dict[str, Any] = plain(
        result
        | {
            "recipe": job.recipe.name,
            "steps": state.step,
            "samples": state.step * state.samples_per_step,
            "seconds": round(job.seconds, 1),
            **losses,
            "doubts": [*_rising(losses), *job.doubts()] if code == 0 else [],
            **summary(state),
            **job.result(),
            "bad_files": len(job.bad_files),
            "left_out": job.left_out,
            "weights": str(weights) if code == 0 and weights.is_file() else None,
            "timelapse": str(film) if film.is_file() else None,
        }
    )
    return whole


def _rising(losses: Mapping[str, float | None]) -> list[str]:
    first, last = losses["loss_first"], losses["loss_last"]
    if first is None or last is None or last <= first:
        return []
    return [f"the loss ended above its start: {last:.4g} after {first:.4g}; is the rate too high?"]


def _way_back(job: Job, checkpoints: Checkpoints) -> str:
    """Say what is left from before a training diverged."""
    kept = checkpoints.from_before(job.state.step - int(job.state.nonfinite_streak))
    if not kept:
        return "no checkpoint is from before the updates that were not finite: start anew"
    weights = kept[0] / MODEL
    return f"a checkpoint from before is kept: --from {weights} starts a new run from it"


def _capture(job: Job, run: OpenRun) -> None:
    """Keep what is needed to meet the same non-finite step again: weights, optimizer, batch."""
    tensors, moments = job.gathered()
    if not distributed.is_first():
        return
    path = run.folder.path / FOLDER
    recent = job.state.extra.get(KEY, {}).get("recent", [])  # none, where a measurement failed
    steps = {
        str(step - 1): [[key.epoch, key.index] for key in job.stream.keys(step - 1)]
        for step in recent[-MOST_CAPTURED:]
    }
    try:
        path.mkdir(exist_ok=True)
        write_state(path, job.state, tensors, job.described(), moments)
        write_text(path / BATCHES, json.dumps({"steps": steps}))
    except OSError as error:
        run.emit(Note(f"{path} cannot be written: {error}", warning=True))
        return
    run.emit(Note(f"weights, optimizer and samples of the failing steps: {path}", warning=True))
