"""The rows of a list of files: CSV with a header, JSONL, or plain lines."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from maekit.data.files import check_scheme, is_name
from maekit.data.sniff import HEAD, content_of, is_text
from maekit.datasets.list_header import (
    LOOKED_AT,
    Columns,
    delimiter_of,
    keep_hot,
    keys_note,
    keys_of,
    unknown_header,
)
from maekit.errors import DataError
from maekit.stop import hearing

_LONGEST_LINE = (
    1 << 20
)  # characters: a table with a caption in each row is a list, one line is none
_LONGEST_PATH = 1 << 16  # characters: file systems end at 4,096 bytes, addresses later
_SEPARATORS = ("\t", ",", " ")
_MOST_FIELDS = 3  # after the path, in the lists of VideoMAE and VideoMAEv2


@dataclass(frozen=True)
class Row:
    """One row of a list."""

    line: int
    path: str
    fields: tuple[str, ...]  # what stands after the path; of a CSV or JSONL row, the label
    times: tuple[object, object] = (None, None)  # of a CSV or JSONL row: start and end, as written
    columns: Mapping[str, object] = field(default_factory=dict)  # all of a CSV or JSONL row


def read_list(path: Path, suffixes: frozenset[str]) -> Iterator[Row]:
    """Yield the rows of a list: CSV with a header, JSONL, or lines ``path`` / ``path label``.

    CSV has a column ``path`` and may have ``label``, ``start`` and ``end``, or other tools' words
    for them (see ``list_header``); the separator is a comma, a semicolon or a tab. JSONL has keys
    of the same names. Other columns and keys are the user's own. In plain lines the path may hold
    spaces and commas: it ends at a known suffix, or before numbers.

    Raises:
        DataError: the list is not text, or a row makes no sense; names file and line.
        Interrupted: a signal has come.
    """
    with opened(path, suffixes) as file:
        first, below = _beginning(file, path)
        if first.lstrip().startswith("{"):
            yield from _jsonl_rows(path, _lines(file, path))
        elif table := _table(file, path, first, below, suffixes):
            yield from _csv_rows(path, _lines(file, path), *table)
        else:
            yield from _plain_rows(path, _lines(file, path), suffixes)


def columns_note(path: Path, suffixes: frozenset[str]) -> str | None:
    """Say which columns or keys of a list are taken; None where it has our own, or none.

    Raises:
        DataError: as ``read_list``.
    """
    with opened(path, suffixes) as file:
        first, below = _beginning(file, path)
        if first.lstrip().startswith("{"):
            return keys_note(_json(first, f"{path}:1"))
        table = _table(file, path, first, below, suffixes)
        return None if table is None else table[1].note


@contextmanager
def opened(path: Path, suffixes: frozenset[str] = frozenset()) -> Iterator[TextIO]:
    """Open a list; raise DataError where it is no text, or called as what it would name."""
    try:
        _refuse_other_files(path, suffixes)
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte {error.start} of a block: {error.reason})"
        hint = "save it as UTF-8, as by `iconv -f latin1 -t utf-8`"
        raise DataError(what, where=str(path), hint=hint) from error
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(path)) from error


def _refuse_other_files(path: Path, suffixes: frozenset[str]) -> None:
    """Raise DataError where a list is to be read and the file is none."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        what = "is UTF-16 text"
        raise DataError(what, where=str(path), hint="save it as UTF-8")
    if is_text(head):
        if path.suffix.lower() in suffixes:
            held = "text" if head else "empty"
            what = f"is {held}, though its name ends in {path.suffix}: no such file, and no list"
            raise DataError(what, where=str(path), hint=f"give a folder, or a list: {_WANTED}")
        return
    found = content_of(str(path))
    if found is not None:
        hint = found.hint or f"give the folder that holds it, or a list of such files: {_WANTED}"
        what = f"is {found.name}, and not a folder or a list"
        raise DataError(what, where=str(path), hint=hint)
    if b"\0" in head:
        what = "is not a text file"
        raise DataError(what, where=str(path), hint=_WANTED)


def _beginning(file: TextIO, path: Path) -> tuple[str, list[str]]:
    """Return the first line that is not empty and some below it; the file is at its start again.

    Raises:
        DataError: it is no list.
    """
    found: list[str] = []
    try:
        for line in _lines(file, path):
            if line.strip():
                found.append(line)
            if len(found) > LOOKED_AT:
                break
    except DataError:  # in its own place, once the rows before it are read
        if not found:
            raise
    file.seek(0)
    first = found[0] if found else ""
    if first.lstrip().startswith(("[", "<?xml", "<annotation")):
        what = "is JSON or XML, not one row a line"
        hint = f"{_WANTED}; of a JSON array: jq -c '.[]' {path.name} > list.jsonl"
        raise DataError(what, where=str(path), hint=hint)
    return first, found[1:]


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield lines, without taking memory for one that is longer than any list's.

    Raises:
        DataError: there is such a line.
        Interrupted: a signal has come.
    """
    lines = iter(lambda: file.readline(_LONGEST_LINE + 1), "")
    for number, line in enumerate(hearing(lines), start=1):
        if len(line) > _LONGEST_LINE:
            what = f"the line is longer than {_LONGEST_LINE:,} characters"
            raise DataError(what, where=f"{path}:{number}", hint=_WANTED)
        yield line


_WANTED = "a list is CSV with a header `path,label`, JSONL, or lines `path label`"


def _table(
    file: TextIO, path: Path, first: str, below: list[str], suffixes: frozenset[str]
) -> tuple[str, Columns] | None:
    """Return separator and columns of a list that is a table, with a header; None: it is none.

    Raises:
        DataError: it is one of another kind.
    """

    def known(text: str) -> bool:
        return os.path.splitext(text.strip())[1].lower() in suffixes  # noqa: PTH122

    found = delimiter_of(first, below, known)
    if found is None:
        if "youtube_id" in first:
            what = "is Kinetics' own list, which names no files and is not supported"
            hint = "write a list with the paths of the files you have: " + _WANTED
            raise DataError(what, where=f"{path}:1", hint=hint)
        if names := unknown_header(first, below, known):
            listed = ", ".join(name.strip() for name in names)[:200]
            what = f"the header has columns {listed}, none of them holds paths"
            raise DataError(what, where=f"{path}:1", hint=_WANTED)
        return None
    delimiter, columns = found
    if columns.hot:
        try:
            rows = csv.reader(_lines(file, path), delimiter=delimiter)
            next(rows, None)
            columns = keep_hot(columns, (row for row in rows if any(row)))
        except (csv.Error, DataError):
            pass  # what is wrong with a row is said once it is read
        file.seek(0)
    return delimiter, columns


def _csv_rows(path: Path, file: Iterable[str], delimiter: str, columns: Columns) -> Iterator[Row]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    header = True
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header:
                header = False
                continue
            where = f"{path}:{reader.line_num}"
            if len(cells) != len(columns.names):
                what = f"has {len(cells)} columns, the header has {len(columns.names)}"
                raise DataError(what, where=where, hint="put paths with commas in double quotes")
            label = columns.label_of(cells)
            fields = () if label is None else (label,)
            file_name = _present(cells[columns.path], where)
            times, row = columns.times_of(cells), dict(zip(columns.names, cells, strict=True))
            yield Row(reader.line_num, file_name, fields, times, row)
    except csv.Error as error:
        what = f"is not CSV: {error}"
        raise DataError(what, where=f"{path}:{reader.line_num}") from error


def _jsonl_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    keys: tuple[str | None, str | None] | None = None
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = _json(line, where)
        keys = keys_of(row) if keys is None else keys
        name, label_key = keys
        if name is None or not isinstance(row.get(name), str):
            what = f'is not an object with a text "{name or "path"}"'
            raise DataError(what, where=where, hint='{"path": "cats/1.jpg", "label": "cat"}')
        label = _json_label(None if label_key is None else row.get(label_key), where)
        fields = () if label is None else (label,)
        times = (row.get("start"), row.get("end"))
        yield Row(number, _present(row[name], where), fields, times, row)


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"is not JSON: {error}"
        hint = "JSONL has one whole object on each line; of another tool's JSON write such a list"
        raise DataError(what, where=where, hint=hint) from error
    if not isinstance(row, dict):
        what = "is not a JSON object"
        raise DataError(what, where=where, hint='{"path": "cats/1.jpg", "label": "cat"}')
    return row


def _json_label(label: object, where: str) -> str | None:
    """Return a label as text; several are joined, as they are in CSV."""
    if label is None:
        return None
    labels = label if isinstance(label, list) else [label]
    if any(isinstance(each, bool) or not isinstance(each, str | int) for each in labels):
        what = f"label {str(label)[:40]} is neither text nor a whole number, nor a list of them"
        raise DataError(what, where=where)
    return "|".join(map(str, labels)) if labels else "-"


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
