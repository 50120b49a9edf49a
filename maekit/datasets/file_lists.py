"""The files of a set: folders walked, lists read, paths kept, labels numbered.

A folder set takes files by suffix; a list takes every row as it stands.
Paths are kept in one block of bytes, so that a million of them cost what their text costs, also to
send to a worker.
"""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from maekit.contracts import Dataset
from maekit.data.files import check_scheme, is_url
from maekit.errors import DataError
from maekit.text import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LARGEST_LABEL = 1_000_000
_LONGEST_LABEL = 4000  # characters: several labels of a sample are joined
_LONGEST_LINE = (
    1 << 20
)  # characters: a table with a caption in each row is a list, one line is none
_LONGEST_PATH = 1 << 16  # characters: file systems end at 4,096 bytes, addresses later
_SHOWN_LINKS = 3
_log = logging.getLogger(__name__)


WHERE = "data.train.path (or data.val.path)"  # a set does not know which of the two it is


def nothing_at(what: str, path: Path, layout: str) -> DataError:
    """Build the error of a path that is neither a folder nor a file."""
    why = "it is neither a folder nor a file" if os.path.exists(path) else "it does not exist"  # noqa: PTH110
    return DataError(f"no {what} at {path}: {why}", where=WHERE, hint=layout)


def for_lists_only(key: str, path: Path) -> DataError:
    """Build the error of an option that does nothing, as the set is a folder."""
    what = f"{key} is for lists; this is a folder"
    return DataError(what, where=str(path), hint=f"drop {key}, or give a list")


def refuse_folder_labels(labels: str, path: Path) -> None:
    """Raise DataError where a list is to take its labels from folders: its rows hold them."""
    if labels == "folder":
        what = "labels: folder is for folders; this is a list"
        raise DataError(what, where=str(path), hint="give the label in the list, or labels: auto")


@dataclass
class Paths:
    """Many paths in one block of bytes, in the file system's encoding."""

    blob: bytes
    ends: np.ndarray  # int64 [n]: where each path ends in the block

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        """Pack paths, in their order."""
        encoded = [os.fsencode(path) for path in paths]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        return cls(b"".join(encoded), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self.ends):
            what = f"sample {index} of {len(self.ends)}"
            raise IndexError(what)
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.blob[start : int(self.ends[index])])


@dataclass
class Files:
    """The files of a set: paths, and the folder that relative ones start from."""

    root: str
    paths: Paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Return the file, as it is listed."""
        row = self.paths[index]
        if is_url(row) or os.path.isabs(row):  # noqa: PTH117 - a string is what is wanted
            return row
        return f"{self.root.rstrip('/')}/{row}"

    def place(self, index: int) -> str:
        """Return the file, as it is opened.

        Lists written on Windows have backslashes; a file that has such a name is taken as it is.
        """
        name = self.name(index)
        return name.replace("\\", "/") if "\\" in name and not os.path.exists(name) else name  # noqa: PTH110

    def labels(
        self, where: str, labels: Literal["auto", "none", "folder"]
    ) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Take labels int32 ``[n]`` and classes from the folders right below the root.

        Args:
            where: the set, for errors.
            labels: ``auto``: where all files lie in two or more of them; ``folder``: always.

        Raises:
            DataError: labels must come from folders, and a file lies in none.
        """
        found = Labels()
        for index in range(0 if labels == "none" else len(self)):
            folder, slash, _ = self.paths[index].partition("/")
            if not slash and labels == "folder":
                what = f"{self.name(index)} does not lie in a class folder"
                hint = "move it into one, or set labels: none"
                raise DataError(what, where=where, hint=hint)
            if not slash:
                return None, None
            found.add(folder)
        if labels == "folder" or len(found.first) > 1:
            return found.by_name()
        return None, None


class FileSet(Dataset):
    """Base of sets of files: their names and labels."""

    labels: np.ndarray | None = None  # int32 [n]
    _files: Files

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Return the file or folder, as it is listed."""
        return self._files.name(index)

    def _label(self, index: int) -> int | None:
        """Return the label of one sample."""
        return None if self.labels is None else int(self.labels[index])

    def _list(self, root: str, paths: Paths, where: Path) -> None:
        """Take the paths of a list; raises DataError where it has none."""
        self._files = Files(root, paths)
        if not len(paths):
            what = "the list has no rows"
            raise DataError(what, where=str(where))


@dataclass
class Labels:
    """Labels as they come, numbered once all are known."""

    first: dict[str, int] = field(default_factory=dict)  # label to its number by appearance
    seen: list[int] = field(default_factory=list)
    unlabeled: int = 0

    def add(self, label: str) -> None:
        """Add the next sample's label."""
        self.seen.append(self.first.setdefault(label, len(self.first)))

    def take(self, label: str | None, where: str) -> None:
        """Add the label of a list's next row; raise DataError unless all rows have one, or none.

        Raises:
            DataError: this row is unlike those before it, or the label makes no sense.
        """
        unlike = self.unlabeled if label is not None else len(self.seen)
        if unlike:
            what = "has {}, the rows before it have {}".format(
                *(("no label", "one") if label is None else ("a label", "none"))
            )
            raise DataError(what, where=where, hint="label every row, or set labels: none")
        if label is None:
            self.unlabeled += 1
        else:
            self.add(check_label(label, where))

    def by_name(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return labels int32 ``[n]`` and the classes they count, in sorted order."""
        names = sorted(self.first)
        ranks = {name: rank for rank, name in enumerate(names)}
        return self._mapped([ranks[name] for name in self.first]), tuple(map(as_text, names))

    def by_value(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return as ``by_name`` does, but keep labels that are all whole numbers."""
        if not all(name.isdecimal() for name in self.first):
            return self.by_name()
        values = [int(name) for name in self.first]
        return self._mapped(values), tuple(map(str, range(max(values, default=-1) + 1)))

    def _mapped(self, values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int32)[np.array(self.seen, dtype=np.int64)]


def walk(folder: str, suffixes: frozenset[str], *, empty_folders: bool = False) -> Iterator[str]:
    """Yield files below a folder by suffix, relative to it, sorted; links are followed.

    With ``empty_folders``, a folder that has such a suffix itself, and no such file in it, is
    given in place of one. Hidden files and folders (and with them ``._*``) are skipped. Every
    folder is walked once, under its own name where it lies below this one: a link to a folder that
    is walked anyway would count its files again, and a web of links would never end. A name is
    enough: whether the file is good shows on reading.

    Raises:
        DataError: a folder cannot be listed.
    """
    seen = {_identity(folder)}
    own: set[tuple[int, int]] | None = None  # the folders below that are not links, once needed
    repeated: list[str] = []
    # Not recursive: folders may lie deeper than Python calls. Of each open folder: its path, what
    # is left of it, and whether a file was found in it.
    stack = [_Level("", _entries(folder))]
    while stack:
        level = stack[-1]
        entry = next(level.entries, None)
        if entry is None:
            stack.pop()
            named = bool(stack) and _suffix(level.path) in suffixes
            if named and not level.found and empty_folders:
                yield level.path
            if stack and (named or level.found):
                stack[-1].found = True
            continue
        path = f"{level.path}/{entry.name}" if level.path else entry.name
        if not _is_folder(entry):
            if _suffix(entry.name) in suffixes:
                level.found = True
                yield path
            continue
        here = _identity(entry.path)
        if entry.is_symlink() and here not in seen:
            own = _own_folders(folder) if own is None else own
        if here in seen or (own is not None and entry.is_symlink() and here in own):
            repeated.append(path)
            continue
        seen.add(here)
        stack.append(_Level(path, _entries(entry.path)))
    if repeated:
        shown = ", ".join(repeated[:_SHOWN_LINKS]) + (", ..." if repeated[_SHOWN_LINKS:] else "")
        text = "%s: %d links lead to folders that are listed anyway and are not followed: %s"
        _log.warning(text, folder, len(repeated), shown)


@dataclass
class _Level:
    """A folder that is being walked."""

    path: str
    entries: Iterator[os.DirEntry[str]]
    found: bool = False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million, at a third of Path's cost


def _identity(folder: str) -> tuple[int, int]:
    """Return what tells a folder from all others, by whatever name it is reached."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - as above
    except OSError as error:
        raise _unlisted(folder, error) from error
    return status.st_dev, status.st_ino


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Iterate over what lies in a folder and is not hidden, sorted."""
    try:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise _unlisted(folder, error) from error
    return iter(sorted(entries, key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself: to read it fails, by name
            return False
        raise _unlisted(entry.path, error) from error


def _own_folders(top: str) -> set[tuple[int, int]]:
    """Return the folders at and below one that are reached without a link."""
    found = {_identity(top)}
    left = [top]
    while left:
        for entry in _entries(left.pop()):
            if entry.is_dir(follow_symlinks=False):
                found.add(_identity(entry.path))
                left.append(entry.path)
    return found


def _unlisted(folder: str, error: OSError) -> DataError:
    what = f"the folder cannot be listed: {error.strerror}"
    return DataError(what, where=folder, hint="make it readable, or move it away")


def check_label(value: str, where: str) -> str:
    """Return a label as written; raise DataError where it is negative or no label at all."""
    label = value.strip()
    if len(label) > _LONGEST_LABEL:
        what = f"the label has {len(label):,} characters, more than {_LONGEST_LABEL:,}"
        raise DataError(what, where=where, hint=_NO_LABELS)
    if not is_name(label):
        what = f"label {value!r} is not text: it holds half of a surrogate pair"
        raise DataError(what, where=where, hint="write the list as UTF-8, without such escapes")
    number = label.lstrip("-")
    if not label or (number.isdecimal() and (label != number or int(number) >= _LARGEST_LABEL)):
        what = f"label {value[:40]!r} is neither a word nor a number from 0 to {_LARGEST_LABEL - 1}"
        raise DataError(what, where=where, hint=_NO_LABELS)
    return str(int(label)) if label.isdecimal() else label


_NO_LABELS = "labels: none reads the list without labels"


def is_name(text: str) -> bool:
    """Return whether text can be a name on this machine: what JSON may hold need not be."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


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
