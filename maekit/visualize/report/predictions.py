"""What a run made of each sample of data.val, as it stands in its predictions.jsonl."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from os.path import commonprefix
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from maekit.engine.run_folder import PREDICTIONS
from maekit.errors import DataError

_DIGEST = 8  # bytes that stand for a file name and a class


@dataclass(frozen=True)
class Judged:
    """The samples that a run judged, in the order of their rows.

    Attributes:
        rows: int64 ``[n]``, places in the set.
        samples: uint64 ``[n]``, a digest of each file's name (without its folders) and class.
        right: bool ``[n]``, whether the class has the highest score.
        folder: the deepest one that holds all files, as text; empty where they share none.
    """

    rows: np.ndarray
    samples: np.ndarray
    right: np.ndarray
    folder: str

    def same_samples(self, other: Judged) -> bool:
        """Whether both judged the same rows, of the same file names and classes."""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.samples, other.samples)


def read_predictions(path: Path) -> Judged:
    """Read a file of predictions; about 20 bytes of each line are kept.

    Raises:
        DataError: a line is cut short or says something else than a prediction of one class, or
            nothing can be read at all.
    """
    rows, samples, right, folder = array("q"), array("Q"), bytearray(), None
    try:
        with path.open(encoding="utf-8", errors="replace") as file:  # cut within a character, too
            for number, line in enumerate(file, 1):
                row, name, label, best = _parsed(line, number)
                rows.append(row)
                base = name.rpartition("/")[2]
                told = f"{label}/{base}".encode("utf-8", "surrogatepass")
                samples.append(int.from_bytes(blake2b(told, digest_size=_DIGEST).digest()))
                right.append(best == label)
                if folder is None:
                    folder = name
                elif not name.startswith(folder):
                    # By characters: the last folder is found at the end.
                    folder = commonprefix((folder, name))  # noqa: RUF071
    except OSError as error:
        what = f"{PREDICTIONS} cannot be read: {error.strerror}"
        raise DataError(what, where=str(path)) from error
    if not rows:
        what = f"{PREDICTIONS} is empty"
        raise DataError(what, where=str(path))
    # As text: names that are not UTF-8 come with lone surrogates, which no terminal shows.
    shown = (folder or "").rpartition("/")[0].encode("utf-8", "backslashreplace").decode()
    return _in_order(rows, samples, right, shown)


def _in_order(rows: array[int], samples: array[int], right: bytearray, folder: str) -> Judged:
    places = np.array(rows, np.int64)
    order = places.argsort(kind="stable")
    places = places[order]
    twice = places[1:][places[1:] == places[:-1]]
    if twice.size:
        what = f"{PREDICTIONS} has row {twice[0]} twice"
        raise DataError(what)
    known = np.array(samples, np.uint64)[order]
    return Judged(places, known, np.frombuffer(bytes(right), np.bool_)[order], folder)


def _parsed(line: str, number: int) -> tuple[int, str, int, int]:
    """Row, file, class and the class of the highest score; of equal ones the first."""
    try:
        record = _DECODER.decode(line)
    except ValueError as error:
        what = f"line {number} of {PREDICTIONS} is cut short or no JSON"
        raise DataError(what) from error
    values: Any = record if isinstance(record, dict) else {}
    row, name, label, scores = (values.get(key) for key in ("row", "id", "label", "scores"))
    if isinstance(label, (list, float)):
        what = "its labels are not one class a sample"
        raise DataError(what)
    best = _highest(scores)
    fits = type(row) is int and isinstance(name, str) and type(label) is int
    if not fits or best is None or not 0 <= label < len(scores):
        what = f"line {number} of {PREDICTIONS} is no prediction of a class"
        raise DataError(what)
    return row, name, label, best


def _highest(scores: object) -> int | None:
    """The class of the highest score; None where these are no scores of classes."""
    if not isinstance(scores, list) or len(scores) < 2:
        return None
    try:
        most = max(scores)
    except TypeError:  # numbers beside something else
        return None
    return scores.index(most) if isinstance(most, (int, float)) else None


def _refuse(word: str) -> NoReturn:
    what = f"{word} is no number"
    raise ValueError(what)


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # NaN is above and below nothing
