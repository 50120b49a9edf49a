"""Exact tests of chance, against every permutation and worked numbers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from maekit.engine.events import Event, Note
from maekit.evaluate.chance import as_good_by_luck, matches_by_luck
from maekit.evaluate.labels import (
    Labeled,
    LabelTable,
    Task,
    announce_task,
    doubts_of_classes,
    mean_average_precision,
    warn_at_chance,
    warn_of_accuracy,
)


@pytest.mark.parametrize(("predicted", "labels"), [
    ([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 0]),
    ([0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 1, 2]),
    ([1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0]),
    ([0, 1, 2, 3, 4, 5, 0], [0, 1, 2, 3, 5, 4, 0]),
])  # fmt: skip
def test_every_deal_is_counted(predicted: list[int], labels: list[int]) -> None:
    for turn in range(len(labels)):
        truth = np.roll(labels, turn)
        right = int((np.array(predicted) == truth).sum())
        deals = [int((np.array(deal) == truth).sum()) for deal in permutations(predicted)]
        expected = np.mean([count >= right for count in deals])
        assert matches_by_luck(np.array(predicted), truth) == pytest.approx(expected, abs=1e-12)


def test_worked_numbers() -> None:
    rare = np.array([0] * 38 + [1] * 2)
    assert matches_by_luck(rare, rare) == pytest.approx(1 / 780)  # 2 of 40 chosen, both right
    assert matches_by_luck(np.zeros(40, int), rare) == 1.0  # what is always named is no find
    coins = np.array([0, 1] * 5)
    assert matches_by_luck(coins, coins) == pytest.approx(1 / 252)
    large = np.array([0] * 380 + [1] * 20)  # dealt at random: too many for every deal
    assert matches_by_luck(large, large) == 1 / 1000
    assert matches_by_luck(np.roll(large, 20), large) == 1.0


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[classes]


@pytest.mark.parametrize(("predicted", "labels", "warns"), [
    ([0] * 38 + [1] * 2, [0] * 38 + [1] * 2, False),
    ([0] * 40, [0] * 38 + [1] * 2, True),
    ([0] * 37 + [1] * 3, [0] * 38 + [1] * 2, False),  # 39 of 40, and both of the ill
    ([1, 1] + [0] * 38, [0] * 38 + [1] * 2, True),  # 36 of 40, none of the ill
    ([0, 1, 2, 3] * 3, [0, 1, 2, 3] * 3, False),
    ([0, 1, 2], [0, 2, 1], True),
    ([0, 1], [0, 1], True),  # two right of two: luck in half of the cases
])  # fmt: skip
def test_the_verdict(predicted: list[int], labels: list[int], warns: bool) -> None:
    said: list[Event] = []
    scores, right = one_hot(np.array(predicted), 4), np.array(labels)
    assert warn_of_accuracy(scores, right, said.append) is warns
    assert any(isinstance(note, Note) and note.warning for note in said) is warns


def test_a_find_below_the_most_frequent_class_is_no_chance_and_told() -> None:
    labels = np.array([0] * 38 + [1] * 2)
    predicted = np.array([1] * 4 + [0] * 34 + [1] * 2)  # both ill are found, at the cost of four
    said: list[Event] = []
    assert not warn_of_accuracy(one_hot(predicted, 2), labels, said.append)
    [note] = said
    assert isinstance(note, Note)
    assert "top-1 0.900 is below 0.950" in note.text
    assert not note.warning


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_values_are_dealt_too(kind: str) -> None:
    rng = np.random.default_rng(0)
    # Few have it, so that any ranking has an average precision above their share.
    labels = (rng.random((60, 4)) < 0.06).astype(float)
    if kind == "regression":
        labels = rng.normal(size=(60, 4))
    table = LabelTable(np.arange(60), 4, labels)
    task = Task(kind, tuple("abcd"), table, table, "map" if kind == "multilabel" else "r2")  # type: ignore[arg-type]
    said: list[Event] = []
    warn_at_chance(task, labels + 0.3 * rng.normal(size=labels.shape), said.append)
    assert not said
    warn_at_chance(task, labels[rng.permutation(60)], said.append)
    assert isinstance(said[0], Note)
    assert "no better than chance" in said[0].text


def test_a_thousand_labels_cost_no_more_than_some() -> None:
    """Few of them are sorted in each deal, and dealing ends once it is clear."""
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 1000)) < 0.05).astype(float)
    widths: list[int] = []

    def counting(scores: np.ndarray, own: np.ndarray) -> float | None:
        widths.append(scores.shape[1])
        return mean_average_precision(scores, own)

    assert as_good_by_luck(counting, labels + rng.normal(size=labels.shape), labels) <= 0.01
    assert max(widths) <= 64
    widths.clear()
    noise = np.random.default_rng(1).normal(size=labels.shape)
    assert as_good_by_luck(counting, noise, labels) > 0.05
    assert len(widths) < 190
    widths.clear()
    # Labels that all or no samples have tell nothing: the one that differs is found.
    rare = np.zeros((60, 1000))
    rare[:, 1::2] = 1
    rare[:20, 637] = 0
    assert as_good_by_luck(counting, rare + 0.1 * rng.normal(size=rare.shape), rare) <= 0.01
    assert set(widths) == {1}


def test_a_measure_that_cannot_be_taken_is_chance() -> None:
    nothing = np.zeros((8, 2))
    assert as_good_by_luck(mean_average_precision, nothing, nothing) == 1.0


@pytest.mark.parametrize(("names", "counts", "said"), [
    (("cat|dog", "dog", "owl"), 9, "1 of 3 classes join several labels by '|' (cat|dog)"),
    (tuple(f"{n}.5" for n in range(12)), 30, "head.kind=regression"),
    (tuple(f"-{n}e-1" for n in range(12)), 30, "are numbers"),
    (tuple(f"a photo of {n}" for n in range(40)), 40, "names of samples"),
    (("cat", "dog", "a|"), 9, None),
    (tuple(str(n) for n in range(12)), 40, None),
    (("cat", "dog"), 2, None),
])  # fmt: skip
def test_classes_that_look_like_something_else(
    names: tuple[str, ...], counts: int, said: str | None
) -> None:
    labels = np.arange(counts) % len(names)
    notes: list[Event] = []
    doubts_of_classes(Labeled(names, labels, labels), notes.append)
    texts = [note.text for note in notes if isinstance(note, Note) and note.warning]
    assert len(texts) == (said is not None)
    assert said is None or said in texts[0]


def test_single_labels_as_several_are_told() -> None:
    class Named:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def name(self, index: int) -> str:
            return str(index)

    table = LabelTable(np.arange(4) % 3, 3, np.eye(3, dtype=np.float32))
    task = Task("multilabel", ("a", "b", "c"), table, table, "map")
    notes: list[Event] = []
    announce_task(task, Named(4), Named(4), notes.append)  # type: ignore[arg-type]
    assert "kind: multiclass" in notes[-1].text
