"""What judged predictions show besides one number: classes, confusions, calibration, mistakes.

n samples, K outputs. Written into the folder of a run, and shown by its report.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maekit.atomic import write_bytes, write_text
from maekit.data.order import Key
from maekit.data.pixels import to_float01
from maekit.engine.events import Emit, Note, Saved
from maekit.errors import Interrupted
from maekit.evaluate.answers import DIGITS, LIKELY, best
from maekit.evaluate.labels import JOIN, NONE, Task, average_precision
from maekit.text import as_text
from maekit.visualize.confusion import (
    CLASSES,
    CONFUSION,
    CONFUSION_PICTURE,
    MISTAKES,
    MOST_CONFUSED,
    confusion_picture,
    contact_sheet,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from maekit.evaluate.predictions import Predictions
    from maekit.evaluate.views import ViewReader

_BINS = 10
_MISTAKES = 20  # on the sheet
_PAIRS = 10  # classes taken for others, in result.json


@dataclass(frozen=True)
class Judged:
    """Predictions of labeled samples, and what they were to be."""

    task: Task
    found: Predictions

    @property
    def confusion(self) -> np.ndarray:
        """How often a class (row) was taken for which (column): int64 ``[K, K]``.

        Of many classes it is large, and nearly all of it is zero: nothing else here makes it.
        """
        width = len(self.task.outputs)
        counts = np.zeros((width, width), np.int64)
        counts[self._pairs[:, 0], self._pairs[:, 1]] = self._pairs[:, 2]
        return counts

    @cached_property
    def _pairs(self) -> np.ndarray:
        """The pairs of a class and what it was taken for that occur, in order, and how often.

        int64 ``[P, 3]``; P is at most the number of samples.
        """
        width = len(self.task.outputs)
        first = self.found.scores.argmax(axis=1)
        pairs, times = np.unique(self.found.labels * width + first, return_counts=True)
        return np.stack([pairs // width, pairs % width, times], axis=1)

    @property
    def multiclass(self) -> bool:
        """Whether each sample is of one class."""
        return self.task.kind == "multiclass"

    def classes(self) -> list[dict[str, Any]]:
        """Return the numbers of each output; what cannot be said is None.

        Of classes: samples, recall (its top-1), precision, F1, and the class that it is taken for
        most. Of labels: samples that have it, average precision, and at 0.5 recall and precision.
        Of values: R squared, mean absolute error.
        """
        names = self.task.outputs
        if self.multiclass:
            made = self._of_classes()
        else:
            make = self._of_label if self.task.kind == "multilabel" else self._of_value
            made = [make(place) for place in range(len(names))]
        return [{"class": name} | each for name, each in zip(names, made, strict=True)]

    def _of_classes(self) -> list[dict[str, Any]]:
        names = self.task.outputs
        samples, said, right = (np.zeros(len(names), np.int64) for _ in range(3))
        taken_for: list[tuple[str | None, int]] = [(None, 0)] * len(names)
        for label, first, times in self._pairs.tolist():
            samples[label] += times
            said[first] += times
            if label == first:
                right[label] = times
            elif times > taken_for[label][1]:
                taken_for[label] = names[first], times
        rates = map(_recall_precision, right.tolist(), samples.tolist(), said.tolist())
        return [
            found | {"taken_for": name, "times": times}
            for found, (name, times) in zip(rates, taken_for, strict=True)
        ]

    def _of_label(self, place: int) -> dict[str, Any]:
        has, scores = self.found.labels[:, place] > LIKELY, self.found.scores[:, place]
        said = scores > LIKELY
        precise = average_precision(scores, has) if has.any() else None
        rates = _recall_precision(int((has & said).sum()), int(has.sum()), int(said.sum()))
        return rates | {"average_precision": precise}

    def _of_value(self, place: int) -> dict[str, Any]:
        label, score = self.found.labels[:, place], self.found.scores[:, place]
        spread = float(np.square(label - label.mean()).mean())
        error = score - label
        r2 = 1 - float(np.square(error).mean()) / spread if spread else None
        return {"samples": len(label), "r2": r2, "mae": float(np.abs(error).mean())}

    def calibration(self) -> dict[str, Any] | None:
        """Compare probabilities with how often they are right; None for values.

        Of classes the probability of the likeliest one counts, of labels that of each. ``ece`` is
        the mean distance of the two over ten bins, weighed by their samples (Guo et al., On
        Calibration of Modern Neural Networks, 2017).
        """
        if self.task.kind == "regression":
            return None
        if self.multiclass:
            said, right = self.found.scores.max(axis=1), self.found.right
        else:
            said, right = self.found.scores.ravel(), self.found.labels.ravel() > LIKELY
        places = np.minimum((said * _BINS).astype(np.int64), _BINS - 1)
        bins, distance = [], 0.0
        for place in range(_BINS):
            here = places == place
            count = int(here.sum())
            if count:
                confidence, share = float(said[here].mean()), float(right[here].mean())
                distance += count / len(said) * abs(confidence - share)
                bins.append({"count": count, "confidence": confidence, "right": share})
        return {"ece": distance, "confidence": float(said.mean()), "bins": bins}

    def confused(self) -> list[dict[str, Any]] | None:
        """Return the pairs of classes that are confused most; None where there are no classes."""
        if not self.multiclass:
            return None
        wrong = self._pairs[self._pairs[:, 0] != self._pairs[:, 1]]
        most = wrong[np.argsort(-wrong[:, 2], kind="stable")[:_PAIRS]]
        names = self.task.outputs
        return [
            {"class": names[row], "taken_for": names[column], "times": times}
            for row, column, times in most.tolist()
        ]

    def mistakes(self, count: int = _MISTAKES) -> list[int]:
        """Return the places of the samples that are most wrong, the worst first.

        Classes: by how much likelier the wrong one is than the right; right ones are none. Labels
        and values: by the mean squared distance.
        """
        scores, labels = self.found.scores, self.found.labels
        if self.multiclass:
            wrong = scores.max(axis=1) - scores[np.arange(len(labels)), labels]
            wrong[self.found.right] = -1
        else:
            wrong = np.square(scores - labels).mean(axis=1)
        worst = np.argsort(-wrong, kind="stable")[:count]
        return [int(place) for place in worst if wrong[place] >= 0]

    def described(self, place: int) -> str:
        """Say what a sample is, what was predicted, and how surely."""
        scores, labels, names = (
            self.found.scores[place],
            self.found.labels[place],
            self.task.outputs,
        )
        if self.multiclass:
            first = best(scores, 1)[0]
            return f"{names[labels]}, said {names[first]} {scores[first]:.2f}"
        if self.task.kind == "regression":
            pairs = zip(labels.tolist(), scores.tolist(), strict=True)
            return "; ".join(f"{label:g}, said {score:.3g}" for label, score in pairs)
        sets = (np.flatnonzero(each > LIKELY).tolist() for each in (labels, scores))
        has, said = (JOIN.join(names[each] for each in some) or NONE for some in sets)
        return f"{has}, said {said}"

    def summary(self) -> dict[str, Any]:
        """Return what result.json holds."""
        worst = [
            {"id": self.found.ids[place], "what": self.described(place)}
            for place in self.mistakes()
        ]
        key = {"multiclass": "recall", "multilabel": "average_precision", "regression": "r2"}
        classes = self.classes()
        return {
            "per_class": {each["class"]: each[key[self.task.kind]] for each in classes},
            "calibration": self.calibration(),
            "confused": self.confused(),
            "mistakes": worst,
        }

    def write(self, folder: Path, reader: ViewReader, emit: Emit, *, step: int = 0) -> None:
        """Write ``classes.csv``, ``confusion.csv`` and ``.png``, and ``mistakes.png``.

        They can be made again (`maekit evaluate`), so that failing to make them, in whatever way,
        only warns: the training before is worth more. Of more than 1,000 classes there is no
        matrix.

        Args:
            folder: of the run.
            reader: reads the center view of samples.
            emit: called with what was drawn, or with a warning.
            step: of the training.
        """
        try:
            classes = self.classes()
            table = table_text(tuple(classes[0]), [tuple(each.values()) for each in classes])
            write_text(folder / CLASSES, table)
            names = self.task.outputs
            if self.multiclass and len(names) > MOST_CONFUSED:
                text = f"{len(names):,} classes: no {CONFUSION}; {CLASSES} has each one's numbers"
                emit(Note(text))
            elif self.multiclass:
                confusion = self.confusion
                counts = zip(names, confusion.tolist(), strict=True)
                rows = [(name, *row) for name, row in counts]
                write_text(folder / CONFUSION, table_text(("class", *names), rows))
                save_picture(
                    confusion_picture(confusion, names),
                    folder / CONFUSION_PICTURE,
                    emit,
                    step,
                )
            shown = list(self._shown(reader))
            if shown:
                samples, captions = zip(*shown, strict=True)
                save_picture(contact_sheet(samples, captions), folder / MISTAKES, emit, step)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it may not fail the training
            reason = str(error) or type(error).__name__
            text = f"what {folder} shows of classes cannot be made: {reason}"
            emit(Note(text, warning=True))

    def _shown(self, reader: ViewReader) -> Iterator[tuple[np.ndarray, str]]:
        for place in self.mistakes():
            sample = reader.read(Key(0, int(self.found.rows[place])))
            if sample.bad is None:  # it could be read a moment ago
                pixels = to_float01(sample.views[0][0].transpose(1, 2, 3, 0))
                name = self.found.ids[place].rpartition("/")[2]
                yield pixels, f"{self.described(place)} ({name})"


def _recall_precision(right: int, samples: int, said: int) -> dict[str, Any]:
    recall = right / samples if samples else None
    precision = right / said if said else None
    both = samples + said
    f1 = 2 * right / both if both else None
    return {"samples": samples, "recall": recall, "precision": precision, "f1": f1}


def table_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write rows as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows(map(_cell, row) for row in (header, *rows))
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        return as_text(value)
    return round(value, DIGITS) if isinstance(value, float) else value


def save_picture(picture: Image, path: Path, emit: Emit, step: int) -> None:
    """Write a picture into a run's folder, and tell of it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
    emit(Saved(step, "picture", str(path), picture, path.stem))
