"""Scores of test views, averaged per row: softmax per view, then the mean over views.

A row is a sample's place in its set, never its file's name: two files of one name are two rows, and
so is one file that is listed twice (VideoMAE's merge takes them for one).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from maekit.atomic import write_text
from maekit.data.loader import Loader
from maekit.data.order import Key
from maekit.engine import distributed
from maekit.engine.left_out import counts_of
from maekit.engine.step import to_device_float01
from maekit.errors import DataError, NonFiniteError
from maekit.progress import counted

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.reader import SampleReader
    from maekit.evaluate.views import ViewReader

Extractor = Callable[[Tensor], Tensor]  # float32 pixels in [0, 1], [B, C, T, H, W]; to [B, ...]
TOP = 5
_DIGITS = 6  # of a score in predictions.jsonl


@dataclass(frozen=True)
class Predictions:
    """The scores of each row.

    Attributes:
        rows: int64 ``[n]``, places in the set.
        ids: the files or row names.
        labels: int64 ``[n]``.
        scores: float64 ``[n, K]``, averaged over views.
        single: float64 ``[n, K]``, of the center view.
        left_out: what of the samples was not shown, counts by reason.
    """

    rows: np.ndarray
    ids: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    single: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_views(
        cls,
        rows: np.ndarray,
        dataset: Dataset,
        labels: np.ndarray,
        views: np.ndarray,
        center_index: int,
    ) -> Self:
        """Average the scores of every view.

        Args:
            rows: int64 ``[n]``.
            dataset: names the rows.
            labels: int64 ``[n]``, of these rows.
            views: ``[n, V, K]``; each view's add up to 1.
            center_index: the place of the center view, which the mean of several leaves out.

        Raises:
            NonFiniteError: a score is not finite.
        """
        names = tuple(dataset.name(row) for row in rows.tolist())
        return cls(rows, names, labels, *average_views(views, center_index, names))

    def top(self, k: int, *, single: bool = False) -> float:
        """Return the share of rows whose label is among the ``k`` highest scores."""
        return top_k(self.single if single else self.scores, self.labels, k)

    @property
    def right(self) -> np.ndarray:
        """Whether the highest score of each row is its label's: bool ``[n]``."""
        found: np.ndarray = self.scores.argmax(axis=1) == self.labels
        return found

    def per_class(self, classes: Sequence[str]) -> dict[str, float | None]:
        """Return top-1 of each class; None where the set has no row of it."""
        right = self.right
        found: dict[str, float | None] = {}
        for label, name in enumerate(classes):
            here = self.labels == label
            found[name] = float(right[here].mean()) if here.any() else None
        return found

    def summary(self, classes: Sequence[str]) -> dict[str, object]:
        """Return what result.json holds; fractions."""
        return {
            "top1": self.top(1),
            "top5": self.top(TOP),
            "single_view": {"top1": self.top(1, single=True), "top5": self.top(TOP, single=True)},
            "per_class": self.per_class(classes),
        }

    def write(self, path: Path) -> None:
        """Write JSON lines ``{row, id, label, scores}``, whole or not at all."""
        lines = []
        for row, name, label, scores in zip(
            self.rows.tolist(), self.ids, self.labels.tolist(), self.scores.tolist(), strict=True
        ):
            rounded = [round(score, _DIGITS) for score in scores]
            record = {"row": row, "id": name, "label": label, "scores": rounded}
            # Names that are not UTF-8 come with lone surrogates, which ASCII JSON can write.
            lines.append(json.dumps(record, ensure_ascii=not name.isprintable()) + "\n")
        write_text(path, "".join(lines))


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of labels among the ``k`` highest of scores ``[n, K]``.

    A label is in when fewer than ``k`` scores are higher, or equal and of a lower class: ties are
    never all counted as right. No score is above NaN, nor below it: such a label is never in.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    lower_class = np.arange(scores.shape[1]) < labels[:, None]
    better = ~(scores <= own) | ((scores == own) & lower_class)
    return float((better.sum(axis=1) < k).mean())


def refuse_bad(batch: Batch) -> None:
    """Refuse a test sample that cannot be read: leaving it out would change the number.

    Raises:
        DataError: names the first.
    """
    if batch.bad:
        file, reason, _ = batch.bad[0]
        hint = "repair it, or take it out of the set: every test sample counts"
        raise DataError(f"cannot be read: {reason}", where=file, hint=hint)


def average_views(
    views: np.ndarray, center_index: int, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce scores ``[n, V, K]`` to float64 ``[n, K]``: the mean, and the center view's."""
    scores = views.astype(np.float64)
    _refuse_nonfinite(scores, names)
    several = scores.shape[1] > 1
    averaged = np.delete(scores, center_index, axis=1) if several else scores
    single = scores[:, center_index].copy()  # a slice would keep all views in memory
    return averaged.mean(axis=1), single


def _refuse_nonfinite(scores: np.ndarray, names: Sequence[str]) -> None:
    """Refuse scores ``[B, V, K]`` with NaN: none is above it, so every label would be right."""
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=(1, 2)))
    if bad.size:
        hint = "a lower learning rate, or precision: fp32"
        raise NonFiniteError("its scores are not finite", where=names[int(bad[0])], hint=hint)


@dataclass(frozen=True)
class Reading:
    """How a set is read, and where extractors run.

    Attributes:
        device: where pixels are put.
        batch: views at once; all views of a sample always go together.
        workers: loader processes.
        timeout: seconds that one sample may take.
    """

    device: torch.device
    batch: int
    workers: int
    timeout: float

    def loader(self, reader: SampleReader, keys: list[list[Key]]) -> Loader:
        """Open a loader of these batches."""
        return Loader(reader, keys, workers=min(self.workers, len(keys)), timeout=self.timeout)


def run_extractors(
    batches: Iterable[Batch], extractors: Mapping[str, Extractor], device: torch.device, views: int
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Run every extractor on the pixels of each batch: features and scores are made here.

    Args:
        batches: of a loader, or kept ones.
        extractors: by name; one that has two names is run once.
        device: where pixels are put.
        views: V, of each sample.

    Yields:
        A batch, and of each extractor ``[B, V, ...]`` on the device, unread samples included.
    """
    distinct = {id(extractor): extractor for extractor in extractors.values()}
    for batch in batches:
        pixels = to_device_float01(batch.views[0], device)
        outputs = {key: each(pixels).unflatten(0, (-1, views)) for key, each in distinct.items()}
        yield batch, {name: outputs[id(extractor)] for name, extractor in extractors.items()}


def batches_of(rows: Sequence[int], size: int) -> list[list[Key]]:
    """Split rows into batches of keys, in their order."""
    keys = [Key(0, index) for index in rows]
    return [keys[first : first + size] for first in range(0, len(keys), size)]


def probabilities(logits: Tensor) -> Tensor:
    """Turn logits ``[B, K]`` into float32 probabilities."""
    return logits.float().softmax(dim=-1)


@torch.inference_mode()
def predict(
    reader: ViewReader,
    labels: np.ndarray,
    logits: Extractor,
    reading: Reading,
    activation: Callable[[Tensor], Tensor] = probabilities,
) -> Predictions:
    """Score every row of a set; only mean and center view are kept, however many views there are.

    Args:
        reader: reads its test views.
        labels: int64 ``[n]`` of all its rows, as the classifier numbers them.
        logits: float32 pixels in [0, 1] ``[B*V, C, T, H, W]`` to ``[B*V, K]``.
        reading: how rows are read.
        activation: logits to what is averaged over views.

    Raises:
        DataError: a sample cannot be read.
        NonFiniteError: a score is not finite.
    """
    views = reader.repeats
    keys = batches_of(range(len(reader.dataset)), max(1, reading.batch // views))

    def scores(pixels: Tensor) -> Tensor:
        return activation(logits(pixels))

    def judge() -> list[tuple[list[int], np.ndarray, np.ndarray, Counter[str]]]:
        own = distributed.share(keys)
        if not own:
            return []
        found: list[tuple[list[int], np.ndarray, np.ndarray, Counter[str]]] = []
        counts = counted("judging", sum(map(len, own)), "samples")
        with counts as count, reading.loader(reader, own) as loader:
            for read, made in run_extractors(loader, {"scores": scores}, reading.device, views):
                count(len(found) * len(own[0]))
                refuse_bad(read)
                rows = [key.index for key in read.keys]
                called = [reader.dataset.name(row) for row in rows]
                averaged = average_views(made["scores"].cpu().numpy(), reader.center_index, called)
                found.append((rows, *averaged, counts_of([read])))
        return found

    parts = sorted(
        (part for of_rank in distributed.together(judge) for part in of_rank),
        key=lambda part: part[0],
    )
    places = np.array([row for part in parts for row in part[0]], np.int64)
    return Predictions(
        places,
        tuple(reader.dataset.name(row) for row in places.tolist()),
        labels[places],
        np.concatenate([means for _, means, _, _ in parts]),
        np.concatenate([single for _, _, single, _ in parts]),
        dict(sum((counts for _, _, _, counts in parts), Counter())),
    )
