"""``maekit evaluate``: judge a classifier or a detector on labeled samples, without training.

How samples are read and how many views count is a recipe's: the run's own, one that is named, or
none, which means the center view.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from maekit.data.identity import identify
from maekit.engine import distributed
from maekit.engine.events import Emit, Note
from maekit.engine.expected import compare
from maekit.engine.left_out import announce_set, left_out_of
from maekit.engine.resume import record_data, record_source
from maekit.engine.run_folder import PREDICTIONS
from maekit.evaluate.detection.evaluation import DetectionEvaluation
from maekit.evaluate.feature_cache import SHARD_SIZE, FeatureShards, collect_shards
from maekit.evaluate.judged import Judged
from maekit.evaluate.kept_run import Judging, run_kept
from maekit.evaluate.labels import Task, task_of_outputs
from maekit.evaluate.predictions import Predictions
from maekit.evaluate.scorer import Scorer, open_classifier
from maekit.evaluate.way import VAL, VERB, Request, judged_set, way_of
from maekit.text import quantity
from maekit.weights.heads import numbers

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.contracts import Dataset
    from maekit.engine.run import Finished, OpenRun, RunOptions
    from maekit.recipe.schema import Recipe

KEPT = "scores"  # folder below the run's, until its result is written


def evaluate(
    request: Request, device: torch.device, options: RunOptions, listener: Emit
) -> Finished:
    """Judge a classifier, or a detector of actions in boxes, in a folder.

    Returned value and errors are those of ``maekit.engine.run.run_in_folder``.

    Raises:
        WeightsError: the weights hold no classifier.
        RecipeError: no labeled set is named.
    """
    weights, described = open_classifier(request, boxes=True)
    way = way_of(request, weights, described, listener)

    def judge(run: OpenRun) -> dict[str, Any]:
        made: Evaluation | DetectionEvaluation
        if described.roi is None:
            made = Evaluation(Scorer(way, weights, device, run.emit), run.emit)
        else:
            made = DetectionEvaluation(way, weights, device, run.emit)
        distributed.on_first(lambda: begin(run, way.recipe, device, request, made.val))
        announce_set(made.val, VAL, run.emit)
        return made.judge(request, run.folder.path / KEPT)

    judging = Judging(
        VERB,
        KEPT,
        "scores",
        judge,
        # What the training that such weights come from should reach.
        lambda result: compare(way.recipe.expected, way.section, result),
        lambda path: request.again(path, locks=options.locks),
    )
    own = replace(options, source=request.source)
    return run_kept(judging, way.recipe, own, listener)


def begin(
    run: OpenRun, recipe: Recipe, device: torch.device, request: Request, val: Dataset
) -> None:
    """Write into a run's folder what is judged, and on what."""
    run.describe(recipe, VERB, device)
    record_source(run.folder.path, request.source)
    record_data(run.folder.path, {VAL: identify(val)})


class Evaluation:
    """A classifier, and the samples that it is judged on.

    Args:
        scorer: the classifier, and how they are read.
        emit: called with notes.

    Raises:
        DataError: there are no labels, or none that it knows.
    """

    def __init__(self, scorer: Scorer, emit: Emit) -> None:
        self.scorer, self.emit = scorer, emit
        described = scorer.described
        self.val: Dataset = judged_set(scorer.recipe, emit)
        named = described.outputs != numbers(len(described.outputs))
        self.task: Task = task_of_outputs(
            described.kind, described.outputs, self.val, emit, named=named
        )

    def judge(self, request: Request, kept: Path) -> dict[str, Any]:
        """Score every sample, and return what result.json holds of it.

        Args:
            request: what is judged.
            kept: the folder below the run's where scores are kept as they are made.
        """
        path, scorer = kept.parent, self.scorer
        reader = scorer.reader(self.val)
        times = quantity(scorer.views.clips * scorer.views.crops, "views")
        self.emit(Note(f"{len(self.task.outputs)} outputs, {times} of each sample"))
        about = scorer.about(request) | {"data": identify(self.val).model_dump(mode="json")}
        shards = FeatureShards(kept, about)
        extractors = {KEPT: scorer.scores}
        collect_shards(
            reader, extractors, shards, scorer.reading(), size=SHARD_SIZE, what="judging"
        )

        def measured() -> dict[str, Any]:
            made = shards.load_all(SHARD_SIZE, len(self.val))
            labels = self.task.labels[made.rows]
            found = Predictions.from_views(
                made.rows, self.val, labels, made.features[KEPT], reader.center_index
            )
            found.write(path / PREDICTIONS)
            judged = Judged(self.task, found)
            judged.write(path, scorer.reader(self.val, center=True), self.emit)
            return self._result(judged) | {
                "left_out": left_out_of({VAL: self.val}, {VAL: made.left_out}),
                "from": request.source,
                "weights": request.source,
                "predictions": str(path / PREDICTIONS),
            }

        return distributed.on_first(measured)

    def _result(self, judged: Judged) -> dict[str, Any]:
        task, found, scorer = self.task, judged.found, self.scorer
        return {
            **task.measure(found.scores),
            "single_view": task.measure(found.single),
            **judged.summary(),
            "floor": {"chance": task.chance()},
            "samples": len(self.val),
            "classes": len(task.outputs),
            "protocol": scorer.protocol,
            "pool": scorer.described.pool,
            "settings": scorer.settings | {"precision": scorer.precision.name},
        }
