"""Labels of boxes in little memory: made one at a time, of arrays for all.

A set of 200,000 moments has a million boxes, and is sent to each loader worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import overload

import numpy as np

from maekit.contracts import Boxes


@dataclass
class Person:
    """One box in the making."""

    corners: tuple[float, float, float, float]
    labels: set[int] = field(default_factory=set)
    score: float = 1.0
    person: int = -1
    truth: bool = True
    asked: bool = True


@dataclass
class Moment:
    """What is known of one second of a movie."""

    movie: str
    second: float
    where: str = ""  # ``file:line`` of the row that names it first
    people: list[Person] = field(default_factory=list)


class BoxTable(Sequence[Boxes]):
    """Boxes of each moment, in the order in which they are given.

    Attributes:
        movies: their names, each once.
    """

    def __init__(self, moments: Sequence[Moment]) -> None:
        people = [person for moment in moments for person in moment.people]
        self.movies = tuple(dict.fromkeys(moment.movie for moment in moments))
        numbers = {movie: number for number, movie in enumerate(self.movies)}
        self._movie = np.array([numbers[moment.movie] for moment in moments], np.int32)
        self._second = np.array([moment.second for moment in moments], np.float64)
        files = [moment.where.rpartition(":")[0] for moment in moments]
        self._files = tuple(dict.fromkeys(files))
        self._file = np.array([self._files.index(file) for file in files], np.int8)
        lines = (moment.where.rpartition(":")[2] for moment in moments)
        self._line = np.array([int(line or 0) for line in lines], np.int32)
        self._first = _ends(len(moment.people) for moment in moments)
        self._corners = np.array([each.corners for each in people]).reshape(-1, 4)
        self._score = np.array([each.score for each in people], np.float64)
        self._person = np.array([each.person for each in people], np.int64)
        self._truth = np.array([each.truth for each in people], np.bool_)
        self._asked = np.array([each.asked for each in people], np.bool_)
        self._first_label = _ends(len(each.labels) for each in people)
        labels = chain.from_iterable(sorted(each.labels) for each in people)
        self._label = np.array(list(labels), np.int32)

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self._second)

    @overload
    def __getitem__(self, index: int) -> Boxes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Boxes]: ...
    def __getitem__(self, index: int | slice) -> Boxes | Sequence[Boxes]:
        """Return the boxes of a moment."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        rows = slice(self._first[place], self._first[place + 1])
        edges = self._first_label[rows.start : rows.stop + 1].tolist()
        return Boxes(
            self._corners[rows].copy(),
            tuple(
                frozenset(self._label[edges[row] : edges[row + 1]].tolist())
                for row in range(len(edges) - 1)
            ),
            tuple(self._score[rows].tolist()),
            tuple(self._person[rows].tolist()),
            tuple(self._truth[rows].tolist()),
            tuple(self._asked[rows].tolist()),
            self.movies[self._movie[place]],
            float(self._second[place]),
        )

    def where(self, index: int) -> str:
        """Return the row that names a moment first: ``file:line``."""
        return f"{self._files[self._file[index]]}:{self._line[index]}"


def _ends(counts: Iterable[int]) -> np.ndarray:
    """Return where each of several stretches begins, and the last one ends."""
    return np.array(list(accumulate(counts, initial=0)), np.int64)
