"""The rows of several lists of boxes, brought together by moment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from maekit.data.boxes import iou, unnamed
from maekit.datasets.box_lists import (
    BoxRow,
    read_actions,
    read_boxes,
    read_excluded,
    read_persons,
    read_seconds,
)
from maekit.datasets.box_table import Moment, Person
from maekit.errors import DataError

if TYPE_CHECKING:
    from maekit.datasets.ava import Ava

Ask = Literal["auto", "truth", "detected", "both"]
Corners = tuple[float, float, float, float]

EMPTY = "boxes without extent in the picture"
UNSURE = "detected persons below min_score"
OUTSIDE = "rows at seconds that are not included"
STRANGE = "detected persons in movies that path does not name"
_MOST_CLASSES = 100_000  # numbers beyond are no classes


@dataclass(frozen=True)
class Gathered:
    """What the lists say, by moment: movies in the order of the list, seconds in time."""

    classes: tuple[str, ...]
    judged: tuple[int, ...] | None
    moments: Sequence[Moment]
    excluded: Sequence[Moment]
    left_out: Mapping[str, int]


def gather(options: Ava.Options) -> Gathered:
    """Read all lists of a set.

    Raises:
        DataError: a row makes no sense, or no box counts.
    """
    path = options.path
    if not path.expanduser().is_file():
        raise DataError(f"no annotations at {path}", hint="path: AVA's CSV, or one's own")
    rows = list(read_boxes(path.expanduser()))
    persons, images = (
        None if listed is None else listed.expanduser()
        for listed in (options.persons, options.person_images)
    )
    found = [] if persons is None else list(read_persons(persons, images))
    classes = _Classes(options, (*rows, *found))
    moments = _Moments(options)
    for row in rows:
        moments.annotate(row, classes)
    moments.detect(found, classes, {row.movie for row in rows})
    order = {movie: place for place, movie in enumerate(dict.fromkeys(row.movie for row in rows))}

    def by_time(found: Iterable[Moment]) -> list[Moment]:
        kept = (moment for moment in found if moment.people)
        return sorted(kept, key=lambda moment: (order[moment.movie], moment.second))

    wanted = by_time(moments.wanted.values())
    if not rows:
        raise DataError("holds no row", where=str(path), hint="path: AVA's CSV, or one's own")
    if not wanted:
        what = f"holds no box that counts, in {len(rows)} rows"
        raise DataError(what, where=str(path), hint="look at the lists included and excluded")
    return Gathered(
        classes.names,
        classes.judged,
        wanted,
        by_time(moments.excluded.values()),
        {reason: count for reason, count in moments.left_out.items() if count},
    )


class _Classes:
    """The classes of labels: AVA's number less one, or the place of a name."""

    def __init__(self, options: Ava.Options, rows: Sequence[BoxRow]) -> None:
        self._path = options.path
        names: dict[int, str] = {}
        listed = options.actions
        if listed is not None:
            names = dict(read_actions(listed.expanduser()))
        labels = dict.fromkeys(row.label for row in rows if row.label)
        numbers = {label: int(label) for label in labels if label.isdecimal()}
        if listed is None and len(numbers) < len(labels):  # names, though some look like numbers
            names = dict(enumerate(sorted(labels), 1))
            numbers = {}
        by_name = {name: number for number, name in names.items()}
        self._numbers = {label: by_name.get(label, numbers.get(label)) for label in labels}
        known = [number for number in self._numbers.values() if number is not None]
        last = max([options.classes or 1, *names, *(n for n in known if n <= _MOST_CLASSES)])
        self._last = options.classes or (max(names) if names else last)
        if names and max(names) > self._last:
            what = f"action {max(names)} is beyond classes: {self._last}"
            raise DataError(what, where=str(listed or options.path))
        numbered = range(1, self._last + 1)
        self.names = tuple(names.get(number, unnamed(number - 1)) for number in numbered)
        pbtxt = listed is not None and "{" in listed.expanduser().read_text("utf-8-sig")
        self.judged = tuple(sorted(number - 1 for number in names)) if pbtxt else None

    def of(self, row: BoxRow, path: Path) -> frozenset[int]:
        """Return the classes of a row: one, or none.

        Raises:
            DataError: there is no such class.
        """
        if not row.label:
            return frozenset()
        number = self._numbers[row.label]
        if number is None or not 1 <= number <= self._last:
            shown = ", ".join(self.names[:5]) + (", ..." if self.names[5:] else "")
            what = f"the label {row.label} is none of the {len(self.names)} classes ({shown})"
            hint = "numbers count from 1; actions: a list of all, or classes: how many"
            raise DataError(what, where=f"{path}:{row.line}", hint=hint)
        return frozenset({number - 1})


class _Moments:
    """Moments in the making."""

    def __init__(self, options: Ava.Options) -> None:
        self._path, self._persons = options.path, options.persons or Path()
        self._least, self._or_best, self._iou = options.min_score, options.or_best, options.iou
        self._ask = options.ask
        if options.ask == "auto":
            self._ask = "truth" if options.persons is None else "detected"
        seconds, left = options.included, options.excluded
        self._included = None if seconds is None else read_seconds(seconds.expanduser())
        self._left = frozenset() if left is None else read_excluded(left.expanduser())
        self.wanted: dict[tuple[str, float], Moment] = {}
        self.excluded: dict[tuple[str, float], Moment] = {}
        self.left_out: Counter[str] = Counter()
        self._people: dict[tuple[str, float, Corners, int], Person] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def annotate(self, row: BoxRow, classes: _Classes) -> None:
        """Take an annotated row; those of one person and box are one box with several labels."""
        labels = classes.of(row, self._path)
        moment = self._moment(row, self._path)
        corners = self._corners(row)
        if moment is None or corners is None:
            return
        number = self._person(row)
        key = (row.movie, row.second, corners, number)
        if key not in self._people:
            asked = self._ask != "detected"
            self._people[key] = Person(corners, person=number, asked=asked)
            moment.people.append(self._people[key])
        self._people[key].labels |= labels

    def detect(self, rows: Sequence[BoxRow], classes: _Classes, movies: set[str]) -> None:
        """Take detected persons: those that are sure enough, in movies that are annotated."""
        path = self._persons
        grouped: defaultdict[tuple[str, float], list[BoxRow]] = defaultdict(list)
        for row in rows:
            if row.movie not in movies:
                self.left_out[STRANGE] += 1
            else:
                grouped[row.movie, row.second].append(row)
        for key, here in grouped.items():
            least = self._least
            if self._or_best:
                least = min(least, max(row.score for row in here))
            people: dict[Corners, Person] = {}
            for row in here:
                if row.score < least:
                    self.left_out[UNSURE] += 1
                elif (corners := self._corners(row)) is not None:
                    new = Person(corners, score=row.score, truth=False)
                    people.setdefault(corners, new).labels |= classes.of(row, path)
            moment = self._moment(here[0], path, len(people)) if people else None
            if moment is not None and key not in self._left:
                _label(people.values(), moment.people, self._iou)
                moment.people.extend(people.values())

    def _moment(self, row: BoxRow, path: Path, rows: int = 1) -> Moment | None:
        """Return the moment of a row, which is new where no other had it; None: it is left out.

        With it, so many rows are.
        """
        if self._included is not None and row.second not in self._included:
            self.left_out[OUTSIDE] += rows
            return None
        key, among = (row.movie, row.second), self.wanted
        if key in self._left:
            among = self.excluded
        if key not in among:
            among[key] = Moment(row.movie, row.second, f"{path}:{row.line}")
        return among[key]

    def _corners(self, row: BoxRow) -> Corners | None:
        """Cut a box at the picture's edge; None: nothing is left of it, or it had none."""
        if row.corners is None:
            return None
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in row.corners)
        if x1 < x2 and y1 < y2:
            return x1, y1, x2, y2
        self.left_out[EMPTY] += 1
        return None

    def _person(self, row: BoxRow) -> int:
        if not row.person:
            return -1
        if row.person.isdecimal():
            return int(row.person)
        return self._ids.setdefault((row.movie, row.person), len(self._ids))


def _label(found: Iterable[Person], known: Sequence[Person], least: float) -> None:
    """Give detected persons without labels those of the annotated box that they overlap most."""
    known = [person for person in known if person.truth]
    bare = [person for person in found if not person.labels]
    if not known or not bare:
        return
    theirs = np.array([each.corners for each in known])
    shared = iou(np.array([person.corners for person in bare])[:, None], theirs)
    for person, best, share in zip(bare, shared.argmax(1), shared.max(1), strict=True):
        if share >= least:
            person.labels |= known[best].labels
            person.person = known[best].person
