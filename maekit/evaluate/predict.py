"""``maekit predict``: what a classifier answers for any files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from maekit.data.clips import mean_step
from maekit.datasets.named_files import find_files
from maekit.datasets.named_windows import Cutting, NamedWindows, windows_of
from maekit.engine.step import eval_mode
from maekit.evaluate.answers import Answer, best
from maekit.evaluate.classifier import load_classifier
from maekit.evaluate.feature_cache import SHARD_SIZE, collect_features, collect_shards, skip_bad
from maekit.evaluate.predictions import average_views
from maekit.evaluate.scorer import Scorer, open_classifier
from maekit.evaluate.way import Request, way_of

if TYPE_CHECKING:
    from collections import Counter

    from maekit.contracts import Dataset
    from maekit.engine.events import Emit, Event
    from maekit.evaluate.feature_cache import FeatureSet, FeatureShards
    from maekit.evaluate.predictions import Reading
    from maekit.recipe.schema import DataSpec

VERB = "predict"
SCORES = "scores"
HERE = "."  # in place of labeled samples, of which there are none
_skip_bad = partial(skip_bad, what=SCORES)


def scorer_of(request: Request, device: torch.device, emit: Emit) -> Scorer:
    """Open a classifier for files that nobody labeled.

    Raises:
        WeightsError: the weights hold no classifier.
        RecipeError: the recipe is wrong.
    """
    weights, described = open_classifier(request)
    return Scorer(way_of(request, weights, described, emit), weights, device, emit)


def span_of(spec: DataSpec, fps: float) -> int:
    """Return how many frames of a video a clip reaches over."""
    if spec.sampling == "dense":
        return (spec.frames - 1) * spec.stride + 1
    if spec.sampling == "spread":
        return spec.frames * spec.stride
    if spec.sampling in {"timed", "centered"}:
        return round(mean_step(0, spec, fps) * max(1, spec.frames - 1)) + 1
    return spec.frames


def predict(scorer: Scorer, dataset: Dataset, shards: FeatureShards, reading: Reading) -> None:
    """Score every sample that is not scored yet, and keep scores in shards.

    Raises:
        Interrupted: a signal asked for it; the shards that are done are kept.
        StorageError: a shard cannot be written, or is damaged.
    """
    collect_shards(
        scorer.reader(dataset),
        {SCORES: scorer.scores},
        shards,
        reading,
        size=SHARD_SIZE,
        on_bad=_skip_bad,
        what="predicting",
    )


def answers_of(
    shards: FeatureShards, dataset: Dataset, center_index: int, left_out: Counter[str]
) -> Iterator[Answer]:
    """Yield the answer of each sample, in order; one shard at a time is in memory.

    Args:
        shards: of all samples.
        dataset: names them.
        center_index: the place of the center view.
        left_out: is told what of the samples was not shown.
    """
    for number in range(-(-len(dataset) // SHARD_SIZE)):
        made = shards.load(number)
        left_out.update(made.left_out)
        yield from _answers(made, dataset, center_index)


def _answers(made: FeatureSet, dataset: Dataset, center_index: int) -> Iterator[Answer]:
    names = [dataset.name(row) for row in made.rows.tolist()]
    scores, _ = average_views(made.features[SCORES], center_index, names)
    read = dict(zip(made.rows.tolist(), scores, strict=True))
    bad = {each.index: each.reason for each in made.unread}
    windows = dataset.items if isinstance(dataset, NamedWindows) else None
    for row in sorted(read.keys() | bad.keys()):
        start, stop = (None, None) if windows is None else windows[row][2:]
        yield Answer(dataset.name(row), read.get(row), start, stop, bad.get(row))


class Prediction(NamedTuple):
    """What a classifier says of one file.

    Attributes:
        input: the file.
        classes: the likeliest ones, the likeliest first; of several labels or values all outputs.
        scores: their probabilities, or values; as many.
        error: why the file could not be read; then there are no classes.
        start: of a window of a video, in seconds; None: the whole file.
        stop: likewise.
    """

    input: str
    classes: tuple[str, ...]
    scores: tuple[float, ...]
    error: str | None = None
    start: float | None = None
    stop: float | None = None


class LoadedClassifier:
    """A classifier and its header, which answers for files too; unpacks into these two.

    Args:
        source: where its weights are.
        classes: names of its outputs, where they have none.
        clip: frames, height and width in pixels that it takes, where not its own.

    Attributes:
        model: in evaluation mode, on the CPU; it answers on whatever device it is moved to, in
            that one's number format.
        header: its description.
    """

    def __init__(
        self,
        source: str | Path,
        classes: Sequence[str] | None = None,
        clip: tuple[int, int, int] | None = None,
    ) -> None:
        self.model, self.header = load_classifier(source, classes, clip)
        words = []
        if clip is not None:
            frames, height, width = clip
            words = [f"data.val.frames={frames}", f"data.size=[{height}, {width}]"]
        names = None if classes is None else tuple(classes)
        self._request = Request(str(source), None, words, HERE, None, names)

    def __iter__(self) -> Iterator[Any]:
        """Yield model and header."""
        yield from (self.model, self.header)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> Any:  # noqa: ANN401 - model or header
        """Return the model (0) or its header (1)."""
        return (self.model, self.header)[place]

    @cached_property
    def _scorer(self) -> Scorer:
        weights, described = open_classifier(self._request)
        way = way_of(self._request, weights, described, _silent)
        return Scorer(way, weights, self.model.device, _silent, (self.model, self.header))

    def predict(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        top: int = 5,
        every: float | None = None,
        window: float | None = None,
        workers: int = 0,
    ) -> list[Prediction]:
        """Say what is on pictures and videos, in their order; what cannot be read has an ``error``.

        Args:
            files: one or several: files, folders, patterns.
            top: how many classes.
            every: of a video, begin a window every so many seconds; None: it is one sample.
            window: seconds of a window.
            workers: loader processes.

        Raises:
            RecipeError: there is nothing at all.
        """
        words = [str(files)] if isinstance(files, str | Path) else [str(each) for each in files]
        scorer = self._scorer
        scorer.follow(self.model)
        moving = self.header.clip[0] > 1
        cutting = cutting_of(every, window, scorer.spec)
        found = find_files(words, moving=moving, purpose=VERB)
        dataset = NamedWindows(list(windows_of(found, cutting)))
        reader = scorer.reader(dataset)
        reading = scorer.reading(workers=workers)
        rows = range(len(dataset))
        extractors = {SCORES: scorer.scores}
        with eval_mode(self.model):
            made = collect_features(reader, extractors, rows, reading, _skip_bad)
        return [self._said(each, top) for each in _answers(made, dataset, reader.center_index)]

    def _said(self, answer: Answer, top: int) -> Prediction:
        described = self._scorer.described
        scores = np.zeros(0) if answer.scores is None else answer.scores
        places = best(scores, top) if described.kind == "multiclass" else range(len(scores))
        names = tuple(described.outputs[place] for place in places)
        values = tuple(float(scores[place]) for place in places)
        return Prediction(answer.input, names, values, answer.error, answer.start, answer.stop)


def cutting_of(every: float | None, window: float | None, spec: DataSpec) -> Cutting | None:
    """Return how videos are cut into windows; None: not at all."""
    return None if every is None else Cutting(every, window, lambda fps: span_of(spec, fps))


def _silent(event: Event) -> None:
    """Take an event that nobody asked for."""
