"""Lists of boxes at seconds of movies, in AVA's formats and those of its public codes.

All numbers of one row are checked where it stands: errors name file and line.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maekit.datasets.list_rows import opened
from maekit.errors import DataError

_FAR = 2.0  # no fraction of a picture; boxes that end a little outside are cut at its edge
_PICKLES = frozenset({".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth"})
_ITEM = re.compile(r"\b(?:item|label)\s*\{([^{}]*)\}")
_NAME = re.compile(r"""\bname\s*:\s*(?:"([^"\n]*)"|'([^'\n]*)')""")
_NUMBER = re.compile(r"\b(?:label_)?id\s*:\s*(\d+)")
_AVA = ("video", "second", "x1", "y1", "x2", "y2", "label", "person")
_DETECTED = (*_AVA[:7], "score")
_REGIONS = (*_AVA[:6], "label", "person-or-score")
# Other words for the columns of a list with a header.
_WORDS = {
    "movie": "video", "video_id": "video", "timestamp": "second", "time": "second",
    "action": "label", "action_id": "label", "class": "label", "person_id": "person",
}  # fmt: skip
_IMAGES_A_MOVIE = 10_000  # AlphAction's image_id: the movie's number times this, and the second


class BoxRow(NamedTuple):
    """One row: a box at a second of a movie, or, without corners, a second without any."""

    line: int
    movie: str
    second: float
    corners: tuple[float, float, float, float] | None = None
    label: str = ""
    person: str = ""
    score: float = 1.0


def read_actions(path: Path) -> Mapping[int, str]:
    """Read the names of actions by number: AVA's ``.pbtxt``, or one a line, numbered from 1.

    Raises:
        DataError: it is neither, or a number is there twice.
    """
    with opened(path) as file:
        text = file.read()
    if "{" not in text:
        names = [line.strip() for line in text.splitlines()]
        found = {number: name for number, name in enumerate(names, 1) if name}
        if not found:
            raise DataError("holds no action", where=str(path), hint="one name a line, or a .pbtxt")
        return found
    found = {}
    for item in _ITEM.finditer(text):
        where = f"{path}:{text.count(chr(10), 0, item.start()) + 1}"
        name, number = _NAME.search(item[1]), _NUMBER.search(item[1])
        if name is None or number is None or not int(number[1]):
            raise DataError("an item without a name, or an id from 1", where=where)
        if int(number[1]) in found:
            raise DataError(f"the id {number[1]} is there twice", where=where)
        found[int(number[1])] = name[1] or name[2] or ""
    if not found:
        raise DataError("holds no item", where=str(path), hint="is it AVA's action list (.pbtxt)?")
    return found


def read_seconds(path: Path) -> frozenset[float]:
    """Read the seconds that are included, one a line (``ava_included_timestamps``).

    Raises:
        DataError: a line is no number of seconds.
    """
    return frozenset(
        _number(row[0], "a second", f"{path}:{line}") for line, row in _rows(path) if row[0].strip()
    )


def read_excluded(path: Path) -> frozenset[tuple[str, float]]:
    """Read the moments that are excluded: ``video,second`` (``ava_*_excluded_timestamps``).

    Raises:
        DataError: a row is something else.
    """
    found = set()
    for line, row in _rows(path):
        where = f"{path}:{line}"
        if len(row) != 2:
            raise DataError(f"has {len(row)} columns, not video,second", where=where)
        found.add((row[0], _number(row[1], "the second", where)))
    return frozenset(found)


def read_boxes(path: Path) -> Iterator[BoxRow]:
    """Yield the rows of a list of annotated boxes.

    Without a header it is AVA's: ``video,second,x1,y1,x2,y2,action,person``, or ``video,second``
    of a second without boxes. With one, any order of ``video,second,x1,y1,x2,y2,label[,person]``.

    Raises:
        DataError: a row makes no sense.
    """
    yield from _box_rows(path, _AVA, least=7)


def read_persons(path: Path, images: Path | None) -> Iterator[BoxRow]:
    """Yield detected persons: rows with a score, and a label where it comes with the box.

    Args:
        path: LFB's or SlowFast's CSV (``video,second,x1,y1,x2,y2,[action],score``; or any order
            with a header), or AlphAction's JSON.
        images: AlphAction's annotations, which tell the movie, second and size of each image_id;
            needed for its JSON only.

    Raises:
        DataError: it is something else, or a row makes no sense.
    """
    if path.suffix.lower() in _PICKLES:
        what = "is a pickle, which could run any program on being read"
        hint = (
            "take the same boxes as CSV (ava_*_predicted_boxes.csv of long-term feature banks, or "
            "SlowFast's), or write it with Python where you trust it: for key, rows in "
            "pickle.load(file).items(): for x1,y1,x2,y2,s in rows: "
            "print(key,x1,y1,x2,y2,'',s,sep=',')"
        )
        raise DataError(what, where=str(path), hint=hint)
    with opened(path) as file:
        start = file.read(64).lstrip()
    if start.startswith(("[", "{")):
        yield from _alphaction(path, images)
    else:
        if images is not None:
            what = "is for AlphAction's JSON of persons, and this is a CSV"
            raise DataError(f"person_images {what}", where=str(path), hint="drop person_images")
        yield from _box_rows(path, _DETECTED, least=8)


def read_regions(path: Path) -> Iterator[BoxRow]:
    """Yield boxes of any list: annotated ones, detected ones, or bare ones with a header.

    Raises:
        DataError: a row makes no sense.
    """
    yield from _box_rows(path, _REGIONS, least=6)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV that are not empty, with their lines."""
    with opened(path) as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
        except csv.Error as error:
            what = f"is no CSV: {error}"
            raise DataError(what, where=f"{path}:{reader.line_num}") from error


def _box_rows(path: Path, plain: Sequence[str], least: int) -> Iterator[BoxRow]:
    order: dict[str, int] | None = None
    width = len(plain)
    for line, row in _rows(path):
        where = f"{path}:{line}"
        if order is None:
            order = _header(row, where, scored=plain is _DETECTED)
            if order is not None:
                least, width = 1 + max(order[name] for name in _AVA[:6]), len(row)
                continue
            order = {name: place for place, name in enumerate(plain)}
        if len(row) == 2 and {"video", "second"} == {n for n, place in order.items() if place < 2}:
            yield BoxRow(line, row[order["video"]], _second(row[order["second"]], where))
            continue
        if not least <= len(row) <= width:
            shown = ",".join(sorted(order, key=order.__getitem__))
            raise DataError(f"has {len(row)} columns, not {shown}", where=where)
        yield _box_row(line, {n: row[p] for n, p in order.items() if p < len(row)}, where)


def _header(row: Sequence[str], where: str, *, scored: bool) -> dict[str, int] | None:
    """Return the place of each column; None where the first row is none of names."""
    try:
        float(row[1])
    except (IndexError, ValueError):
        pass
    else:
        return None
    names = [_WORDS.get(cell.lower(), cell.lower()) for cell in row]
    needed = [*_AVA[:6], *(["score"] if scored else [])]
    missing = [name for name in needed if name not in names]
    if missing:
        what = f"has no column {', '.join(missing)}, and its second is no number: {','.join(row)}"
        hint = f"AVA's rows, or a header: {','.join(_DETECTED if scored else _AVA)}"
        raise DataError(what, where=where, hint=hint)
    known = {*_AVA, "score"}
    return {name: place for place, name in enumerate(names) if name in known}


def _box_row(line: int, cells: Mapping[str, str], where: str) -> BoxRow:
    if not cells["video"]:
        raise DataError("names no video", where=where)
    corners = tuple(_fraction(cells.get(name, ""), name, where) for name in _AVA[2:6])
    last = cells.get("person-or-score", "")
    # AVA's last column is a person's number, behind an action; a detector's is its score.
    given = cells.get("score") or ("" if cells.get("label") and last.isdecimal() else last)
    score = _number(given, "the score", where) if given else 1.0
    return BoxRow(
        line,
        cells["video"],
        _second(cells["second"], where),
        corners,  # type: ignore[arg-type]  # there are four
        cells.get("label", ""),
        cells.get("person", ""),
        score,
    )


def _number(text: str, what: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{what} is no number: {text!r}", where=where)
    return value


def _second(text: str, where: str) -> float:
    second = _number(text, "the second", where)
    if second < 0:
        raise DataError(f"the second is negative: {text}", where=where)
    return second


def _fraction(text: str, name: str, where: str) -> float:
    value = _number(text, name, where)
    if not -_FAR <= value <= _FAR:
        what = f"{name} is {text}, and corners are fractions of the width and height, 0 to 1"
        raise DataError(what, where=where, hint="divide pixels by the video's width and height")
    return value


def _alphaction(path: Path, images: Path | None) -> Iterator[BoxRow]:
    """Yield the persons of AlphAction's JSON, boxes of whose own pixels become fractions."""
    if images is None:
        what = (
            "is AlphAction's JSON of persons, whose pixels and image_id only its annotations tell"
        )
        hint = "person_images: ava_val_v2.2_min.json, or persons as CSV"
        raise DataError(what, where=str(path), hint=hint)
    known = _images(images)
    for number, found in enumerate(_json(path), 1):
        where = f"{path}: entry {number}"
        try:
            image, (x, y, width, height) = known[found["image_id"]], map(float, found["bbox"])
            across, down = float(image["width"]), float(image["height"])
            second = float(image.get("timestamp", found["image_id"] % _IMAGES_A_MOVIE))
            corners = (x / across, y / down, (x + width) / across, (y + height) / down)
            score = float(found["score"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            what = f"is no person of AlphAction's ({type(error).__name__}: {error})"
            hint = f"image_id, bbox [x, y, w, h] and score, of an image in {images}"
            raise DataError(what, where=where, hint=hint) from error
        if not all(map(math.isfinite, (*corners, score))):
            raise DataError("holds a number that is none", where=where)
        yield BoxRow(number, image["movie"], second, corners, score=score)


def _images(path: Path) -> dict[Any, Mapping[str, Any]]:
    """Return the images of AlphAction's annotations, by their ids."""
    whole = _json(path)
    listed = whole.get("images") if isinstance(whole, dict) else None
    if not isinstance(listed, list) or not listed:
        hint = "person_images: ava_val_v2.2_min.json, AlphAction's annotations"
        raise DataError("lists no images", where=str(path), hint=hint)
    needed = {"id": int, "movie": str, "width": int | float, "height": int | float}
    for number, image in enumerate(listed, 1):
        good = isinstance(image, dict) and all(
            isinstance(image.get(key), kind) for key, kind in needed.items()
        )
        if not good:
            what = f"image {number} has no {', '.join(needed)}"
            raise DataError(what, where=str(path))
    return {image["id"]: image for image in listed}


def _json(path: Path) -> Any:  # noqa: ANN401
    with opened(path) as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"is no JSON: {error}", where=str(path)) from error
