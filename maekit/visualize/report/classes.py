"""What the report shows of predicted labels: each class, confusions, calibration, mistakes.

All of it is read from files that need not be there, nor whole.
"""

from __future__ import annotations

import base64
import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from maekit.visualize.confusion import (
    CLASSES,
    CONFUSION_PICTURE,
    CURVES,
    KEY_FRAMES,
    MISTAKES,
)
from maekit.visualize.movies import open_picture
from maekit.visualize.report.numbers import MISSING, number

MOST_ROWS = 100  # of classes, the worst
LARGEST_KEPT = 400_000  # bytes of a PNG that is embedded as it is; larger ones become JPEG
_JPEG_QUALITY = 88
_LONGEST = 4_000_000  # bytes of a table
_WORST_BY = ("recall", "average_precision", "r2")


class Embedded(NamedTuple):
    """A picture as a ``data:`` address."""

    address: str
    width: int
    height: int
    recoded: bool


def embedded(path: Path) -> Embedded | None:
    """Read a picture; None where it is none, or cannot be read."""
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        data = b""
    pixels = open_picture(data)
    if pixels is None:
        return None
    kind, recoded = "png", len(data) > LARGEST_KEPT
    if recoded:
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        data, kind = buffer.getvalue(), "jpeg"
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Embedded(address, *pixels.size, recoded)


@dataclass(frozen=True)
class Classes:
    """What a run left about the labels that it predicts.

    Attributes:
        columns: headings of the table of classes.
        rows: the worst classes first.
        every: how many classes there are.
        calibration: a sentence; empty where it is not known.
        bins: probability, how often right, and count, in words.
        confusion: which class is taken for which.
        mistakes: the samples that are most wrong.
        curves: of actions in boxes, precision over recall.
        key_frames: some, with boxes.
    """

    columns: list[str]
    rows: list[list[str]]
    every: int
    calibration: str
    bins: list[list[str]]
    confusion: Embedded | None
    mistakes: Embedded | None
    curves: Embedded | None = None
    key_frames: Embedded | None = None


def read_classes(folder: Path, result: dict[str, Any]) -> Classes | None:
    """Read what a run left; None where it predicted no labels, or left nothing about them."""
    table = _table(folder / CLASSES)
    confusion, mistakes = embedded(folder / CONFUSION_PICTURE), embedded(folder / MISTAKES)
    if not table and confusion is None and mistakes is None:
        return None
    columns, *rows = table or [[]]
    by = next((columns.index(key) for key in _WORST_BY if key in columns), None)
    if by is not None:
        rows.sort(key=lambda row: _value(row[by], math.inf))
    shown = [[_shown(cell) for cell in row] for row in rows[:MOST_ROWS]]
    sentence, bins = _calibration(result.get("calibration"))
    titles = [name.replace("_", " ") for name in columns]
    more = (embedded(folder / CURVES), embedded(folder / KEY_FRAMES))
    return Classes(titles, shown, len(rows), sentence, bins, confusion, mistakes, *more)


def _table(path: Path) -> list[list[str]]:
    """Read a table of which every row has all cells; empty where there is none such."""
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST:
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error:
        return []
    whole = [row for row in rows if row and len(row) == len(rows[0])]
    return whole if len(whole) > 1 and len(whole[0]) > 1 else []


def _value(cell: str, otherwise: float) -> float:
    try:
        value = float(cell)
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def _shown(cell: str) -> str:
    if not cell:
        return MISSING
    value = _value(cell, math.nan)
    return cell if math.isnan(value) or cell.isdecimal() else number(value)


def _calibration(found: Any) -> tuple[str, list[list[str]]]:  # noqa: ANN401 - any JSON value
    if not isinstance(found, dict) or not isinstance(found.get("ece"), float):
        return "", []
    bins = found.get("bins")
    whole = [each for each in (bins if isinstance(bins, list) else []) if _is_bin(each)]
    rows = [
        [number(each["confidence"]), number(each["right"]), f"{each['count']:,}"] for each in whole
    ]
    text = f"Probabilities are off by {found['ece']:.1%} on average (expected calibration error)."
    return text, rows


def _is_bin(each: Any) -> bool:  # noqa: ANN401 - any JSON value
    if not isinstance(each, dict) or type(each.get("count")) is not int:
        return False
    return all(isinstance(each.get(key), float) for key in ("confidence", "right"))
