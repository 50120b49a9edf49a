"""Run a probe of cached features in a folder.

Features are kept in the folder until the result is written: what was computed before an
interruption is not computed again. Probe heads are fitted anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maekit.engine import distributed
from maekit.engine.expected import compare
from maekit.engine.left_out import announce_overlap, announce_set, left_out_of
from maekit.engine.resume import record_source
from maekit.engine.run import resume_command
from maekit.engine.run_folder import PREDICTIONS
from maekit.evaluate.classifier import linear_head
from maekit.evaluate.encoder import weights_or_newest
from maekit.evaluate.feature_cache import source_of
from maekit.evaluate.kept_run import Judging, run_kept
from maekit.evaluate.probe import MODEL, TRAIN, VAL, ProbeResult, ProbeSetup, assemble_probe
from maekit.weights.locate import FINAL

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from maekit.engine.events import Emit
    from maekit.engine.run import Finished, OpenRun, RunOptions
    from maekit.recipe.schema import Recipe

VERB = "probe"
KEPT = "features"  # folder below the run's, until its result is written


def run_cached_probe(
    recipe: Recipe, device: torch.device, options: RunOptions, listener: Emit
) -> Finished:
    """Make features, fit heads on them and judge data.val, in a folder.

    Args, returned value and errors are those of ``maekit.engine.run.run_in_folder``.
    """
    judging = Judging(
        VERB,
        KEPT,
        "features",
        lambda run: _judged(recipe, device, run, options),
        lambda result: compare(recipe.expected, VERB, result),
        lambda path: resume_command(VERB, path, options),
    )
    return run_kept(judging, recipe, options, listener)


def _judged(
    recipe: Recipe, device: torch.device, run: OpenRun, options: RunOptions
) -> dict[str, Any]:
    path, emit = run.folder.path, run.emit
    kept = path / KEPT

    def begin() -> str:
        source = weights_or_newest(recipe, options.source or source_of(kept / VAL), emit)
        run.describe(recipe, VERB, device)
        record_source(path, source)
        return source

    source = distributed.on_first(begin)
    listed = path / "bad_files.jsonl"
    setup = assemble_probe(recipe, source, device, emit, bad_files_path=listed)
    sets = {TRAIN: setup.train, VAL: setup.val}
    for key, dataset in sets.items():
        announce_set(dataset, key, emit)
    shared = announce_overlap(setup.train, setup.val, emit)
    setup.make_features(kept)

    def judge() -> dict[str, Any]:
        judged = setup.evaluate_cached(kept)
        judged[MODEL].predictions.write(path / PREDICTIONS)
        _leave_classifier(setup, judged[MODEL], path / FINAL)
        more = {
            "bad_files": len(setup.bad_files),
            "left_out": left_out_of(sets, setup.seen),
            "doubts": [] if shared is None else [shared],
            "weights": source,
            "predictions": str(path / PREDICTIONS),
        }
        return setup.result(judged) | more

    return distributed.on_first(judge)


def _leave_classifier(setup: ProbeSetup, judged: ProbeResult, path: Path) -> None:
    """Write encoder and head as a classifier, where the head is linear on the encoder's output."""
    if judged.layer is None or setup.probe.layer is not None:
        return
    # A class token is normalized alike before and after it is taken, which more formats can hold.
    own = setup.pool == "cls" and setup.encoder.backbone.last_norm() is not None
    setup.write_classifier(
        path,
        linear_head(*judged.layer),
        norm="pretrained" if own else "tokens",
        batch_norm=False,
        provenance=f"maekit {VERB} {setup.recipe.name}",
    )
