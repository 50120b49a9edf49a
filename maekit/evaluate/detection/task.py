"""What a detector learns: the actions of boxes, which sets bring as the labels of key frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from maekit.contracts import Boxes
from maekit.data.boxes import unnamed
from maekit.data.order import evenly
from maekit.engine.events import Note
from maekit.errors import DataError
from maekit.evaluate.labels import EXAMPLES
from maekit.evaluate.way import VAL

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.engine.events import Emit
    from maekit.recipe.schema import DataSpec

_SHOWN = 5
_SETS = "the data sets 'ava' and 'sample-actions' have boxes"


@dataclass(frozen=True)
class DetectionTask:
    """Actions as the head learns them.

    Attributes:
        outputs: names of the K actions.
        train: boxes of data.train's key frames.
        val: those of data.val's, annotated and detected ones.
        judged: numbers of the actions that count, from 0.
        excluded: boxes of data.val's seconds that are not judged.
    """

    outputs: tuple[str, ...]
    train: Sequence[Boxes]
    val: Sequence[Boxes]
    judged: tuple[int, ...]
    excluded: Sequence[Boxes] = ()
    best: str = "map"

    @property
    def person_boxes(self) -> str:
        """Whether the boxes that are asked for were annotated, or detected, or some of both."""
        kinds = {
            true
            for each in self.val
            for true, asks in zip(each.truth, each.asked, strict=True)
            if asks
        }
        words = [word for true, word in ((True, "annotated"), (False, "detected")) if true in kinds]
        return "+".join(words) or "none"


def detection_task(train: Dataset, val: Dataset) -> DetectionTask:
    """Make the task of two sets with boxes.

    Raises:
        DataError: one has none, or they know other actions.
    """
    sets = {"data.train": train, "data.val": val}
    seen, held_out = (boxes_of(dataset, key) for key, dataset in sets.items())
    names, others = (tuple(dataset.classes or ()) for dataset in (train, val))
    if names != others:
        strange = [name for name in others if name not in names] or ["the same in another order"]
        what = f"data.val has {len(others)} actions, and data.train {len(names)}"
        more = ", ..." if strange[_SHOWN:] else ""
        what += f"; not data.train's: {', '.join(strange[:_SHOWN])}{more}"
        raise DataError(what, where="data.val", hint="give both sets one list of actions")
    return DetectionTask(names, seen, held_out, judged_of(val), tuple(val.excluded))


def task_of_outputs(
    outputs: tuple[str, ...], val: Dataset, emit: Emit, *, named: bool
) -> DetectionTask:
    """Make the task of judging a trained head on one set: there is nothing to train on.

    Actions are matched by name; those that lists only number, and all where the head has no names,
    by their number.

    Args:
        outputs: names of what the head predicts.
        val: the set.
        emit: told where names were not matched.
        named: whether the names are those of actions; False: numbers, as the head has no names.

    Raises:
        DataError: the set has no boxes, or of actions that the head does not know.
    """
    boxes, names = boxes_of(val, VAL), tuple(val.classes or ())
    by_name = {name: place for place, name in enumerate(outputs)}
    strange, places = [], []
    for place, name in enumerate(names):
        by_number = place if not named or name == unnamed(place) else None
        found = by_name.get(name, by_number)
        if found is None or found >= len(outputs):
            strange.append(name)
        else:
            places.append(found)
    if strange or len(set(places)) < len(places):
        more = ", ..." if strange[_SHOWN:] else ""
        listed = ", ".join(strange[:_SHOWN]) + more or "two have one number"
        what = f"the actions of data.val are not among the {len(outputs)} of the model: {listed}"
        shown = ", ".join(outputs[:_SHOWN]) + (", ..." if outputs[_SHOWN:] else "")
        hint = f"it knows {shown}; data.val.actions: the list of actions that it was trained with"
        raise DataError(what, where=f"{VAL}.path", hint=hint)
    if not named:
        text = f"the weights do not name their {len(outputs)} actions: they count by their numbers"
        emit(Note(text, warning=True))
        outputs = names if len(names) == len(outputs) else outputs
    judged = tuple(sorted(places[action] for action in judged_of(val)))
    excluded: Sequence[Boxes] = val.excluded
    if places != list(range(len(places))):
        boxes, excluded = (_renumbered(each, places) for each in (boxes, excluded))
    return DetectionTask(outputs, (), boxes, judged, tuple(excluded))


def _renumbered(boxes: Sequence[Boxes], places: Sequence[int]) -> list[Boxes]:
    return [
        replace(
            each,
            labels=tuple(frozenset(places[action] for action in one) for one in each.labels),
        )
        for each in boxes
    ]


def boxes_of(dataset: Dataset, key: str) -> Sequence[Boxes]:
    """Return the boxes of every key frame of a set.

    Raises:
        DataError: it has none.
    """
    labels = dataset.labels
    if labels is None or not len(labels) or not isinstance(labels[0], Boxes):
        what = "the samples have no boxes, which head.kind: detection learns from"
        raise DataError(what, where=key, hint=_SETS)
    return cast("Sequence[Boxes]", labels)


def judged_of(dataset: Dataset) -> tuple[int, ...]:
    """Return the numbers of the actions that a set judges."""
    if dataset.judged is None:
        return tuple(range(len(dataset.classes or ())))
    return tuple(dataset.judged)


def targets(boxes: Sequence[Boxes], outputs: int) -> np.ndarray:
    """Return which actions each box has, float32 ``[P, K]``."""
    sets = [actions for each in boxes for actions in each.labels]
    found = np.zeros((len(sets), outputs), np.float32)
    for row, actions in zip(found, sets, strict=True):
        row[list(actions)] = 1
    return found


def asked(boxes: Sequence[Boxes]) -> int:
    """Count the boxes that are learned, or asked for."""
    return sum(sum(each.asked) for each in boxes)


def announce(task: DetectionTask, train: Dataset, emit: Emit) -> None:
    """Announce actions, counts and five examples: what is about to be learned."""
    learned, judged = (asked(boxes) for boxes in (task.train, task.val))
    emit(
        Note(
            f"{len(task.outputs)} actions ({len(task.judged)} judged), {learned:,} boxes in "
            f"{len(task.train):,} key frames to train on, {judged:,} {task.person_boxes} boxes in "
            f"{len(task.val):,} to judge"
        )
    )
    for index in evenly(len(task.train), EXAMPLES):
        boxes = task.train[index]
        shown = [
            "+".join(task.outputs[action] for action in sorted(actions)) or "nothing"
            for actions in boxes.only(boxes.asked).labels[:_SHOWN]
        ]
        emit(Note(f"  {train.name(index)}: {', '.join(shown) or 'no box'}"))
    _doubt_what_is_asked(task, emit)
    seen = {action for each in task.train for actions in each.labels for action in actions}
    absent = [task.outputs[action] for action in task.judged if action not in seen]
    if absent:
        names = ", ".join(absent[:_SHOWN])
        emit(Note(f"{len(absent)} judged actions have no box to train on: {names}", warning=True))


_TAKEN = ("frames", "stride", "rate", "first")


def announce_other_clips(train: DataSpec, val: DataSpec, emit: Emit) -> None:
    """Warn where data.val's clips are taken otherwise than data.train's.

    But for the number of frames, data.val is as it says itself: what it leaves out is at its
    default.
    """
    both = {key: (getattr(train, key), getattr(val, key)) for key in _TAKEN}
    other = {key: each for key, each in both.items() if each[0] != each[1]}
    if other:
        said = [
            f"{key} {_said(one)} in data.train and {_said(two)} in data.val"
            for key, (one, two) in other.items()
        ]
        hint = ", ".join(f"data.val.{key}={_said(one)}" for key, (one, _) in other.items())
        text = f"clips are judged otherwise than they are learned: {'; '.join(said)}"
        emit(Note(f"{text}. Is it meant? else {hint}", warning=True))


def _said(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def announce_judged(task: DetectionTask, emit: Emit) -> None:
    """Announce what is about to be judged."""
    text = f"{len(task.outputs)} actions ({len(task.judged)} judged), {asked(task.val):,} "
    emit(Note(f"{text}{task.person_boxes} boxes in {len(task.val):,} key frames"))
    _doubt_what_is_asked(task, emit)


def _doubt_what_is_asked(task: DetectionTask, emit: Emit) -> None:
    if task.person_boxes == "none":
        emit(Note("data.val asks for no box: nothing can be found in it", warning=True))
    elif "+" in task.person_boxes:
        text = "data.val asks for true boxes beside detected ones, which no protocol does"
        emit(Note(f"{text}: its mAP is too high; data.val.ask: detected", warning=True))
