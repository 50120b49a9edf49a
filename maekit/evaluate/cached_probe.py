"""Run a probe of cached features in a folder.

Features are kept in the folder until the result is written: what was computed before an
interruption is not computed again. Probe heads are fitted anew.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from maekit.engine.events import Emit, Note
from maekit.engine.expected import compare
from maekit.engine.left_out import announce_set, left_out_of
from maekit.engine.resume import check_same, check_source, check_verb, record_source
from maekit.engine.run import Finished, OpenRun, RunOptions, choose_folder, open_run
from maekit.engine.run_folder import PREDICTIONS, plain
from maekit.errors import INTERRUPTED, Interrupted
from maekit.evaluate.encoder import weights_or_newest
from maekit.evaluate.feature_cache import source_of
from maekit.evaluate.probe import MODEL, TRAIN, VAL, assemble_probe
from maekit.runs import read_result
from maekit.stop import StopSignal

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from maekit.recipe.schema import Recipe

VERB = "probe"
KEPT = "features"  # folder below the run's, until its result is written


def run_cached_probe(
    recipe: Recipe, device: torch.device, options: RunOptions, listener: Emit
) -> Finished:
    """Make features, fit heads on them and judge data.val, in a folder.

    Args, returned value and errors are those of ``maekit.engine.run.run_in_folder``.
    """
    path = choose_folder(VERB, recipe, options)
    with (
        StopSignal(signals=options.signals),
        open_run(path, listener, locks=options.locks) as run,
    ):
        # What is refused here leaves the run as it was, its result.json included.
        before = refuse_other(path, recipe, options.source)
        if before.get("exit") == 0:
            run.emit(Note(f"{path} is finished"))
            if (path / KEPT).is_dir():  # killed right after its result was written
                shutil.rmtree(path / KEPT)
            return Finished(_compared(before, recipe, options), path)
        begun = begun_result(recipe)
        try:
            with run.recorded(lambda _, code: begun | {"exit": code}):
                return Finished(_judged(recipe, device, run, options), path)
        except Interrupted:
            text = f"interrupted, features are kept; continue with --resume --out {path}"
            run.emit(Note(text, warning=True))
            return Finished(begun | {"exit": INTERRUPTED}, path)


def refuse_other(path: Path, recipe: Recipe, source: str | None) -> dict[str, Any]:
    """Return the result.json of a run that is resumed, if there is one.

    Raises:
        RecipeError: the folder holds a run of another verb, or what is kept there of a probe was
            made with another recipe or from other weights.
    """
    check_verb(path, VERB)
    before = read_result(path)
    if before.get("exit") == 0 or any((path / name).is_dir() for name in (KEPT, "checkpoints")):
        check_same(path, recipe, VERB)
        check_source(path, source)
    return before


def _judged(
    recipe: Recipe, device: torch.device, run: OpenRun, options: RunOptions
) -> dict[str, Any]:
    """Judge, and return result.json as it was written."""
    path, emit, began = run.folder.path, run.emit, time.perf_counter()
    kept = path / KEPT
    emit(Note(f"run folder: {path}"))
    source = weights_or_newest(recipe, options.source or source_of(kept / VAL), emit)
    run.describe(recipe, VERB, device)
    record_source(path, source)
    listed = path / "bad_files.jsonl"
    setup = assemble_probe(recipe, source, device, emit, bad_files_path=listed)
    sets = {TRAIN: setup.train, VAL: setup.val}
    for key, dataset in sets.items():
        announce_set(dataset, key, emit)
    setup.make_features(kept)
    judged = setup.evaluate_cached(kept)
    judged[MODEL].predictions.write(path / PREDICTIONS)
    more = {
        "bad_files": len(setup.bad_files),
        "left_out": left_out_of(sets, {}),
        "weights": source,
        "predictions": str(path / PREDICTIONS),
        "seconds": round(time.perf_counter() - began, 1),
    }
    made: dict[str, Any] = plain(begun_result(recipe) | setup.result(judged) | more)
    result = _compared(made, recipe, options)
    run.folder.write_result(result)
    shutil.rmtree(kept)
    return result


def _compared(result: dict[str, Any], recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Return the result, with what its recipe expects where that is requested."""
    if not options.compare:
        return result
    return result | {"expected": compare(recipe.expected, VERB, result)}


def begun_result(recipe: Recipe) -> dict[str, Any]:
    """Return what result.json begins with."""
    return {"verb": VERB, "exit": 0, "recipe": recipe.name}
