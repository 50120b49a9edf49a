"""Targets, losses and measures of classes, labels and values."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import Dataset, Source
from maekit.errors import DataError
from maekit.evaluate.labels import LabelTable, Task, mean_average_precision, task_of


class Named(Dataset):
    """A labeled set of which only the labels matter."""

    def __init__(self, *names: str) -> None:
        self.classes: Sequence[str] = tuple(sorted(set(names)))
        self.labels = np.array([self.classes.index(name) for name in names])
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def open(self, index: int) -> Source:
        raise NotImplementedError


def task(kind: str, outputs: int = 4) -> Task:
    table = LabelTable(np.arange(outputs), outputs, np.eye(outputs, dtype=np.float32))
    best = {"multiclass": "top1", "multilabel": "map", "regression": "r2"}[kind]
    return Task(kind, tuple("abcdefg"[:outputs]), table, table, best)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classes_with_smoothing_are_torchs_cross_entropy(smoothing: float) -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 2])
    one = task("multiclass")
    targets = one.smooth(torch.eye(4)[labels], smoothing)
    assert torch.allclose(targets.sum(1), torch.ones(6))
    off = smoothing / 4
    assert float(targets[0, 0]) == pytest.approx(1 - smoothing + off)
    assert float(targets[0, 1]) == pytest.approx(off)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(one.loss(logits, targets), expected)


def test_labels_are_torchs_binary_cross_entropy_and_values_its_squared_error() -> None:
    logits, labels = torch.randn(5, 4), (torch.rand(5, 4) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    torch.testing.assert_close(task("multilabel").loss(logits, labels), expected)
    smooth = task("multilabel").smooth(labels, 0.2)
    assert sorted(set(smooth.flatten().tolist())) == pytest.approx([0.1, 0.9])
    expected = F.mse_loss(logits, labels, reduction="none").mean(1)
    torch.testing.assert_close(task("regression").loss(logits, labels), expected)
    assert torch.equal(task("regression").smooth(labels, 0.2), labels)


def test_average_precision_is_scikit_learns_ties_included() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < 0.3).astype(np.float32)
    scores = np.round(rng.random((60, 5)), 1)
    expected = average_precision_score(labels, scores, average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected)
    labels[:, 2] = 0  # a label that nothing has is left out
    kept = [0, 1, 3, 4]
    expected = average_precision_score(labels[:, kept], scores[:, kept], average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected)


def test_classes_of_both_sets_are_numbered_as_in_training() -> None:
    found = task_of("multiclass", Named("b", "a", "c"), Named("c", "b"))
    assert found.outputs == ("a", "b", "c")
    assert found.targets([0, 1, 2]).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert found.labels.tolist() == [2, 1]
    assert found.targets([2, 0], repeats=2).argmax(1).tolist() == [2, 2, 1, 1]
    for train, val in ((Named("a", "a"), Named("a")), (Named("a", "b"), Named("z"))):
        with pytest.raises(DataError):
            task_of("multiclass", train, val)


def test_labels_are_joined_by_a_bar() -> None:
    found = task_of("multilabel", Named("cat|dog", "-", "owl"), Named("owl|cat"))
    assert found.outputs == ("cat", "dog", "owl")
    assert found.targets([0, 1, 2]).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert found.labels.tolist() == [[1, 0, 1]]
    with pytest.raises(DataError, match="eel"):
        task_of("multilabel", Named("cat|dog"), Named("cat|eel"))
    with pytest.raises(DataError, match="1 different labels"):
        task_of("multilabel", Named("cat", "-"), Named("cat"))


def test_values_are_numbers_joined_by_a_bar() -> None:
    found = task_of("regression", Named("1.5|-2", "0|3"), Named("2|2"))
    assert found.outputs == ("value_0", "value_1")
    assert found.targets([0, 1]).tolist() == [[1.5, -2], [0, 3]]
    with pytest.raises(DataError, match="1 values"):
        task_of("regression", Named("1|2", "3|4"), Named("5"))
    for odd in (Named("1", "red"), Named("1|2", "3"), Named("1", "inf")):
        with pytest.raises(DataError):
            task_of("regression", odd, Named("1"))


def test_measures() -> None:
    asked = LabelTable(np.arange(3), 1, np.array([[1.0], [2.0], [3.0]]))
    values = Task("regression", ("v",), asked, asked, "r2")
    found = values.measure(np.array([[1.0], [2.0], [4.0]]))
    assert found["mse"] == pytest.approx(1 / 3)
    assert found["mae"] == pytest.approx(1 / 3)
    assert found["r2"] == pytest.approx(1 - (1 / 3) / (2 / 3))
    classes = task("multiclass")
    assert classes.measure(np.eye(4)) == {"top1": 1.0, "top5": 1.0}
    assert classes.chance() == 0.25
    labels = task("multilabel")
    assert labels.measure(np.eye(4)) == {"map": 1.0, "exact": 1.0}


def test_many_samples_of_many_classes_take_little_memory() -> None:
    """ImageNet's labels, one hot, would be 5 GB."""
    names = [f"{number % 500:03d}" for number in range(20_000)]
    train = Named(*names[:500])
    train.names, train.labels = tuple(names), np.arange(20_000) % 500
    task_of("multiclass", Named("003", "004"), Named("003"))  # what it imports is no table
    tracemalloc.start()
    found = task_of("multiclass", train, Named("003"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 500  # a fourth of a table of all samples
    assert found.targets([7, 507], repeats=2).argmax(1).tolist() == [7] * 4
