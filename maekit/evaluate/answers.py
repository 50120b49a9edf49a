"""What a classifier answers for each input, as rows of a file: CSV, JSON or parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from maekit.atomic import write_atomically
from maekit.errors import StorageError
from maekit.evaluate.embed import arrow_library
from maekit.evaluate.labels import JOIN, NONE
from maekit.text import as_text

if TYPE_CHECKING:
    from maekit.weights.header import ClassifierHeader

Format = Literal["csv", "json", "parquet"]
FORMATS: Sequence[Format] = get_args(Format)
DIGITS = 6
LIKELY = 0.5  # a label that is more likely than not
_OURS = ("input", "start", "stop", "error")  # columns of every table, whatever its windows
_AT_ONCE = 4096  # rows of parquet that are in memory


class Answer(NamedTuple):
    """What is said of one input, or of a window of a video.

    Attributes:
        input: the file's name.
        scores: float64 ``[K]``, probabilities or values; None where it could not be read.
        start: of a window, in seconds; None: the whole file.
        stop: likewise.
        error: why it could not be read.
    """

    input: str
    scores: np.ndarray | None
    start: float | None = None
    stop: float | None = None
    error: str | None = None


class Columns:
    """The columns of a classifier's answers.

    Classes: ``class`` and ``probability``, ``class_2`` and so on, the likeliest first. Labels:
    ``labels``, those more likely than not, joined by ``|`` (``-``: none), then each one's
    probability. Values: one column each. Windows have ``start`` and ``stop`` before, in seconds.

    Args:
        described: the classifier.
        top: how many classes; more than there are mean all.
        windows: whether inputs are windows.
    """

    def __init__(self, described: ClassifierHeader, top: int, *, windows: bool) -> None:
        self.kind, self.outputs = described.kind, described.outputs
        self.top = min(top, len(self.outputs)) if self.kind == "multiclass" else 0
        self.windows = windows
        ranked = ("", *(f"_{place}" for place in range(2, self.top + 1)))
        pairs = [(f"class{end}", f"probability{end}") for end in ranked[: self.top]]
        numbers = [(name, False) for name in self.outputs]
        of_kind = {
            "multiclass": [each for a, b in pairs for each in ((a, True), (b, False))],
            "multilabel": [("labels", True), *numbers],
            "regression": numbers,
        }[self.kind]
        times = [("start", False), ("stop", False)] if windows else []
        every = [("input", True), *times, *of_kind, ("error", True)]
        names = _distinct([name for name, _ in of_kind])
        self.names = ["input", *(name for name, _ in times), *names, "error"]
        self.texts = [text for _, text in every]  # the others are numbers

    def row(self, answer: Answer) -> dict[str, str | float | None]:
        """Return an answer's row, by column."""
        times = [answer.start, answer.stop] if self.windows else []
        values = [as_text(answer.input), *(_rounded(each) for each in times)]
        values += [*self._values(answer.scores), answer.error]
        return dict(zip(self.names, values, strict=True))

    def _values(self, scores: np.ndarray | None) -> Iterator[str | float | None]:
        if scores is None:
            yield from [None] * (2 * self.top or len(self.outputs) + (self.kind == "multilabel"))
        elif self.kind == "multiclass":
            for place in best(scores, self.top):
                yield self.outputs[place]
                yield _rounded(float(scores[place]))
        else:
            if self.kind == "multilabel":
                likely = np.flatnonzero(scores > LIKELY).tolist()
                yield JOIN.join(self.outputs[place] for place in likely) or NONE
            yield from (_rounded(float(score)) for score in scores)


def best(scores: np.ndarray, count: int) -> list[int]:
    """Return the places of the highest scores ``[K]``, of equal ones the first, as ``top_k``."""
    return [int(place) for place in np.argsort(-scores, kind="stable")[:count]]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _distinct(names: Sequence[str]) -> list[str]:
    """Add numbers to names that are there already, or are ours: an output may be ``error``."""
    found: list[str] = []
    for name in names:
        number, each = 1, name
        while each in found or each in _OURS:
            number += 1
            each = f"{name}_{number}"
        found.append(each)
    return found


def write_answers(path: Path, kind: Format, columns: Columns, answers: Iterable[Answer]) -> None:
    """Write answers in their order, whole or not at all; not all of them are in memory.

    Raises:
        RecipeError: parquet without pyarrow.
        StorageError: the disk is full or not writable.
    """
    writers = {"csv": _csv, "json": _json, "parquet": _parquet}
    rows = map(columns.row, answers)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda draft: writers[kind](draft, columns, rows))
    except OSError as error:
        msg = f"the answers cannot be written: {error}"
        raise StorageError(msg, where=str(path), hint="free some space, or --out") from error


Rows = Iterable[Mapping[str, str | float | None]]


def _csv(path: Path, columns: Columns, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns.names)
        table.writeheader()
        table.writerows(rows)


def _json(path: Path, columns: Columns, rows: Rows) -> None:  # noqa: ARG001 - rows name theirs
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for row in rows:
            file.write(before + json.dumps(row, ensure_ascii=False))
            before = ",\n"
        file.write("\n]\n")


def _parquet(path: Path, columns: Columns, rows: Rows) -> None:
    arrow, parquet = arrow_library()
    kinds = {True: arrow.string(), False: arrow.float64()}
    schema = arrow.schema(
        [(name, kinds[text]) for name, text in zip(columns.names, columns.texts, strict=True)]
    )
    remaining = iter(rows)
    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(remaining, _AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist([dict(row) for row in some], schema=schema))


def plain(columns: Columns, answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """Return answers as JSON holds them."""
    return [dict(columns.row(answer)) for answer in answers]
