"""``maekit evaluate``: judge a classifier on labeled samples, without training.

How samples are read and how many views count is a recipe's: the run's own, one that is named, or
none, which means the center view.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maekit.data.identity import identify
from maekit.data.rendering import Rendering
from maekit.engine import distributed
from maekit.engine.batches import open_dataset, open_sets, workers_of
from maekit.engine.events import Emit, Note
from maekit.engine.expected import compare
from maekit.engine.left_out import announce_set, left_out_of
from maekit.engine.precision import Precision
from maekit.engine.resume import record_data, record_source
from maekit.engine.run_folder import PREDICTIONS
from maekit.errors import RecipeError, WeightsError
from maekit.evaluate.classifier import Classifier, load_classifier
from maekit.evaluate.encoder import digest_of_weights
from maekit.evaluate.feature_cache import SHARD_SIZE, FeatureShards, collect_shards
from maekit.evaluate.kept_run import Judging, run_kept
from maekit.evaluate.labels import Task, task_of_outputs
from maekit.evaluate.predictions import Predictions, Reading
from maekit.evaluate.views import ViewReader, view_reader
from maekit.evaluate.way import VERB, Request, Way, way_of
from maekit.recipe.probe import Probe
from maekit.runs import read_result
from maekit.text import quantity
from maekit.weights.heads import numbers
from maekit.weights.importer import UserHints, Weights, open_weights
from maekit.weights.locate import FINAL

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.contracts import Dataset
    from maekit.engine.run import Finished, OpenRun, RunOptions
    from maekit.recipe.finetune import Finetune
    from maekit.recipe.schema import DataSpec, Recipe
    from maekit.recipe.sections import Views

VAL = "data.val"
KEPT = "scores"  # folder below the run's, until its result is written
AT_ONCE = 32  # views


def evaluate(
    request: Request, device: torch.device, options: RunOptions, listener: Emit
) -> Finished:
    """Judge a classifier in a folder.

    Returned value and errors are those of ``maekit.engine.run.run_in_folder``.

    Raises:
        WeightsError: the weights hold no classifier.
        RecipeError: no labeled set is named.
    """
    _refuse_cached(request.source)
    weights = open_weights(request.source, user_hints=UserHints(classes=request.classes))
    described = weights.header.classifier
    if described is None:
        msg = "these weights hold no classifier: there is nothing to judge"
        hint = "`maekit finetune` or `maekit probe` train one on them"
        raise WeightsError(msg, where=request.source, hint=hint)
    way = way_of(request, weights, described, listener)
    judging = Judging(
        VERB,
        KEPT,
        "scores",
        lambda run: Evaluation(way, weights, device, run.emit).judge(request, run),
        # What the training that such weights come from should reach.
        lambda result: compare(way.recipe.expected, way.section, result),
        lambda path: request.again(path, locks=options.locks),
    )
    own = replace(options, source=request.source)
    return run_kept(judging, way.recipe, own, listener)


def _refuse_cached(source: str) -> None:
    """Refuse a probe on cached features, which leaves scores and no classifier.

    Raises:
        RecipeError: the source is one.
    """
    folder = Path(source)
    if read_result(folder).get("verb") == "probe" and not (folder / FINAL).is_file():
        msg = "this probe judged cached features and left no classifier"
        hint = "probe with probe.kind=linear probe.protocol=paper, which leaves one"
        raise RecipeError(msg, where=source, hint=hint)


def _judged_set(recipe: Recipe, emit: Emit) -> Dataset:
    """Open data.val alone, as data.train need not be there; unless it is a share of that."""
    spec = recipe.data.val
    assert spec is not None  # noqa: S101 - way_of saw to it
    if spec.held_out is None:
        return open_dataset(spec, VAL)
    val = open_sets(recipe, emit)[1]
    assert val is not None  # noqa: S101 - it is asked for
    return val


class Evaluation:
    """A classifier, and the samples that it is judged on.

    Args:
        way: how they are read and judged.
        weights: of the classifier.
        device: where it runs.
        emit: called with notes.

    Raises:
        DataError: there are no labels, or none that it knows.
        WeightsError: the weights do not match their header.
    """

    def __init__(self, way: Way, weights: Weights, device: torch.device, emit: Emit) -> None:
        self.way, self.recipe = way, way.recipe
        section: Finetune | Probe = getattr(way.recipe, way.section)
        data, spec = way.recipe.data, way.recipe.data.val
        assert spec is not None  # noqa: S101 - way_of saw to it
        self.section, self.device, self.emit, self.spec = section, device, emit, spec
        self.precision = Precision.of(section.precision, device, where=f"{way.section}.precision")
        clip = (spec.frames, *data.height_width)
        if clip != weights.header.clip:
            sizes = ("x".join(map(str, each)) for each in (clip, weights.header.clip))
            emit(
                Note(
                    "clips of {} as the recipe says; the weights were trained on {}".format(*sizes)
                )
            )
        self.model, self.header = load_classifier(weights, clip=clip)
        self.model.to(device)
        described = weights.header.classifier
        assert described is not None  # noqa: S101 - evaluate saw to it
        self.described = described
        self.val: Dataset = _judged_set(way.recipe, emit)
        named = described.outputs != numbers(len(described.outputs))
        self.task: Task = task_of_outputs(
            described.kind, described.outputs, self.val, emit, named=named
        )

    @property
    def views(self) -> Views:
        """Which clips and crops of a sample are judged."""
        return self.section.views

    def judge(self, request: Request, run: OpenRun) -> dict[str, Any]:
        """Score every sample in a run's folder, and return what result.json holds of it."""
        path = run.folder.path

        def begin() -> None:
            run.describe(self.recipe, VERB, self.device)
            record_source(path, request.source)
            record_data(path, {VAL: identify(self.val)})

        distributed.on_first(begin)
        reader = self._reader()
        announce_set(self.val, VAL, self.emit)
        times = self.views.clips * self.views.crops
        self.emit(
            Note(f"{len(self.task.outputs)} outputs, {quantity(times, 'views')} of each sample")
        )
        shards = FeatureShards(path / KEPT, self._about(request))
        collect_shards(
            reader,
            {KEPT: self.scores},
            shards,
            self._reading(),
            size=SHARD_SIZE,
            what="judging",
        )

        def measured() -> dict[str, Any]:
            made = shards.load_all(SHARD_SIZE, len(self.val))
            labels = self.task.labels[made.rows]
            found = Predictions.from_views(
                made.rows, self.val, labels, made.features[KEPT], reader.center_index
            )
            found.write(path / PREDICTIONS)
            return self._result(found) | {
                "left_out": left_out_of({VAL: self.val}, {VAL: made.left_out}),
                "from": request.source,
                "weights": request.source,
                "predictions": str(path / PREDICTIONS),
            }

        return distributed.on_first(measured)

    @torch.inference_mode()
    def scores(self, pixels: Tensor) -> Tensor:
        """Score pixels in [0, 1], ``[B, C, T, H, W]``: probabilities or values ``[B, K]``."""
        model: Classifier = self.model
        with self.precision.autocast():
            logits = model(model.normalize(pixels))
        return self.task.scores(logits)

    def _reader(self) -> ViewReader:
        data = self.recipe.data
        return view_reader(
            self.val,
            self.spec,
            self.views,
            size=data.height_width,
            channels=self.header.channels,
            rendering=self.rendering,
        )

    @property
    def rendering(self) -> Rendering:
        """What is done to pixels of another size or range; the recipe's range comes first."""
        data = self.recipe.data
        span = data.range_ if isinstance(data.range_, tuple) else self.header.range
        return Rendering.of_weights(span, data)

    def _reading(self) -> Reading:
        at_once = self.section.batch.per_device or AT_ONCE
        workers = workers_of(self.recipe.data.workers, self.device.type)
        return Reading(self.device, at_once, workers, self.recipe.data.timeout)

    def _about(self, request: Request) -> dict[str, Any]:
        """Return what scores depend on."""
        return {
            "fit": self.rendering.fit,
            "range": self.rendering.span,
            "weights": request.source,
            "sha256": digest_of_weights(self.model),
            "data": identify(self.val).model_dump(mode="json"),
            "settings": self._settings(),
            "precision": self.precision.name,
        }

    def _settings(self) -> dict[str, Any]:
        spec: DataSpec = self.spec
        views = self.views
        return {
            "views": f"{views.clips}x{views.crops}",
            "enlarge": views.enlarge,
            "interpolation": views.interpolation,
            "resize": views.resize,
            "clip": [spec.frames, *self.recipe.data.height_width],
            "sampling": spec.sampling,
            "stride": spec.stride,
            "rate": spec.rate,
        }

    def _result(self, found: Predictions) -> dict[str, Any]:
        task = self.task
        multiclass = task.kind == "multiclass"
        return {
            **task.measure(found.scores),
            "single_view": task.measure(found.single),
            "per_class": found.per_class(task.outputs) if multiclass else None,
            "floor": {"chance": task.chance()},
            "samples": len(self.val),
            "classes": len(task.outputs),
            "protocol": self._protocol(),
            "pool": self.described.pool,
            "settings": self._settings() | {"precision": self.precision.name},
        }

    def _protocol(self) -> str:
        """Name the protocol as the training's own result does, so that the two compare."""
        views = self.views
        if self.way.bare:
            return f"{VERB}/{views.clips}x{views.crops}"
        if isinstance(self.section, Probe):
            return f"{self.section.kind}/{self.section.protocol}"
        return f"finetune/{self.section.blocks}/{views.clips}x{views.crops}"
