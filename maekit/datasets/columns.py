"""What stands after the path in the lists of videos that the official codes read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from maekit.datasets.rows import Row

Columns = Literal["label", "frames-label", "start-frames", "start-frames-label"]
_NUMBERS = {"label": 0, "frames-label": 1, "start-frames": 2, "start-frames-label": 2}


class Span(NamedTuple):
    """The stretch of a video that a row is about."""

    unit: Literal["whole", "seconds", "frames", "first"]
    start: float = 0  # seconds, or the number of a frame
    stop: float = 0  # seconds; of "frames" and "first": how many frames


UNITS: tuple[Literal["whole", "seconds", "frames", "first"], ...] = (
    "whole",
    "seconds",
    "frames",
    "first",
)


def sniff(rows: Iterable[Row], path: str) -> Columns:
    """Which columns a list has, from all of its rows.

    Two numbers are a start and a number of frames (VideoMAEv2's ``path 0 -1``) where the second is
    ever negative, or the first is never more than 1; else a number of frames and a label.

    Raises:
        DataError: rows with different columns, or with more than there can be.
    """
    count, starts, negative = -1, True, False
    for row in rows:
        here = len(row.fields)
        if count >= 0 and here != count and max(here, count) > 1:
            what = f"has {here} fields after the path, the rows before it have {count}"
            hint = "put paths with spaces in double quotes, or use CSV with a header"
            raise DataError(what, where=f"{path}:{row.line}", hint=hint)
        count = max(count, here)
        if here == 2:
            starts = starts and row.fields[0] in ("0", "1")
            negative = negative or row.fields[1].startswith("-")
    if count < 2:
        return "label"
    if count > 2:
        return "start-frames-label"
    return "start-frames" if starts or negative else "frames-label"


def split(row: Row, columns: Columns, where: str) -> tuple[Span, str | None]:
    """The stretch and the label of a row.

    Raises:
        DataError: its fields are not those columns.
    """
    wanted = _NUMBERS[columns] + columns.endswith("label")
    # A label may be missing where it is all there is: then the list is unlabeled.
    if len(row.fields) != wanted and not (columns == "label" and not row.fields):
        text = " ".join(row.fields) or "none"
        what = f"the columns are {columns}, the fields after the path are {text}"
        hint = (
            "put paths with spaces in double quotes, use CSV with a header, or set the data "
            "set's `columns`"
        )
        raise DataError(what, where=where, hint=hint)
    numbers = [_integer(text, where) for text in row.fields[: _NUMBERS[columns]]]
    label = row.fields[-1] if columns.endswith("label") and row.fields else None
    if any(time is not None and str(time).strip() for time in row.times):
        return _seconds(row.times, where), label
    if not numbers or numbers[-1] < 0:
        return Span("whole"), label
    if numbers[-1] == 0 or numbers[0] < 0:
        what = f"{' '.join(map(str, numbers))} is no stretch of frames"
        raise DataError(what, where=where)
    if columns == "frames-label":
        return Span("first", 0, numbers[0]), label
    return Span("frames", *numbers), label


def _seconds(times: tuple[object, object], where: str) -> Span:
    """From one time to another; a missing or empty one is the start or the end of the file."""
    start, end = (text if (text := "" if t is None else str(t).strip()) else None for t in times)
    try:
        first, last = float(start or 0), float(end or "inf")
    except ValueError as error:
        what = f"start {start!r} or end {end!r} is no number of seconds"
        raise DataError(what, where=where) from error
    if not 0 <= first < last:
        what = f"start {first:g} and end {last:g} are no stretch of time"
        raise DataError(what, where=where)
    return Span("seconds", first, last)


def _integer(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        what = f"{text!r} is no number of frames"
        raise DataError(what, where=where) from error
