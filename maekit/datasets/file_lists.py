"""The files of a set: paths kept, labels numbered.

Paths are kept in one block of bytes, so that a million of them cost what their text costs; many in
a file, so that they cost nothing, and are not sent to workers.
"""

from __future__ import annotations

import os
import re
from array import array
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from maekit.contracts import Dataset
from maekit.data.files import is_name, is_url
from maekit.data.index_file import ArrayFile, Indexed, recall
from maekit.data.order import evenly
from maekit.datasets.folders import Wanted, suffix_of, walk
from maekit.datasets.list_rows import read_list
from maekit.errors import DataError
from maekit.text import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from maekit.datasets.folders import Tally

_LARGEST_LABEL = 1_000_000
_ROWS_NAMED = 100  # of a list, whose suffixes say what it lists
_LONGEST_LABEL = 4000  # characters: several labels of a sample are joined


_ADDRESS = re.compile(r"(?:^|/)(https?|ftp|s3|gs|gcs|az|abfss?|hf|hdfs|file):/+([^/].*)")
_FILES_TRIED = 8  # of a list: they must not all be missing
WHERE = "data.train.path (or data.val.path)"  # a set does not know which of the two it is


def nothing_at(what: str, path: Path, layout: str) -> DataError:
    """Build the error of a path that is neither a folder nor a file."""
    if found := _ADDRESS.search(str(path)):
        scheme, rest = found.groups()
        hint = (
            f"download it, and give the folder (wget, aws s3 cp, git clone); a list may hold "
            f"addresses of single files, {scheme}://{rest}/... in each row"
        )
        return DataError(f"{scheme}://{rest} is an address", where=WHERE, hint=hint)
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


_AHEAD = 4096  # paths that are read at once where one follows the other


class Paths:
    """Many paths in one block of bytes, in the file system's encoding; in memory or in a file."""

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends  # uint8; int64 [n]: where each path ends in the block

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        """Pack paths, in their order."""
        blob, lengths = bytearray(), array("q")
        for path in paths:
            encoded = os.fsencode(path)
            blob += encoded
            lengths.append(len(encoded))
        ends = np.frombuffer(lengths, np.int64) if lengths else np.zeros(0, np.int64)
        return cls(np.frombuffer(blob, np.uint8), np.cumsum(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            what = f"sample {index} of {len(self)}"
            raise IndexError(what)
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.blob[start : int(self.ends[index])].tobytes())


class KeptPaths(Paths):
    """Paths in a file: what is not asked for is in nobody's memory."""

    def __init__(self, index: ArrayFile) -> None:
        self.index = index
        self._count = int(index.plain["paths"])
        self._block: tuple[int, list[bytes]] = 0, []  # the last that were read: from which on

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "_count": self._count, "_block": (0, [])}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._count:
            what = f"sample {index} of {self._count}"
            raise IndexError(what)
        first, block = self._block
        if not first <= index < first + len(block):
            count = _AHEAD if block and index == first + len(block) else 1
            first, block = index, self._read(index, min(self._count, index + count))
            self._block = first, block
        return os.fsdecode(block[index - first])

    def _read(self, start: int, stop: int) -> list[bytes]:
        ends = self.index.read("ends", max(0, start - 1), stop).tolist()
        starts = [0, *ends[:-1]] if start == 0 else ends[:-1]
        ends = ends if start == 0 else ends[1:]
        data = self.index.read("blob", starts[0], ends[-1]).tobytes()
        return [data[a - starts[0] : b - starts[0]] for a, b in zip(starts, ends, strict=True)]


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

    def folders(self) -> tuple[Labels, list[int]]:
        """Return the folder right below the root that each file lies in, and files in none."""
        found, loose = Labels(), []
        for index in range(len(self)):
            folder, slash, _ = self.paths[index].partition("/")
            if slash:
                found.add(folder)
            else:
                loose.append(index)
        return found, loose


class FileSet(Indexed, Dataset):
    """Base of sets of files: their names and labels, and what is left out."""

    wanted: ClassVar[Wanted]  # what it takes of a folder
    kept: ClassVar[tuple[str, ...]] = ("labels",)  # arrays that have a value for each file
    labels: np.ndarray | None = None  # int32 [n]
    _files: Files
    _listed: Path | None = None  # the list that names the files

    def _folder(
        self, files: Files, tally: Tally, labels: Literal["auto", "none", "folder"]
    ) -> None:
        """Take the files of a folder, with labels from the folders right below it.

        Args:
            files: what is taken.
            tally: what was taken and left out of the folder.
            labels: ``auto``: where all files lie in two or more of them; ``folder``: always.

        Raises:
            DataError: labels must come from folders, and a file lies in none.
        """
        self._files, self.left_out = files, dict(tally.left_out)
        self._note(tally.composition)
        if labels != "none":
            self._label_by_folder(files, labels)
        self._keep()

    def _label_by_folder(self, files: Files, labels: Literal["auto", "folder"]) -> None:
        found, loose = files.folders()
        if labels == "folder" and loose:
            what = f"{files.name(loose[0])} does not lie in a class folder"
            hint = "move it into one, or set labels: none"
            raise DataError(what, where=files.root, hint=hint)
        if labels == "folder" or (len(found.first) > 1 and not loose):
            self.labels, self.classes = found.by_name()
        elif loose and found.first:
            more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
            reason = "folders that would be classes, but for what lies beside them: "
            reason += as_text(files.paths[loose[0]]) + more
            self.left_out = {**self.left_out, reason: len(found.first)}

    def _recall(self, key: str | None) -> Paths | None:
        """Take labels and the like of a list from its index, and return its paths, if it has one.

        Args:
            key: of the list's content, and of the options that it is read by; None: it is small.
        """
        index = None if key is None else recall(key)
        if index is None:
            return None
        self._map(index, tuple(name for name in self.kept if name in index))
        classes = index.plain["classes"]
        self.classes = None if classes is None else tuple(classes)
        return KeptPaths(index)

    def _keep(self, key: str | None = None) -> None:
        """Move what is large into a file that other processes read."""
        paths = self._files.paths
        if isinstance(paths, KeptPaths):
            return
        index = self._keep_arrays(self.kept, key, blob=paths.blob, ends=paths.ends)
        if index is not None:
            self._files = Files(self._files.root, KeptPaths(index))

    def _beside_arrays(self) -> dict[str, Any]:
        return {"paths": len(self._files), "classes": self.classes}

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Return the file or folder, as it is listed."""
        return self._files.name(index)

    def sources(self, by: str) -> Sequence[str]:
        """Return where each sample comes from: its file, its folder, or a column of its list.

        Files are named as below the folder, or as in the list: a set may be moved as a whole.
        """
        if by in {"sample", "folder"}:
            paths = [self._files.paths[index] for index in range(len(self._files))]
            return paths if by == "sample" else [path.rpartition("/")[0] for path in paths]
        if self._listed is None:
            return super().sources(by)
        found = []
        for row in read_list(self._listed, self.wanted.suffixes):
            if by not in row.columns:
                known = ", ".join(row.columns) or "none"
                what = f"has no column '{by}', by which data.val is to be split"
                hint = f"columns here: {known}; or by: sample, by: folder"
                raise DataError(what, where=f"{self._listed}:{row.line}", hint=hint)
            found.append(str(row.columns[by]))
        return found

    @classmethod
    def reads(cls, path: str) -> bool:
        """Return whether a folder, at any depth, or the rows of a list have such files."""
        if os.path.isdir(path):  # noqa: PTH112
            return next(walk(path, cls.wanted), None) is not None
        if not os.path.isfile(path):  # noqa: PTH113
            return False
        rows = islice(read_list(Path(path), cls.wanted.suffixes), _ROWS_NAMED)
        return any(suffix_of(row.path) in cls.wanted.suffixes for row in rows)

    def _label(self, index: int) -> int | None:
        """Return the label of one sample."""
        return None if self.labels is None else int(self.labels[index])

    def _note(self, note: str | None) -> None:
        """Keep what people should know of the set."""
        self.notes = (*self.notes, note) if note is not None else self.notes

    def _list(self, root: str, paths: Paths, where: Path) -> None:
        """Take the paths of a list; raises DataError where it has none, or none is there."""
        self._files, self._listed = Files(root, paths), where
        if not len(paths):
            what = "the list has no rows"
            raise DataError(what, where=str(where))
        places = [self._files.place(index) for index in evenly(len(paths), _FILES_TRIED)]
        if not any(is_url(place) or os.path.lexists(place) for place in places):
            rows = "its one row" if len(places) == 1 else f"the {len(places)} rows looked at"
            what = f"no file of {rows} is there; the first is {as_text(places[0])}"
            hint = (
                f"relative paths start from {root}: set the data set's `root` "
                f"(data.train.root, data.val.root) to the folder that they start from"
            )
            raise DataError(what, where=str(where), hint=hint)


@dataclass
class Labels:
    """Labels as they come, numbered once all are known."""

    first: dict[str, int] = field(default_factory=dict)  # label to its number by appearance
    seen: array[int] = field(default_factory=lambda: array("i"))
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
        return np.array(values, dtype=np.int32)[np.frombuffer(self.seen, np.int32)]


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
