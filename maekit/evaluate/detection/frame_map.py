"""Frame mAP at IoU 0.5, as the four public evaluators of AVA compute it, who disagree.

A detection is held against the true box of its class that it overlaps most, and no other: if that
one is taken, it is false (PASCAL VOC). Average precision is the area under the envelope of all
points of precision over recall (VOC 2010). Dialects, with what sets them apart:

- ``alphaction`` (AlphAction, VideoMAE-Action-Detection; VideoMAE's numbers): detections in frames
  without ground truth are false;
- ``activitynet`` (the challenge): they are ignored, and of a frame's rows the 50 best count;
- ``slowfast``: as alphaction, but boxes are taken in the file's order instead of by score;
- ``mmaction``: as activitynet without the limit; empty boxes count, a class that is never detected
  does not, and true boxes of excluded seconds stay in the number to be found.

Sources: activitynet/ActivityNet 82304fa, MCG-NJU/VideoMAE-Action-Detection 15615db,
facebookresearch/SlowFast 287ec00, open-mmlab/mmaction2 4d6c934.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from maekit.data.boxes import iou
from maekit.evaluate.detection.rows import Rows

Dialect = Literal["alphaction", "activitynet", "slowfast", "mmaction"]
DIALECTS: Sequence[Dialect] = get_args(Dialect)
IOU = 0.5
_MOST = 50  # rows of a frame, in activitynet


class Curve(NamedTuple):
    """What is found of a class.

    Attributes:
        true: its true boxes.
        found: its detections that count.
        recall: ``[found]``, by falling score.
        precision: the envelope, likewise.
        average: average precision; None where there is none, or where the dialect leaves it out.
    """

    true: int
    found: int
    recall: np.ndarray
    precision: np.ndarray
    average: float | None


@dataclass(frozen=True)
class FrameMAP:
    """Curves of classes, and the mean of their average precisions."""

    curves: dict[int, Curve]

    @property
    def mean(self) -> float | None:
        """The mean over classes that have an average precision; None: none has."""
        known = [each.average for each in self.curves.values() if each.average is not None]
        return float(np.mean(known)) if known else None


def frame_map(
    truth: Rows,
    found: Rows,
    *,
    classes: Collection[int],
    excluded: Collection[int] = (),
    dialect: Dialect = "alphaction",
) -> FrameMAP:
    """Compute frame mAP.

    Args:
        truth: true boxes.
        found: detections, in the order of their file.
        classes: that are judged; rows of others are dropped on both sides.
        excluded: frames that are not judged.
        dialect: whose rules.
    """
    wanted, out = np.array(sorted(classes), np.int64), np.array(sorted(excluded), np.int64)
    truth = truth[np.isin(truth.classes, wanted)]
    found = found[np.isin(found.classes, wanted) & ~np.isin(found.frames, out)]
    every, truth = truth.classes, truth[~np.isin(truth.frames, out)]
    # In mmaction, boxes of excluded seconds stay in the number.
    counted = np.sort(every if dialect == "mmaction" else truth.classes)
    found = _in_order(found, dialect)
    if dialect in {"activitynet", "mmaction"}:
        found = found[np.isin(found.frames, truth.frames)]
    curves = {}
    for label, true, rows in zip(
        wanted.tolist(), _by_class(truth, wanted), _by_class(found, wanted), strict=True
    ):
        count = int(np.diff(np.searchsorted(counted, [label, label + 1]))[0])
        ranking = np.argsort(rows.scores, kind="stable")[::-1]  # of equal scores the last first
        takes = np.arange(len(rows)) if dialect == "slowfast" else ranking
        hits = _hits(true, rows, takes)[ranking]
        curves[label] = _curve(hits, count, left_out=dialect == "mmaction" and not len(rows))
    return FrameMAP(curves)


def _by_class(rows: Rows, wanted: np.ndarray) -> Iterator[Rows]:
    """Yield the rows of each class, in their order; all are gone through once, not once a class."""
    rows = rows[np.argsort(rows.classes, kind="stable")]
    bounds = np.searchsorted(rows.classes, [wanted, wanted + 1])
    for first, last in bounds.T.tolist():
        yield rows[slice(first, last)]


def _in_order(found: Rows, dialect: Dialect) -> Rows:
    """Group rows by frames, these in order of appearance, and drop those that never count."""
    _, first, frame = np.unique(found.frames, return_index=True, return_inverse=True)
    by_score = dialect in {"activitynet", "mmaction"}
    within = -found.scores if by_score else np.zeros(len(found))
    found = found[np.lexsort((within, first[frame]))]
    if dialect == "activitynet" and len(found):
        starts = np.flatnonzero(np.diff(found.frames, prepend=found.frames[0] - 1))
        sizes = np.diff(np.append(starts, len(found)))
        found = found[np.arange(len(found)) - np.repeat(starts, sizes) < _MOST]
    if dialect != "mmaction":
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        found = found[np.flatnonzero(sides.min(axis=1, initial=1) > 0)]
    return found


def _hits(truth: Rows, rows: Rows, takes: np.ndarray) -> np.ndarray:
    """Tell which rows of a class find a true box, bool ``[n]``; they take them in an order."""
    truth = truth[np.argsort(truth.frames, kind="stable")]
    first = np.searchsorted(truth.frames, rows.frames, "left")
    many = np.searchsorted(truth.frames, rows.frames, "right") - first
    # Pairs of a row and a true box of its frame; of each row, the one that overlaps most.
    row = np.repeat(np.arange(len(rows)), many)
    box = np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many) + first[row]
    overlaps = iou(rows.boxes[row], truth.boxes[box])
    best = np.lexsort((box, -overlaps, row))
    best = best[np.diff(row[best], prepend=-1) != 0]
    best = best[overlaps[best] >= IOU]
    place = np.empty(len(rows), np.int64)
    place[takes] = np.arange(len(rows))
    best = best[np.argsort(place[row[best]])]
    _, earliest = np.unique(box[best], return_index=True)
    hits = np.zeros(len(rows), np.bool_)
    hits[row[best[earliest]]] = True
    return hits


def _curve(hits: np.ndarray, count: int, *, left_out: bool) -> Curve:
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = true / max(1, count)
    average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    judged = count > 0 and not left_out
    return Curve(count, len(hits), recall, precision, average if judged else None)
