"""Moments of named films, with boxes of which nobody said what happens in them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from maekit.contracts import Boxes, Dataset, Source
from maekit.data.video import OpenVideo, open_video
from maekit.datasets.box_lists import BoxRow
from maekit.datasets.movies import clock
from maekit.datasets.named_files import NamedFile
from maekit.errors import DataError, RecipeError
from maekit.text import quantity

WHOLE = (0.0, 0.0, 1.0, 1.0)
_SHOWN = 3  # names in a message
Corners = tuple[float, float, float, float]


@dataclass
class NamedMoments(Dataset):
    """Moments of films as a dataset: one label of boxes each.

    Attributes:
        files: by the name that labels call them.
        labels: boxes of each moment.
    """

    files: Mapping[str, NamedFile]
    labels: Sequence[Boxes]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Return film and second."""
        return self.labels[index].frame

    def open(self, index: int) -> Source:
        """Open the film of a moment.

        Raises:
            DataError: it cannot be read.
        """
        label = self.labels[index]
        video = film(self.files[label.movie])
        at = clock(video.seconds)

        def around(seconds: Sequence[float], late: float) -> Sequence[int]:
            return at([label.second + second for second in seconds], late)

        return Source(video.info._replace(id=label.frame, label=label), video.decode, around)


def film(file: NamedFile) -> OpenVideo:
    """Open a named video.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if file.missing is not None:
        raise DataError(file.missing, where=file.name)
    return open_video(file.path, file.name)


def moments_every(video: OpenVideo, every: float) -> list[float]:
    """Return a moment every so many seconds, in the middle of its share of the film."""
    length = float(video.seconds[-1]) + (1 / video.index.fps if video.index.fps else 0.0)
    count = max(1, round(length / every))
    return [length * (2 * place + 1) / (2 * count) for place in range(count)]


def whole_frames(name: str, seconds: Sequence[float]) -> list[Boxes]:
    """Return a label for each moment, whose one box is the whole frame."""
    return [boxes_at(name, second, [WHOLE], [1.0]) for second in seconds]


def boxes_at(
    name: str, second: float, corners: Sequence[Corners], scores: Sequence[float]
) -> Boxes:
    """Return the label of persons at a moment."""
    return Boxes(
        np.array(corners, np.float64).reshape(-1, 4),
        (frozenset(),) * len(corners),
        tuple(scores),
        truth=(False,) * len(corners),
        movie=name,
        second=second,
    )


class Listed(NamedTuple):
    """What a list says of some films.

    Attributes:
        moments: of each film that it names, in time.
        left_out: what of it is not used, and why, a line each.
    """

    moments: dict[str, list[Boxes]]
    left_out: list[str]


def of_rows(rows: Sequence[BoxRow], files: Sequence[NamedFile], where: str) -> Listed:
    """Return the moments of each film that a list of boxes has.

    Rows name a film by its path, its name, or that without its suffix.

    Raises:
        RecipeError: the list has no row of any of the films.
    """
    names: dict[str, list[str]] = {}
    for file in files:
        base = os.path.basename(file.path)  # noqa: PTH119
        for word in {file.name, base, os.path.splitext(base)[0]}:  # noqa: PTH122
            names.setdefault(word, []).append(file.name)
    moments: dict[str, dict[float, dict[Corners, float]]] = {}
    strange: list[BoxRow] = []
    empty: list[BoxRow] = []
    for row in rows:
        films = names.get(row.movie, ())
        strange += [] if films else [row]
        corners = None if row.corners is None else _cut(row.corners)
        empty += [row] if films and row.corners is not None and corners is None else []
        for name in films:
            here = moments.setdefault(name, {}).setdefault(row.second, {})
            if corners is not None:
                here[corners] = row.score
    if not moments:
        known, listed = ", ".join(sorted(names)[:_SHOWN]), ", ".join(_movies(strange))
        msg = f"has boxes of {listed or 'nothing'}, and of none of the films ({known})"
        raise RecipeError(msg, where=f"--boxes {where}", hint="its first column names the film")
    left_out = []
    if empty:
        lines = ", ".join(f"line {row.line}" for row in empty[:_SHOWN])
        lines += ", ..." if empty[_SHOWN:] else ""
        count = quantity(len(empty), "boxes")
        left_out.append(f"{where}: {count} without extent in the picture, left out ({lines})")
    if strange:
        count = quantity(len(strange), "rows")
        left_out.append(
            f"{where}: {count} of no film that is given ({', '.join(_movies(strange))})"
        )
    made = {
        name: [
            boxes_at(name, second, list(here), list(here.values()))
            for second, here in sorted(found.items())
        ]
        for name, found in moments.items()
    }
    return Listed(made, left_out)


def _cut(corners: Corners) -> Corners | None:
    """Cut a box at the picture's edge; None: nothing is left of it."""
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in corners)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _movies(rows: Sequence[BoxRow]) -> list[str]:
    names = sorted({row.movie for row in rows})
    return [*names[:_SHOWN], *(["..."] if names[_SHOWN:] else [])]
