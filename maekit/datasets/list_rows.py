"""The rows of a list of files: CSV with a header, JSONL, or plain lines."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from maekit.data.files import check_scheme, is_name
from maekit.errors import DataError

_LONGEST_LINE = (
    1 << 20
)  # characters: a table with a caption in each row is a list, one line is none
_LONGEST_PATH = 1 << 16  # characters: file systems end at 4,096 bytes, addresses later
_SEPARATORS = ("\t", ",", " ")
_MOST_FIELDS = 3  # after the path, in the lists of VideoMAE and VideoMAEv2
_HEADER_WORDS = frozenset({"file", "filename", "image", "video", "label", "class", "id", "index"})


@dataclass(frozen=True)
class Row:
    """One row of a list."""

    line: int
    path: str
    fields: tuple[str, ...]  # what stands after the path; of a CSV or JSONL row, the label
    times: tuple[object, object] = (None, None)  # of a CSV or JSONL row: start and end, as written


def read_list(path: Path, suffixes: frozenset[str]) -> Iterator[Row]:
    """Yield the rows of a list: CSV with a header, JSONL, or lines ``path`` / ``path label``.

    CSV has a column ``path`` and may have ``label``, ``start`` and ``end``; the separator is a
    comma, a semicolon or a tab. JSONL has keys of the same names. Other columns and keys are the
    user's own. In plain lines the path may hold spaces and commas: it ends at a known suffix, or
    before numbers.

    Raises:
        DataError: the list is not text, or a row makes no sense; names file and line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in _lines(file, path) if line.strip()), "")
            if "\0" in first:
                what = "is not a text file"
                raise DataError(what, where=str(path), hint=_WANTED)
            file.seek(0)
            if first.lstrip().startswith("{"):
                yield from _jsonl_rows(path, _lines(file, path))
            elif delimiter := _csv_delimiter(path, first):
                yield from _csv_rows(path, _lines(file, path), delimiter)
            else:
                yield from _plain_rows(path, _lines(file, path), suffixes)
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte {error.start} of a block: {error.reason})"
        raise DataError(what, where=str(path), hint=_WANTED) from error
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(path)) from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield lines, without taking memory for one that is longer than any list's."""
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            what = f"the line is longer than {_LONGEST_LINE:,} characters"
            raise DataError(what, where=f"{path}:{number}", hint=_WANTED)
        yield line


_WANTED = "a list is CSV with a header `path,label`, JSONL, or lines `path label`"


def _csv_delimiter(path: Path, header: str) -> str | None:
    for delimiter in (",", ";", "\t"):
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a field longer than any column's name: this is not a header
            continue
        names = [name.strip().lower() for name in cells]
        if "path" in names:
            return delimiter
        if "youtube_id" in names:
            what = "is Kinetics' own list, which names no files and is not supported"
            hint = "write a list with the paths of the files you have: " + _WANTED
            raise DataError(what, where=f"{path}:1", hint=hint)
        if len(names) > 1 and _HEADER_WORDS.issuperset(names):
            what = f"the header has columns {', '.join(names)}, none of them `path`"
            raise DataError(what, where=f"{path}:1", hint=_WANTED)
    return None


def _csv_rows(path: Path, file: Iterable[str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = [name.strip().lower() for name in cells]
                continue
            where = f"{path}:{reader.line_num}"
            if len(cells) != len(names):
                what = f"has {len(cells)} columns, the header has {len(names)}"
                raise DataError(what, where=where, hint="put paths with commas in double quotes")
            row = dict(zip(names, cells, strict=True))
            fields = (row["label"],) if "label" in row else ()
            times = (row.get("start"), row.get("end"))
            yield Row(reader.line_num, _present(row["path"], where), fields, times)
    except csv.Error as error:
        what = f"is not CSV: {error}"
        raise DataError(what, where=f"{path}:{reader.line_num}") from error


def _jsonl_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"is not JSON: {error}"
            raise DataError(what, where=where) from error
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            what = 'is not an object with a text "path"'
            raise DataError(what, where=where, hint='{"path": "cats/1.jpg", "label": "cat"}')
        label = row.get("label")
        if isinstance(label, bool) or not isinstance(label, str | int | None):
            what = f"label {str(label)[:40]} is neither text nor a whole number"
            raise DataError(what, where=where)
        fields = () if label is None else (str(label),)
        times = (row.get("start"), row.get("end"))
        yield Row(number, _present(row["path"], where), fields, times)


def _plain_rows(path: Path, file: Iterable[str], suffixes: frozenset[str]) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if text := line.strip():
            head, fields = _split_plain(text, suffixes)
            yield Row(number, _present(head, f"{path}:{number}"), fields)


def _split_plain(text: str, suffixes: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """Split a line into path and fields; the path may hold any separator."""
    if text.startswith('"') and (end := text.find('"', 1)) > 0:
        return text[1:end], tuple(text[end + 1 :].replace(",", " ").split())

    def known(path: str) -> bool:
        return os.path.splitext(path)[1].lower() in suffixes  # noqa: PTH122 - in an inner loop

    if known(text):
        return text, ()
    numbers: tuple[str, tuple[str, ...]] = (text, ())
    for separator in _SEPARATORS:
        head, numeric = text, True
        fields: tuple[str, ...] = ()
        for _ in range(_MOST_FIELDS):
            head, found, tail = head.rpartition(separator)
            head = head.rstrip()
            if not found:
                break
            fields = (tail.strip(), *fields)
            numeric = numeric and tail.strip().lstrip("-").isdecimal()
            if known(head):
                return head, fields
            # Without a suffix to go by, numbers at the end do not belong to the path.
            if numeric and len(fields) > len(numbers[1]):
                numbers = (head, fields)
    return numbers


def _present(path: str, where: str) -> str:
    if not path.strip() or "\0" in path:
        what = "the path is empty" if not path.strip() else "the path holds a zero byte"
        raise DataError(what, where=where)
    if len(path) > _LONGEST_PATH or not is_name(path):
        what = f"the path {path[:40]!r} cannot be a file's name"
        raise DataError(what, where=where)
    try:
        check_scheme(path)
    except DataError as error:
        raise DataError(error.what, where=where, hint=error.hint) from error
    return path
