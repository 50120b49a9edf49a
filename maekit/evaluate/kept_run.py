"""Run in a folder what keeps arrays on disk until its result is written, and can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit.engine import distributed
from maekit.engine.events import Emit, Note
from maekit.engine.resume import check_same, check_source, check_verb
from maekit.engine.run import (
    Finished,
    OpenRun,
    RunOptions,
    choose_folder,
    no_trace_of_a_failed_start,
    open_run,
)
from maekit.engine.run_folder import plain
from maekit.errors import INTERRUPTED, Interrupted
from maekit.evaluate.feature_cache import SHARDS, remove_kept
from maekit.runs import read_result
from maekit.stop import StopSignal

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.recipe.schema import Recipe


class Judging(NamedTuple):
    """What a verb does in such a run.

    Attributes:
        verb: the command.
        kept: the folder below the run's, until its result is written.
        what: what is kept there, for people.
        judge: does the work in an opened run, and returns its part of result.json.
        compare: compares a result with what the recipe expects.
        again: what to type to go on in a run's folder.
    """

    verb: str
    kept: str
    what: str
    judge: Callable[[OpenRun], Mapping[str, Any]]
    compare: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    again: Callable[[Path], str]


def run_kept(judging: Judging, recipe: Recipe, options: RunOptions, listener: Emit) -> Finished:
    """Run it, or go on where it was interrupted.

    Args, returned value and errors are those of ``maekit.engine.run.run_in_folder``.
    """
    verb, kept = judging.verb, judging.kept
    path = distributed.on_first(lambda: choose_folder(verb, recipe, options))

    def compared(result: dict[str, Any]) -> dict[str, Any]:
        return result | {"expected": judging.compare(result)} if options.compare else result

    with (
        StopSignal(signals=options.signals),
        no_trace_of_a_failed_start(path, options, (f"{kept}/**/{SHARDS}",)),
        open_run(path, listener, locks=options.locks) as run,
    ):
        # What is refused here leaves the run as it was, its result.json included.
        before = distributed.on_first(
            lambda: refuse_other(verb, path, recipe, options.source, kept)
        )
        if before.get("exit") == 0:
            run.emit(Note(f"{path} is finished"))
            if (path / kept).is_dir():  # killed right after its result was written
                distributed.on_first(lambda: remove_kept(path / kept, run.emit))
            return Finished(compared(before), path)
        begun, began = begun_result(verb, recipe), time.perf_counter()
        try:
            with run.recorded(lambda _, code: begun | {"exit": code}):
                run.emit(Note(f"run folder: {path}"))
                made: dict[str, Any] = plain(begun | dict(judging.judge(run)))
                made["seconds"] = round(time.perf_counter() - began, 1)
                result = compared(made)
                run.folder.write_result(result)
                distributed.on_first(lambda: remove_kept(path / kept, run.emit))
                return Finished(result, path)
        except Interrupted:
            text = f"interrupted, {judging.what} are kept; continue with {judging.again(path)}"
            run.emit(Note(text, warning=True))
            return Finished(begun | {"exit": INTERRUPTED}, path)


def refuse_other(
    verb: str, path: Path, recipe: Recipe, source: str | None, kept: str
) -> dict[str, Any]:
    """Return the result.json of a run that is resumed, if there is one.

    Raises:
        RecipeError: the folder holds a run of another verb, or what is kept there was made with
            another recipe or from other weights.
    """
    check_verb(path, verb)
    before = read_result(path)
    made = ("recipe.yaml", kept, "checkpoints")
    if before.get("exit") == 0 or any((path / name).exists() for name in made):
        check_same(path, recipe, verb)
        check_source(path, source)
    return before


def begun_result(verb: str, recipe: Recipe) -> dict[str, Any]:
    """Return what result.json begins with."""
    return {"verb": verb, "exit": 0, "recipe": recipe.name}
