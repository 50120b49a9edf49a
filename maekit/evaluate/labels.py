"""Labels are looked at before anything is trained on them: most wrong accuracies begin there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maekit.engine.events import Emit, Note
from maekit.errors import DataError

if TYPE_CHECKING:
    from maekit.contracts import Dataset

EXAMPLES = 5
_SHOWN = 5  # names in a message
_SIGMAS = 2.0  # how far above chance an accuracy must be to count as above


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
    """The label of every row, int64 ``[n]``, without reading pixels.

    Raises:
        DataError: the set is unlabeled.
    """
    if dataset.classes is None:
        hint = "give a list with labels, or one folder for each class"
        raise DataError("the set has no labels", where=f"{key}.path", hint=hint)
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
    seen, asked = labels_of(train, "data.train"), labels_of(val, "data.val")
    classes = tuple(train.classes or ())
    used = np.unique(seen)
    if len(used) < 2:
        only = classes[int(used[0])] if len(used) else "none"
        what = f"all {len(seen)} samples are of one class: {only}"
        hint = "one folder for each class right below data.train.path, or a list with labels"
        raise DataError(what, where="data.train.path", hint=hint)
    names = tuple(val.classes or ())
    trained = {classes[int(label)] for label in used}
    strange = sorted({names[int(label)] for label in np.unique(asked)} - trained)
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        what = (
            f"{len(strange)} classes that data.train has not: {', '.join(strange[:_SHOWN])}{more}"
        )
        hint = "are both lists, or folders, of the same set?"
        raise DataError(what, where="data.val.path", hint=hint)
    numbers = {name: number for number, name in enumerate(classes)}
    mapped = np.array([numbers[names[int(label)]] for label in asked], np.int64)
    return Labeled(classes, seen, mapped)


def tell_labels(train: Dataset, labeled: Labeled, emit: Emit) -> None:
    """Classes, counts and five examples, so that a person sees what is about to be learned."""
    counts = np.bincount(labeled.train, minlength=len(labeled.classes))
    held = np.bincount(labeled.val, minlength=len(labeled.classes))
    emit(
        Note(
            f"{np.count_nonzero(counts)} classes, {len(labeled.train):,} samples to train on "
            f"({_range(counts)} a class), {len(labeled.val):,} to judge ({_range(held)} a class)"
        )
    )
    for index in np.unique(np.linspace(0, len(train) - 1, EXAMPLES).round().astype(int)).tolist():
        emit(Note(f"  {train.name(index)}: {labeled.classes[int(labeled.train[index])]}"))
    absent = [name for name, n in zip(labeled.classes, counts.tolist(), strict=True) if not n]
    if absent:
        emit(
            Note(f"{len(absent)} classes have no sample to train on: {', '.join(absent[:_SHOWN])}")
        )


def _range(counts: np.ndarray) -> str:
    there = counts[counts > 0]
    low, high = int(there.min()), int(there.max())
    return f"{low}" if low == high else f"{low} to {high}"


def chance_level(labels: np.ndarray) -> float:
    """The accuracy of always naming the most frequent of these labels."""
    return float(np.bincount(labels).max() / len(labels))


def warn_at_chance(top1: float, labels: np.ndarray, emit: Emit) -> bool:
    """Warn where an accuracy is no more than chance; returns whether it is."""
    chance = chance_level(labels)
    bound = chance + _SIGMAS * math.sqrt(chance * (1 - chance) / len(labels))
    if top1 > bound:
        return False
    emit(
        Note(
            f"top-1 {top1:.3f} is no better than chance ({chance:.3f} for the most frequent class, "
            f"{bound:.3f} with its spread): look at the examples and labels above",
            warning=True,
        )
    )
    return True
