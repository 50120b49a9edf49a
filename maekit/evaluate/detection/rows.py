"""Rows of boxes with one class each, and AVA's CSV files of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from maekit.atomic import write_text
from maekit.contracts import second_text
from maekit.errors import DataError
from maekit.text import as_text

if TYPE_CHECKING:
    from pathlib import Path

DECIMALS = 5  # of what is judged and written, as AlphAction's result files


class Frame(NamedTuple):
    """A key frame: a movie, and a time in it in seconds."""

    video: str
    second: float

    @property
    def words(self) -> tuple[str, str]:
        """Its two columns in AVA's files: seconds have four digits."""
        return as_text(self.video), second_text(self.second)


@dataclass(frozen=True)
class Rows:
    """n rows: a box in a key frame with one of its classes.

    Attributes:
        frames: int64 ``[n]``, numbers of key frames.
        boxes: float64 ``[n, 4]``: x1, y1, x2, y2 as fractions of the picture.
        classes: int64 ``[n]``.
        scores: float64 ``[n]``; 1 of what is true.
    """

    frames: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, places: np.ndarray | slice) -> Self:
        """Take some of the rows, by their places, a mask, or a slice, which copies nothing."""
        own = (self.frames, self.boxes, self.classes, self.scores)
        return type(self)(*(each[places] for each in own))

    @classmethod
    def of(cls, frames: Sequence[int] | np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Self:
        """Make a row of each box and class.

        Args:
            frames: the key frame of each of P boxes.
            boxes: ``[P, 4]``.
            scores: ``[P, K]`` of classes 1 to K; NaN where a box has no row of a class.
        """
        places, classes = np.nonzero(~np.isnan(scores))
        return cls(
            np.asarray(frames, np.int64)[places],
            np.asarray(boxes, np.float64).reshape(-1, 4)[places],
            classes + 1,
            scores[places, classes].astype(np.float64),
        )

    @classmethod
    def joined(cls, parts: Iterable[Rows]) -> Self:
        """Put rows one after the other."""
        all_ = list(parts)
        if not all_:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, np.zeros((0, 4)), nothing, np.zeros(0))
        return cls(
            np.concatenate([each.frames for each in all_]),
            np.concatenate([each.boxes for each in all_]),
            np.concatenate([each.classes for each in all_]),
            np.concatenate([each.scores for each in all_]),
        )

    def rounded(self) -> Self:
        """Round boxes and scores as they are written, so that what is judged is what is kept."""
        return type(self)(
            self.frames,
            np.round(np.clip(self.boxes, 0, 1), DECIMALS),
            self.classes,
            np.round(self.scores, DECIMALS),
        )


def write_rows(path: Path, rows: Rows, frames: Sequence[Frame]) -> None:
    """Write rows in AVA's result format, whole or not at all.

    ``video,second,x1,y1,x2,y2,class,score``, without a header.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    words = [frame.words for frame in frames]
    each = (rows.frames, rows.boxes, rows.classes, rows.scores)
    for frame, box, label, score in zip(*(array.tolist() for array in each), strict=True):
        corners = [f"{corner:.{DECIMALS}f}" for corner in box]
        table.writerow([*words[frame], *corners, label, f"{score:.{DECIMALS}f}"])
    write_text(path, text.getvalue())


def read_rows(path: Path, numbers: dict[Frame, int]) -> Rows:
    """Read a result file of AVA's format: rows of 8 columns, or of 2 for a frame without boxes.

    Args:
        path: of the file.
        numbers: of key frames; frames that are not among them are added.

    Raises:
        DataError: a row is something else.
    """
    with path.open(newline="", encoding="utf-8") as file:
        made = list(_rows(csv.reader(file), path, numbers))
    table = np.array(made, np.float64).reshape(-1, 7)
    return Rows(
        table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5].astype(np.int64), table[:, 6]
    )


def _rows(
    lines: Iterable[Sequence[str]], path: Path, numbers: dict[Frame, int]
) -> Iterator[Sequence[float]]:
    for number, row in enumerate(lines, start=1):
        try:
            frame = Frame(row[0], float(row[1]))
            place = numbers.setdefault(frame, len(numbers))
            if len(row) == 2:
                continue
            *corners, label, score = map(float, row[2:])
            x1, y1, x2, y2 = corners
        except (ValueError, IndexError) as error:
            what = f"expected video,second,x1,y1,x2,y2,class,score, found {','.join(row)}"
            raise DataError(what, where=f"{path}:{number}") from error
        yield place, x1, y1, x2, y2, label, score
