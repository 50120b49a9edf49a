"""``maekit probe``: frozen features judged in a run folder, beside their floor."""

from __future__ import annotations

import shutil
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from maekit.atomic import write_text
from maekit.cli.dry_run import dry_run as dry_run_training
from maekit.cli.dry_run import size
from maekit.cli.exits import code_of
from maekit.cli.expected import compare, tell_comparison
from maekit.cli.output import print_json, print_table
from maekit.cli.reporters import Heard, LogFile, Reporters, Terminal, duration
from maekit.cli.resume import check_same, check_verb, runs_to_resume
from maekit.cli.training import INTERRUPTED, Asked, Verb, choose_folder, train
from maekit.engine.events import Note
from maekit.engine.run_folder import (
    PREDICTIONS,
    RUNS,
    RunFolder,
    newest_unfinished,
    plain,
    read_result,
)
from maekit.engine.stop import StopSignal
from maekit.engine.training import pick_device
from maekit.evaluate.assemble_probe import assemble_probe, required_probe
from maekit.evaluate.encoder import weights_or_newest
from maekit.evaluate.feature_cache import Reading, collect, counted, source_of
from maekit.evaluate.linear_paper import LinearProbing, assemble
from maekit.evaluate.predictions import TOP
from maekit.evaluate.probe import DIFFERENCES, MODEL, PIXELS, RANDOM, VAL
from maekit.recipe.dump import dump
from maekit.recipe.load import read
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from maekit.recipe.schema import Recipe

VERB = "probe"
KEPT = "features"  # folder below the run's, until its result is written
_NAMES = {
    MODEL: "model",
    RANDOM: "random initialization",
    PIXELS: "raw pixels",
    DIFFERENCES: "raw differences of frames",
}


def probe(
    recipe: str,
    overrides: list[str],
    *,
    kind: str | None,
    source: str | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    compare_expected: bool,
    seed: int | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Judge features as a recipe says; returns the exit code."""
    given = {"seed": seed, "probe.kind": kind}
    overrides += [f"{key}={value}" for key, value in given.items() if value is not None]
    loaded = read(recipe, overrides)
    resolved = resolve(loaded, VERB)
    terminal = Terminal(Console(stderr=True, highlight=False), quiet=quiet, verbose=verbose)
    for note in loaded.notes:
        terminal(Note(note))
    where = pick_device(device)
    with Heard(terminal).listening():
        options, _ = required_probe(resolved)
        resume = resume or runs_to_resume()
        if dry_run or not resume:
            source = weights_or_newest(resolved, source, terminal)
        asked = Asked(out, resume, overwrite, source, json, compare_expected)
        if resume and not dry_run:
            going_on = out or newest_unfinished(RUNS, resolved.name, VERB)
            if going_on is not None:
                refuse_other(going_on, resolved)
        if options.kind == "linear" and options.protocol == "paper":
            if dry_run:
                return dry_run_training(PAPER, resolved, where, terminal, source=source, json=json)
            return train(PAPER, resolved, where, terminal, asked)
        if dry_run:
            return _rehearse(resolved, str(source), where, terminal, json=json)
        return _run(resolved, where, terminal, asked)


def _run(recipe: Recipe, device: torch.device, terminal: Terminal, asked: Asked) -> int:
    """Judge in a folder, and leave result.json there whatever happens.

    Features are kept in the folder until the result is written: what was computed before an
    interruption is not computed again. Judges are fitted anew.
    """
    path = choose_folder(VERB, recipe, asked)
    with RunFolder(path) as folder:
        log = LogFile(path / "log.txt")
        emit = Reporters(terminal, log)
        try:
            # What is refused here leaves the run as it was, its result.json included.
            before = refuse_other(path, recipe)
            if before.get("exit") == 0:
                emit(Note(f"{path} is finished"))
                if (path / KEPT).is_dir():  # killed right after its result was written
                    shutil.rmtree(path / KEPT)
                result: dict[str, Any] | None = _compared(before, recipe, asked)
            else:
                result = _judged(recipe, device, folder, emit, log, asked)
        finally:
            emit.close()
    if result is None:
        return INTERRUPTED
    _tell(result, asked, path, quiet=terminal.quiet)
    return 0


def refuse_other(path: Path, recipe: Recipe) -> dict[str, Any]:
    """The result.json of a run that is resumed, if there is one.

    Raises:
        RecipeError: the folder holds a run of another verb, or what is kept there of a probe was
            made with another recipe.
    """
    check_verb(path, VERB)
    before = read_result(path)
    if before.get("exit") == 0 or any((path / name).is_dir() for name in (KEPT, "checkpoints")):
        check_same(path, recipe, VERB)
    return before


def _judged(
    recipe: Recipe,
    device: torch.device,
    folder: RunFolder,
    emit: Reporters,
    log: LogFile,
    asked: Asked,
) -> dict[str, Any] | None:
    """result.json, as it was written; None where a signal asked to stop."""
    path, began = folder.path, time.perf_counter()
    kept = path / KEPT
    try:
        emit(Note(f"run folder: {path}"))
        source = weights_or_newest(recipe, asked.source or source_of(kept / VAL), emit)
        write_text(path / "recipe.yaml", dump(recipe))
        folder.write_env(VERB, str(device))
        bad_files = path / "bad_files.jsonl"
        job = assemble_probe(recipe, source, device, emit, bad_files=bad_files)
        with StopSignal() as stop:
            whole = job.make_features(kept, lambda: stop.requested is None)
        if not whole:
            text = "interrupted, features are kept"
            folder.write_result(_begun(recipe) | {"exit": INTERRUPTED, "error": text})
            emit(Note(f"{text}; go on with --resume --out {path}", warning=True))
            return None
        judged = job.judge_kept(kept)
        judged[MODEL].predictions.write(path / PREDICTIONS)
        more = {
            "bad_files": len(job.ledger),
            "weights": source,
            "predictions": str(path / PREDICTIONS),
            "seconds": round(time.perf_counter() - began, 1),
        }
        made: dict[str, Any] = plain(_begun(recipe) | job.result(judged) | more)
        result = _compared(made, recipe, asked)
        folder.write_result(result)
        shutil.rmtree(kept)
    except BaseException as error:
        code = code_of(error)
        log.write(f"exit {code}: " + "".join(traceback.format_exception(error)))
        folder.write_result(_begun(recipe) | {"exit": code, "error": str(error)})
        raise
    return result


def _compared(result: dict[str, Any], recipe: Recipe, asked: Asked) -> dict[str, Any]:
    """The result, with what its recipe expects beside it where that is asked for."""
    if not asked.compare:
        return result
    return result | {"expected": compare(recipe.expected, VERB, result)}


def _begun(recipe: Recipe) -> dict[str, Any]:
    return {"verb": VERB, "exit": 0, "recipe": recipe.name}


def _tell(result: Mapping[str, Any], asked: Asked, folder: Path, *, quiet: bool) -> None:
    """The numbers on stdout; on stderr where things are."""
    if asked.json:
        print_json(result)
    else:
        print_table((result["protocol"], "top-1", f"top-{TOP}"), list(_rows(result)))
        if asked.compare:
            tell_comparison(result["expected"])
    if not quiet:
        typer.echo(f"predictions: {result['predictions']}\nresult:      {folder}", err=True)


def _rows(result: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    rows = [(_NAMES[MODEL], f"{result['top1']:.4f}", f"{result['top5']:.4f}")]
    if result["settings"]["views"] != "1x1":
        rows[0] = (f"{_NAMES[MODEL]}, {result['settings']['views']} views", *rows[0][1:])
        one = result["single_view"]
        rows.append(("one view", f"{one['top1']:.4f}", f"{one['top5']:.4f}"))
    rows += [
        (
            f"floor: {_NAMES[name]}",
            f"{result['floor'][name]:.4f}",
            f"{result['floor_top5'][name]:.4f}",
        )
        for name in result["floor"]
    ]
    return [*rows, ("chance", f"{result['chance']:.4f}", "")]


def _rehearse(
    recipe: Recipe, source: str, device: torch.device, terminal: Terminal, *, json: bool
) -> int:
    """Build everything, make features of a few samples, and print what all would take."""
    job = assemble_probe(recipe, source, device, terminal)
    reader, val_reader = job.readers()
    count = min(len(job.train), job.at_once)
    began = time.perf_counter()
    here = Reading(device, count, 0, 0.0)
    made = collect(reader, job.ways, range(count), here, counted(job.ledger))
    each = sum(features.nbytes for features in made.features.values()) / max(1, len(made.rows))
    views = len(job.train) + len(job.val) * val_reader.repeats
    costs = {
        **_begun(recipe),
        "protocol": job.protocol,
        "parameters": sum(each.numel() for each in job.encoder.parameters()),
        "classes": len(job.labeled.classes),
        "views": views,
        "seconds": round((time.perf_counter() - began) / count * views, 1),
        "memory_bytes": int(each * views),
        "weights": source,
    }
    if json:
        print_json(costs)
        return 0
    rows = [
        ("protocol", job.protocol),
        ("parameters", f"{costs['parameters']:,} of the encoder"),
        ("views", f"{views:,} of {len(job.train) + len(job.val):,} samples"),
        ("memory", f"{size(each * views)} for features, and as much on disk until the end"),
        ("time", f"about {duration(float(costs['seconds']))} for features on this {device.type}"),
    ]
    print_table(("dry run", ""), rows)
    return 0


def _sizes(job: LinearProbing) -> dict[str, int]:
    tokens, classes = job.probing.encoder.grid.tokens, len(job.probing.labeled.classes)
    return {"tokens": tokens, "classes": classes}


def _size_row(job: LinearProbing) -> tuple[str, str]:
    sizes = _sizes(job)
    return "tokens", f"{sizes['tokens']} of a frozen encoder; {sizes['classes']} classes"


def _next_steps(result: Mapping[str, Any], folder: Path) -> list[str]:  # noqa: ARG001
    return [f"scores:   {folder / PREDICTIONS}"]


PAPER = Verb(VERB, assemble, lambda _: None, _sizes, _size_row, _next_steps)
