"""Which columns of a table hold what: the words of other tools are known, and what they hold.

A header is known by a word for paths, or because the rows below it hold file names where it holds
none. Where no column is a label, columns of zeros and ones are labels, one each.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

DELIMITERS = (",", ";", "\t")
LOOKED_AT = 20  # rows below a header
_MOST_SHOWN = 6
# The words of pandas and Kaggle tables, Hugging Face's folders, torchvision, fastai, Labelbox and
# the papers' own code; a word that stands further left is preferred.
_PATHS = (
    *("path", "file_name", "filename", "file_path", "filepath", "file", "fname"),
    *("image_path", "img_path", "image_file", "image_filename", "image_name", "image", "img"),
    *("video_path", "video_file", "video_filename", "video_name", "video", "clip_path", "clip"),
    *("frame_path", "picture", "photo", "uri", "url", "src", "external_id", "id", "image_id"),
)
_LABELS = (
    *("label", "labels", "target", "targets", "class", "class_name", "classname", "classes"),
    *("category", "category_name", "class_label", "label_name", "ground_truth", "gt", "tag"),
    *("tags", "y", "class_id", "class_index", "class_idx", "category_id", "label_id"),
)
_WEAK = frozenset({"id", "image_id", "external_id", "url", "uri", "src"})  # seldom a file's name
# Columns of zeros and ones that say other things.
_NO_LABELS = frozenset(
    {"split", "fold", "train", "val", "test", "valid", "validation", "is_train", "is_test"}
    | {"is_val", "is_valid", "index", "unnamed:_0", "", "start", "end", "width", "height"}
)
Known = Callable[[str], bool]  # whether a text ends as file names of the set do


@dataclass(frozen=True)
class Columns:
    """Places of a table's columns.

    Attributes:
        names: of all columns, as written.
        path: of the file.
        label: of the label; None: none.
        hot: of labels that are zeros and ones.
        start: of the first second.
        end: of the last one.
    """

    names: tuple[str, ...]
    path: int
    label: int | None = None
    hot: tuple[int, ...] = ()
    start: int | None = None
    end: int | None = None

    @property
    def note(self) -> str | None:
        """Say which columns are taken; None where they have our own names."""
        path, label = self.names[self.path], None
        if self.label is not None:
            label = self.names[self.label]
        if _plain(path) == "path" and (label is None or _plain(label) == "label") and not self.hot:
            return None
        said = f"columns taken: path from '{path}'"
        if label is not None:
            return f"{said}, label from '{label}'"
        if self.hot:
            shown = ", ".join(self.names[place] for place in self.hot[:_MOST_SHOWN])
            more = len(self.hot) - _MOST_SHOWN
            return f"{said}, labels from {len(self.hot)} columns of zeros and ones: {shown}" + (
                f" and {more} more" if more > 0 else ""
            )
        others = [name for place, name in enumerate(self.names) if place != self.path]
        return f"{said}, no labels; not known: {', '.join(others)}" if others else said

    def label_of(self, cells: Sequence[str]) -> str | None:
        """Return the label in a row: as written, or the names of the columns that hold a one."""
        if self.label is not None:
            return cells[self.label]
        if not self.hot:
            return None
        return (
            "|".join(self.names[place].strip() for place in self.hot if _one(cells[place])) or "-"
        )

    def times_of(self, cells: Sequence[str]) -> tuple[str | None, str | None]:
        """Return start and end in a row, as written."""
        start, end = (None if place is None else cells[place] for place in (self.start, self.end))
        return start, end


def columns_of(
    header: Sequence[str], rows: Sequence[Sequence[str]], known: Known
) -> Columns | None:
    """Find out what a table's columns hold; None where its first row is no header.

    Args:
        header: the first row.
        rows: some rows below it.
        known: see ``Known``.
    """
    names = [_plain(name) for name in header]
    rows = [row for row in rows if len(row) == len(names)]
    path = _path_of(names, rows, known)
    if path is None:
        return None
    others = [place for place in range(len(names)) if place != path]
    label = next((names.index(word) for word in _LABELS if word in names), None)
    label = label if label in others else None
    hot = tuple(
        place
        for place in others
        if label is None
        and names[place] not in _NO_LABELS
        and all(_bit(row[place]) for row in rows)
    )
    start, end = (names.index(word) if word in names else None for word in ("start", "end"))
    hot = hot if rows and len(hot) > 1 else ()
    return Columns(tuple(header), path, label, hot, start, end)


def _path_of(names: Sequence[str], rows: Sequence[Sequence[str]], known: Known) -> int | None:
    if any(known(name) for name in names) or any(name.isdecimal() for name in names):
        return None  # a row like all others
    repeated = any(_plain(row[place]) == name for row in rows for place, name in enumerate(names))
    if repeated and "path" not in names:
        return None  # a label that comes again is none of a header's words
    full = [place for place in range(len(names)) if rows and all(known(row[place]) for row in rows)]
    words = [names.index(word) for word in _PATHS if word in names]
    for place in words:
        if place in full or names[place] == "path":
            return place
    for place in words:
        if names[place] not in _WEAK:
            return place
    # One row below a first one that is no file name may be chance.
    return full[0] if full and len(names) > 1 and len(rows) > 1 else None


def keep_hot(columns: Columns, rows: Iterable[Sequence[str]]) -> Columns:
    """Return columns without those of zeros and ones that hold something else further down."""
    left = set(columns.hot)
    for row in rows:
        if not left:
            break
        left = {place for place in left if place < len(row) and _bit(row[place])}
    hot = tuple(place for place in columns.hot if place in left)
    return replace(columns, hot=hot if len(hot) > 1 else ())


def delimiter_of(first: str, rows: Sequence[str], known: Known) -> tuple[str, Columns] | None:
    """Return what separates a table's columns, and what they hold; None where it has no header."""
    for delimiter in DELIMITERS:
        try:
            header, *below = csv.reader([first, *rows], delimiter=delimiter)
        except (
            csv.Error,
            ValueError,
        ):  # a field longer than any column's name, or a quoted line end
            continue
        found = columns_of(header, below[:LOOKED_AT], known)
        if found is not None:
            return delimiter, found
    return None


def unknown_header(first: str, rows: Sequence[str], known: Known) -> list[str] | None:
    """Return the names of a table's columns of which none holds files; None where it is no table.

    Words stand above numbers, or they are words that tables have.
    """
    words = {*_PATHS, *_LABELS, *_NO_LABELS}
    for delimiter in DELIMITERS:
        try:
            names, *below = csv.reader([first, *rows], delimiter=delimiter)
        except (csv.Error, ValueError):
            continue
        if len(names) < 2 or any(known(cell) for row in (names, *below) for cell in row):
            continue
        above = not any(map(_number, names)) and all(
            len(row) == len(names) and sum(map(_number, row)) > 1 for row in below
        )
        if (below and above) or all(_plain(name) in words for name in names):
            return names
    return None


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def keys_of(row: dict[str, object]) -> tuple[str | None, str | None]:
    """Return the keys of path and label of a JSON object."""
    plain = {_plain(key): key for key in row}
    path = next(
        (plain[word] for word in _PATHS if isinstance(row.get(plain.get(word, "")), str)), None
    )
    label = next((plain[word] for word in _LABELS if word in plain and plain[word] != path), None)
    return path, label


def keys_note(row: dict[str, object]) -> str | None:
    """Say which keys of a JSON object are taken; None where they have our own names."""
    path, label = keys_of(row)
    if path in (None, "path") and label in (None, "label"):
        return None
    return f"keys taken: path from '{path}', " + (f"label from '{label}'" if label else "no labels")


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().strip("\"'").lower())


def _bit(text: str) -> bool:
    return text.strip() in {"0", "1", "0.0", "1.0", "True", "False", "true", "false"}


def _one(text: str) -> bool:
    return text.strip() in {"1", "1.0", "True", "true"}
