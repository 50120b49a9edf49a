"""Labels: checked before anything is trained on them, and turned into what a head learns.

Most wrong accuracies begin with wrong labels. A data set's labels are numbers that stand for names,
and a name says it all: a class, several labels joined by ``|`` (``-`` alone: none of them), or
numbers joined by ``|``. B rows; K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import Boxes
from maekit.data.order import evenly
from maekit.engine.events import Emit, Note
from maekit.errors import DataError
from maekit.evaluate.chance import LEVEL, as_good_by_luck, matches_by_luck
from maekit.evaluate.predictions import TOP, top_k
from maekit.text import listed

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.weights.header import HeadKind

EXAMPLES = 5
_SHOWN = 5  # names in a message
_FEW = 10  # classes of which any may be odd
JOIN, NONE = "|", "-"


@dataclass(frozen=True)
class Labeled:
    """The classes of a training and a validation set.

    Attributes:
        classes: names, in the order of the labels; they are data.train's.
        train: int64 ``[n]``.
        val: int64 ``[m]``, numbered as data.train's.
    """

    classes: tuple[str, ...]
    train: np.ndarray
    val: np.ndarray


def labels_of(dataset: Dataset, key: str) -> np.ndarray:
    """Return the label of every row, int64 ``[n]``, without reading pixels.

    Raises:
        DataError: the set is unlabeled.
    """
    if dataset.classes is None:
        hint = "give a list with labels, or one folder for each class"
        known = [*dataset.notes, *([listed(dataset.left_out)] if dataset.left_out else [])]
        hint = "; ".join([hint, *known])  # a stray file, or columns that are no labels
        raise DataError("the set has no labels", where=f"{key}.path", hint=hint)
    if dataset.labels is not None and len(dataset) and isinstance(dataset.labels[0], Boxes):
        what = "the labels are boxes with actions, not classes of samples"
        hint = "finetune.head.kind=detection learns them"
        raise DataError(what, where=key, hint=hint)
    if dataset.labels is not None:
        return np.asarray(dataset.labels, np.int64)
    return np.array([_label(dataset, index, key) for index in range(len(dataset))], np.int64)


def _label(dataset: Dataset, index: int, key: str) -> int:
    label = dataset.open(index).info.label
    if label is None:
        raise DataError("has no label, though the set has classes", where=dataset.name(index))
    if not isinstance(label, (int, np.integer)):
        what = f"expected one class per sample, found a label of type {type(label).__name__}"
        raise DataError(what, where=dataset.name(index))
    if not 0 <= label < len(dataset.classes or ()):
        what = f"label {label} is outside the {len(dataset.classes or ())} classes of {key}"
        raise DataError(what, where=dataset.name(index))
    return int(label)


def check_labels(train: Dataset, val: Dataset) -> Labeled:
    """Refuse labels that cannot be judged: one class, or classes that training never sees.

    Raises:
        DataError: says which, with counts and names.
    """
    seen, requested = labels_of(train, "data.train"), labels_of(val, "data.val")
    classes = tuple(train.classes or ())
    used = np.unique(seen)
    if len(used) < 2:
        only = classes[int(used[0])] if len(used) else "none"
        what = f"all {len(seen)} samples are of one class: {only}"
        hint = "one folder for each class right below data.train.path, or a list with labels"
        raise DataError(what, where="data.train.path", hint=hint)
    names = tuple(val.classes or ())
    trained = {classes[int(label)] for label in used}
    strange = sorted({names[int(label)] for label in np.unique(requested)} - trained)
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        shown = ", ".join(strange[:_SHOWN])
        what = f"{len(strange)} classes that data.train does not have: {shown}{more}"
        hint = "are both lists, or folders, of the same set?"
        raise DataError(what, where="data.val.path", hint=hint)
    numbers = {name: number for number, name in enumerate(classes)}
    mapped = np.array([numbers[names[int(label)]] for label in requested], np.int64)
    return Labeled(classes, seen, mapped)


def announce_labels(train: Dataset, labeled: Labeled, emit: Emit) -> None:
    """Announce classes, counts and five examples: what is about to be learned."""
    counts = np.bincount(labeled.train, minlength=len(labeled.classes))
    held = np.bincount(labeled.val, minlength=len(labeled.classes))
    emit(
        Note(
            f"{np.count_nonzero(counts)} classes, {len(labeled.train):,} samples to train on "
            f"({_range(counts)} a class), {len(labeled.val):,} to judge ({_range(held)} a class)"
        )
    )
    for index in evenly(len(train), EXAMPLES):
        emit(Note(f"  {train.name(index)}: {labeled.classes[int(labeled.train[index])]}"))
    doubts_of_classes(labeled, emit)
    absent = [name for name, n in zip(labeled.classes, counts.tolist(), strict=True) if not n]
    if absent:
        emit(
            Note(f"{len(absent)} classes have no sample to train on: {', '.join(absent[:_SHOWN])}")
        )


def doubts_of_classes(labeled: Labeled, emit: Emit) -> None:
    """Warn of classes that look like something else: several labels, values, names of samples."""
    used = [labeled.classes[label] for label in np.unique(labeled.train).tolist()]
    joined = [name for name in used if len(_parts(name)) > 1 and all(_parts(name))]
    text = None
    if joined:
        text = (
            f"{len(joined)} of {len(used)} classes join several labels by '{JOIN}' "
            f"({', '.join(joined[:_SHOWN])}), and each combination is learned as a class of its "
            "own; finetune.head.kind=multilabel learns the labels"
        )
    elif len(used) > _FEW and all(map(_is_value, used)):
        text = (
            f"the {len(used)} classes are numbers ({', '.join(used[:_SHOWN])}), and are learned "
            "as names; finetune.head.kind=regression learns values"
        )
    elif len(used) > _FEW and 2 * len(used) > len(labeled.train):
        text = (
            f"{len(used)} classes for {len(labeled.train)} samples ({', '.join(used[:_SHOWN])}): "
            "are these labels, or names of samples?"
        )
    if text is not None:
        emit(Note(text, warning=True))


def _is_value(name: str) -> bool:
    """Return whether a name is a number that is no index: with a fraction, or below 0."""
    try:
        return not name.isdecimal() and math.isfinite(float(name))
    except ValueError:
        return False


def _range(counts: np.ndarray) -> str:
    there = counts[counts > 0]
    low, high = int(there.min()), int(there.max())
    return f"{low}" if low == high else f"{low} to {high}"


def chance_level(labels: np.ndarray) -> float:
    """Return the accuracy of always naming the most frequent of these labels."""
    return float(np.bincount(labels).max() / len(labels))


def warn_of_accuracy(scores: np.ndarray, labels: np.ndarray, emit: Emit) -> bool:
    """Warn where predictions are no better than chance; returns whether they are.

    Args:
        scores: ``[n, K]``.
        labels: int64 ``[n]``.
        emit: called with the warning.
    """
    top1, chance = top_k(scores, labels, 1), chance_level(labels)
    luck = matches_by_luck(scores.argmax(axis=1), labels)
    if luck <= LEVEL:
        if top1 < chance:
            text = f"top-1 {top1:.3f} is below {chance:.3f}, of always naming the most frequent"
            emit(Note(f"{text} class, though better than chance; per_class in result.json"))
        return False
    text = (
        f"top-1 {top1:.3f} is no better than chance: predictions dealt out to the samples at "
        f"random do as well in {luck:.0%} of cases ({chance:.3f} is always naming the most "
        "frequent class): look at the examples and labels above"
    )
    emit(Note(text, warning=True))
    return True


@dataclass(frozen=True)
class LabelTable:
    """The targets of each sample of a set.

    A row for each sample would be 5 GB for ImageNet (1.28 million samples, 1,000 float32 each): the
    table has one for each name that occurs, and a sample the number of its row.

    Attributes:
        rows: int64 ``[n]``: each sample's row of the table.
        width: K.
        table: float32 ``[M, K]``, a row for each of the M names that occur; None: the unit matrix,
            where a row is a class.
    """

    rows: np.ndarray
    width: int
    table: np.ndarray | None = None

    def targets(self, samples: np.ndarray) -> np.ndarray:
        """Look up the targets of samples ``[B]``: float32 ``[B, K]``."""
        rows = self.rows[samples]
        if self.table is not None:
            found: np.ndarray = self.table[rows]
            return found
        hot = np.zeros((len(rows), self.width), np.float32)
        hot[np.arange(len(rows)), rows] = 1
        return hot


@dataclass(frozen=True)
class Task:
    """Labels as the head learns them.

    Attributes:
        outputs: names of the K outputs: data.train's classes, or labels, or values.
        train: targets of data.train's n samples.
        val: targets of data.val's m samples.
        best: the measure by which checkpoints are compared; more is better.
    """

    kind: HeadKind
    outputs: tuple[str, ...]
    train: LabelTable
    val: LabelTable
    best: Literal["top1", "map", "r2"]

    def targets(self, indices: Sequence[int], repeats: int = 1) -> Tensor:
        """Look up targets ``[B*R, K]`` of the training samples at ``indices``, sample-major."""
        rows = self.train.targets(np.repeat(np.asarray(indices, np.int64), repeats))
        return torch.from_numpy(rows)

    @property
    def labels(self) -> np.ndarray:
        """What data.val's scores are compared with: int64 classes ``[m]``, else ``[m, K]``."""
        if self.kind == "multiclass":
            return self.val.rows  # without a table, a row is a class (see LabelTable)
        return self.val.targets(np.arange(len(self.val.rows)))

    def smooth(self, targets: Tensor, smoothing: float) -> Tensor:
        """Move targets ``[B, K]`` toward not knowing.

        Classes: ``s / K`` for the wrong ones and ``1 - s + s / K`` for the right one (timm's
        mixup.py, one_hot); labels: toward 1/2 each. Values have no such thing.
        """
        if self.kind == "regression" or smoothing == 0:
            return targets
        unknown = 1 / len(self.outputs) if self.kind == "multiclass" else 0.5
        return targets * (1 - smoothing) + smoothing * unknown

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each row ``[B]``, float32, from logits and targets ``[B, K]``."""
        logits, targets = logits.float(), targets.float()
        if self.kind == "multiclass":
            return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1)
        if self.kind == "multilabel":
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            return each.mean(dim=-1)
        return (logits - targets).square().mean(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        """Turn logits into what is averaged over views: probabilities, or values."""
        return scores_of(self.kind, logits)

    def measure(self, scores: np.ndarray) -> dict[str, float | None]:
        """Measure how good scores ``[m, K]`` of data.val's samples are; fractions."""
        labels = self.labels
        if self.kind == "multiclass":
            return {"top1": top_k(scores, labels, 1), "top5": top_k(scores, labels, TOP)}
        if self.kind == "multilabel":
            exact = ((scores > 0.5) == (labels > 0.5)).all(axis=1)
            return {"map": mean_average_precision(scores, labels), "exact": float(exact.mean())}
        error = scores - labels
        return {
            "r2": r_squared(scores, labels),
            "mse": float(np.square(error).mean()),
            "mae": float(np.abs(error).mean()),
        }

    def chance(self) -> float:
        """Return what ``best`` is without looking at a sample."""
        if self.kind == "multiclass":
            return chance_level(self.labels)
        return float(self.labels.mean()) if self.kind == "multilabel" else 0.0


def scores_of(kind: HeadKind, logits: Tensor) -> Tensor:
    """Turn a head's logits ``[B, K]`` into float32 probabilities, or values."""
    if kind == "multiclass":
        return logits.float().softmax(dim=-1)
    return logits.float().sigmoid() if kind == "multilabel" else logits.float()


def task_of(kind: HeadKind, train: Dataset, val: Dataset) -> Task:
    """Make the task of two labeled sets.

    Raises:
        DataError: they are unlabeled, have one class, or data.val knows what data.train does not.
    """
    if kind == "multiclass":
        labeled = check_labels(train, val)
        width = len(labeled.classes)
        sets = (LabelTable(labeled.train, width), LabelTable(labeled.val, width))
        return Task(kind, labeled.classes, *sets, "top1")
    labels = [labels_of(train, "data.train"), labels_of(val, "data.val")]
    names = [tuple(each.classes or ()) for each in (train, val)]
    if kind == "multilabel":
        outputs = _all_labels(names[0], labels[0])
        tables = [
            _hot(each, outputs, key, _UNKNOWN) for each, key in zip(names, _SETS, strict=True)
        ]
        return Task(kind, outputs, *_targets(labels, tables), "map")
    values = [_values(each, key) for each, key in zip(names, _SETS, strict=True)]
    if values[0].shape[1] != values[1].shape[1]:
        what = f"{values[1].shape[1]} values a sample, and data.train has {values[0].shape[1]}"
        raise DataError(what, where="data.val.path", hint="give both sets the same values")
    outputs = tuple(f"value_{number}" for number in range(values[0].shape[1]))
    return Task(kind, outputs, *_targets(labels, values), "r2")


def task_of_outputs(
    kind: HeadKind, outputs: tuple[str, ...], val: Dataset, emit: Emit, *, named: bool
) -> Task:
    """Make the task of judging a trained head on one labeled set: there is nothing to train on.

    Args:
        kind: of the head.
        outputs: names of what it predicts.
        val: the set.
        emit: told how classes were matched, where not by name.
        named: whether the names are those of classes; False: numbers, as the head has no names.

    Raises:
        DataError: the set has no labels, or classes that the head does not know.
    """
    labels, names = labels_of(val, "data.val"), tuple(val.classes or ())
    if not len(labels):
        raise DataError("there is no sample to judge", where="data.val.path")
    if kind == "multiclass":
        outputs, places = _matched(outputs, names, labels, emit, named=named)
        none, found = np.zeros(0, np.int64), places[labels]
        width = len(outputs)
        return Task(kind, outputs, LabelTable(none, width), LabelTable(found, width), "top1")
    hot = kind == "multilabel"
    strange = f"labels that are not among the model's {len(outputs)}"
    table = _hot(names, outputs, "data.val", strange) if hot else _values(names, "data.val")
    if table.shape[1] != len(outputs):
        what = f"{table.shape[1]} values a sample, and the head predicts {len(outputs)}"
        raise DataError(what, where="data.val.path", hint="is it the set that it was trained for?")
    empty, full = _targets([labels[:0], labels], [table, table])
    return Task(kind, outputs, empty, full, "map" if hot else "r2")


def _matched(
    outputs: tuple[str, ...], names: tuple[str, ...], labels: np.ndarray, emit: Emit, *, named: bool
) -> tuple[tuple[str, ...], np.ndarray]:
    """Name the outputs, and find that of each class of a set: int64 ``[classes]``, -1 for none.

    Raises:
        DataError: a sample is of a class that no output is called.
    """
    known = {name: place for place, name in enumerate(outputs)}
    strange = sorted({names[int(label)] for label in np.unique(labels)} - known.keys())
    if not strange:
        return outputs, np.array([known.get(name, -1) for name in names], np.int64)
    shown = ", ".join(strange[:_SHOWN])
    more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
    if named or len(names) != len(outputs):
        whose = "classes are not among the model's" if named else "classes have no number"
        what = f"{len(strange)} {whose} {len(outputs)}: {shown}{more}"
        hint = (
            "--classes FILE names the outputs in their order, as the folders or labels are called"
        )
        if named:
            few = ", ".join(outputs[:_SHOWN]) + (", ..." if len(outputs) > _SHOWN else "")
            hint = f"give the folder that holds one folder for each, or a list with them: {few}"
        raise DataError(what, where="data.val.path", hint=hint)
    first, last = names[0], names[-1]
    text = (
        f"the weights do not name their {len(outputs)} classes: those of data.val are taken in "
        f"sorted order, from {first} to {last}, as in most trainings; --classes FILE names them"
    )
    emit(Note(text, warning=True))
    return names, np.arange(len(names), dtype=np.int64)


def _targets(
    labels: Sequence[np.ndarray], tables: Sequence[np.ndarray]
) -> tuple[LabelTable, LabelTable]:
    train, val = (
        LabelTable(own, table.shape[1], table) for own, table in zip(labels, tables, strict=True)
    )
    return train, val


def announce_task(task: Task, train: Dataset, val: Dataset, emit: Emit) -> None:
    """Announce outputs, counts and five examples: what is about to be learned."""
    if task.kind == "multiclass":
        labeled = Labeled(task.outputs, task.train.rows, task.val.rows)
        announce_labels(train, labeled, emit)
        return
    what = "labels" if task.kind == "multilabel" else "values"
    emit(
        Note(
            f"{len(task.outputs)} {what}, {len(train):,} samples to train on, {len(val):,} to judge"
        )
    )
    for index in evenly(len(train), EXAMPLES):
        emit(Note(f"  {train.name(index)}: {_shown(task, index)}"))
    table = task.train.table
    if task.kind == "multilabel" and table is not None and (table.sum(axis=1) == 1).all():
        text = (
            "no sample has several labels, or none: is it a matter of classes (kind: multiclass)?"
        )
        emit(Note(text, warning=True))


def _shown(task: Task, index: int) -> str:
    row = task.train.targets(np.array([index]))[0]
    if task.kind == "regression":
        return f" {JOIN} ".join(f"{value:g}" for value in row)
    return f" {JOIN} ".join(task.outputs[place] for place in np.flatnonzero(row)) or NONE


def warn_at_chance(task: Task, scores: np.ndarray, emit: Emit) -> None:
    """Warn where the first scores ``[m, K]`` are no better than not looking at the samples."""
    labels = task.labels
    if task.kind == "multiclass":
        warn_of_accuracy(scores, labels, emit)
        return
    measure = mean_average_precision if task.kind == "multilabel" else r_squared
    luck = as_good_by_luck(measure, scores, labels)
    if luck > LEVEL:
        value = measure(scores, labels)
        shown = "-" if value is None else f"{value:.3f}"
        text = (
            f"{task.best} {shown} is no better than chance: scores dealt out to the samples at "
            f"random do as well in {luck:.0%} of cases ({task.chance():.3f} without looking)"
        )
        emit(Note(f"{text}: look at the examples and labels above", warning=True))


_SETS = ("data.train", "data.val")
_UNKNOWN = "labels that data.train does not have"


def _parts(name: str) -> list[str]:
    return [] if name == NONE else [part.strip() for part in name.split(JOIN)]


def _all_labels(names: Sequence[str], labels: np.ndarray) -> tuple[str, ...]:
    """List the labels that data.train's samples have, sorted."""
    used = {part for label in np.unique(labels) for part in _parts(names[int(label)])}
    if len(used) < 2:
        what = f"the samples have {len(used)} different labels"
        hint = f"join the labels of a sample by '{JOIN}' in the list; '{NONE}' alone is none"
        raise DataError(what, where="data.train.path", hint=hint)
    return tuple(sorted(used))


def _hot(names: Sequence[str], outputs: tuple[str, ...], key: str, unknown: str) -> np.ndarray:
    """Tell which labels each name holds: float32 ``[names, K]``.

    Raises:
        DataError: one is none of the outputs; ``unknown`` says whose these are.
    """
    places = {name: place for place, name in enumerate(outputs)}
    strange = sorted({part for name in names for part in _parts(name)} - places.keys())
    if strange:
        what = f"{unknown}: {', '.join(strange[:_SHOWN])}"
        raise DataError(what, where=f"{key}.path", hint="are both lists of the same set?")
    table = np.zeros((len(names), len(outputs)), np.float32)
    for row, name in enumerate(names):
        table[row, [places[part] for part in _parts(name)]] = 1
    return table


def _values(names: Sequence[str], key: str) -> np.ndarray:
    """Read names as numbers: float32 ``[names, K]``."""
    try:
        table = np.array([[float(part) for part in _parts(name)] for name in names], np.float32)
    except ValueError as error:
        hint = f"labels must be as many numbers for each sample, joined by '{JOIN}'"
        raise DataError(
            f"expected numbers as labels: {error}", where=f"{key}.path", hint=hint
        ) from error
    if table.ndim != 2 or not np.isfinite(table).all():
        what = "a label is not a finite number"
        raise DataError(what, where=f"{key}.path", hint="give each sample its values")
    return table


def r_squared(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return 1 - mean squared error / variance of the labels; None where they do not vary."""
    spread = float(np.square(labels - labels.mean(axis=0)).mean())
    return 1 - float(np.square(scores - labels).mean()) / spread if spread else None


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Average the average precision over labels; labels that no sample has are left out.

    Average precision is the sum of precision times the step in recall over distinct scores, as
    scikit-learn's.
    """
    found = [
        average_precision(scores[:, label], labels[:, label] > 0.5)
        for label in range(labels.shape[1])
        if labels[:, label].any()
    ]
    return float(np.mean(found)) if found else None


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the average precision of one label: scores ``[n]``, and bool ``[n]`` of who has it."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    # Equal scores are one threshold: only the last of them counts.
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
