"""Found boxes held against true ones: frame mAP, by action and by movie, and what is by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from maekit.data.rng import generator
from maekit.evaluate.detection.frame_map import Curve, FrameMAP, frame_map
from maekit.evaluate.detection.rows import Frame, Rows

if TYPE_CHECKING:
    from maekit.contracts import Boxes
    from maekit.evaluate.detection.found import Found
    from maekit.evaluate.detection.task import DetectionTask
    from maekit.recipe.detection import BoxPooling

_DEALS = 5


@dataclass(frozen=True)
class JudgedBoxes:
    """What was found of a task's key frames, and how boxes are judged."""

    task: DetectionTask
    found: Found
    options: BoxPooling

    @cached_property
    def frames(self) -> list[Frame]:
        """The key frames of data.val, then those that are left out."""
        own = [*self.task.val, *self.task.excluded]
        return [Frame(each.movie, each.second) for each in own]

    @cached_property
    def truth(self) -> Rows:
        """The true boxes, also of key frames that could not be read."""
        return true_rows([*self.task.val, *self.task.excluded], len(self.task.outputs))

    @cached_property
    def rows(self) -> Rows:
        """What was found, as it is written and judged."""
        return self._rows(self.found.actions)

    def _rows(self, actions: np.ndarray) -> Rows:
        scores = actions.astype(np.float64)
        if self.options.person_score:
            scores = scores * self.found.persons[:, None]
        return Rows.of(self.found.rows, self.found.corners, scores).rounded()

    def _map(self, rows: Rows, truth: Rows | None = None) -> FrameMAP:
        return frame_map(
            self.truth if truth is None else truth,
            rows,
            classes=[action + 1 for action in self.task.judged],
            excluded=range(len(self.task.val), len(self.frames)),
            dialect=self.options.dialect,
        )

    @cached_property
    def all(self) -> FrameMAP:
        """Curves of all judged actions."""
        return self._map(self.rows)

    def measures(self) -> dict[str, float | None]:
        """Return what is kept of every look at data.val; fractions."""
        return {"map": self.all.mean}

    def floors(self) -> dict[str, float | None]:
        """Return the mAP of scores that do not look at the box they are of.

        ``chance``: scores dealt out to all boxes at random; ``same_in_frame``: each box has the
        mean of its key frame's, as a clip-level model would say; ``moved_on``: each box has the
        scores of the next one in its key frame.
        """
        actions = self.found.actions
        rng = generator(0, purpose="chance", epoch=0, index=0, repeat=0)
        dealt = [
            self._map(self._rows(actions[rng.permutation(len(actions))])).mean
            for _ in range(_DEALS)
        ]
        known = [value for value in dealt if value is not None]
        moved, same = actions.copy(), actions.copy()
        for places in _per_row(self.found.rows):
            moved[places] = actions[np.roll(places, -1)]
            same[places] = actions[places].mean(axis=0)
        return {
            "chance": float(np.mean(known)) if known else None,
            "same_in_frame": self._map(self._rows(same)).mean,
            "moved_on": self._map(self._rows(moved)).mean,
        }

    def per_class(self) -> list[tuple[str, Curve]]:
        """Return the curve of each judged action."""
        return [
            (self.task.outputs[action], self.all.curves[action + 1]) for action in self.task.judged
        ]

    def per_movie(self) -> dict[str, dict[str, float | int | None]]:
        """Return mAP and number of true boxes of each movie."""
        movies = np.array([frame.video for frame in self.frames], dtype=object)
        of_truth, of_rows = movies[self.truth.frames], movies[self.rows.frames]
        found: dict[str, dict[str, float | int | None]] = {}
        for movie in dict.fromkeys(frame.video for frame in self.frames[: len(self.task.val)]):
            truth, rows = self.truth[of_truth == movie], self.rows[of_rows == movie]
            made = self._map(rows, truth)
            boxes = sum(curve.true for curve in made.curves.values())
            found[movie] = {"map": made.mean, "true": boxes}
        return found

    def summary(self) -> dict[str, Any]:
        """Return what result.json holds besides the measures."""
        options = self.options
        return {
            "dialect": options.dialect,
            "person_boxes": self.task.person_boxes,
            "score_rule": "action x person" if options.person_score else "action",
            "iou": 0.5,
            "boxes": len(self.found),
            "true": sum(curve.true for _, curve in self.per_class()),
            "unread": len(self.found.bad),
            "per_class": {name: curve.average for name, curve in self.per_class()},
            "per_movie": self.per_movie(),
            "floor": self.floors(),
        }


def true_rows(boxes: Sequence[Boxes], outputs: int) -> Rows:
    """Return the rows of annotated boxes: one for each of a box's actions."""
    frames: list[int] = []
    corners: list[np.ndarray] = []
    hot: list[np.ndarray] = []
    for number, each in enumerate(boxes):
        for box, actions, true in zip(each.corners, each.labels, each.truth, strict=True):
            if true and actions:
                row = np.full(outputs, np.nan)
                row[list(actions)] = 1
                frames.append(number)
                corners.append(box)
                hot.append(row)
    if not frames:
        return Rows.joined([])
    return Rows.of(frames, np.stack(corners), np.stack(hot))


def _per_row(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places of each key frame's boxes, which stand together."""
    if len(rows):
        yield from np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows)) + 1)
