"""Hold a share of a data set out, by what its samples are called.

Which samples these are depends on their names alone, not on the order of files, the seed or the
machine; a file that is added moves at most one other. Samples of one source stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from maekit.contracts import Boxes, Dataset, Label
from maekit.data.index_file import Indexed
from maekit.errors import DataError
from maekit.origin import origin_of, remember
from maekit.text import quantity

if TYPE_CHECKING:
    from maekit.contracts import Source

SHOWN = 5  # names in a message


class Subset(Indexed, Dataset):
    """Some samples of a data set, with its classes.

    Args:
        whole: the set.
        rows: which of its samples, int64 ``[n]``.
    """

    def __init__(self, whole: Dataset, rows: np.ndarray) -> None:
        self.whole, self.rows = whole, rows
        self.classes = whole.classes
        self.labels, self.judged = _taken(whole.labels, rows), whole.judged
        origin = origin_of(whole)
        if origin is not None:
            remember(self, origin)
        arrays = ("rows", "labels") if isinstance(self.labels, np.ndarray) else ("rows",)
        self._keep_arrays(arrays)

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, index: int) -> Source:
        """Open sample ``index``; raises as the set does."""
        return self.whole.open(int(self.rows[index]))

    def name(self, index: int) -> str:
        """Return the sample's name."""
        return self.whole.name(int(self.rows[index]))

    def containing_file(self, index: int) -> str:
        """Return the file that the sample lies in."""
        return self.whole.containing_file(int(self.rows[index]))

    def sources(self, by: str) -> Sequence[str]:
        """Return where each sample comes from."""
        found = self.whole.sources(by)
        return [found[row] for row in self.rows.tolist()]


def split_off(dataset: Dataset, share: float, by: str) -> tuple[Subset, Subset, list[str]]:
    """Split a set into what is trained on and what is held out.

    Where there are labels, the share is taken of each class, at least one source of it, and one is
    always left to train on.

    Args:
        dataset: the whole set.
        share: of the samples that are held out, in (0, 1).
        by: what stays together: ``sample``, ``folder``, or a column of the set's list.

    Returns:
        What is trained on, what is held out, and classes of which nothing could be held out.

    Raises:
        DataError: there is only one source of samples.
    """
    rows_of: dict[str, list[int]] = {}
    for row, source in enumerate(dataset.sources(by)):
        rows_of.setdefault(source, []).append(row)
    strata: dict[str, list[str]] = {}
    for source, rows in rows_of.items():
        strata.setdefault(_label_of(dataset, rows), []).append(source)
    held = [row for each in strata.values() for row in _held(each, rows_of, share)]
    if not held:
        raise _nothing_to_hold_out(dataset, len(rows_of), by)
    mask = np.zeros(len(dataset), bool)
    mask[held] = True
    trained = Subset(dataset, np.flatnonzero(~mask))
    # A dict, as the default of a set that leaves nothing out cannot be sent to workers.
    trained.left_out, trained.notes = dict(dataset.left_out), dataset.notes
    kept = Subset(dataset, np.flatnonzero(mask))
    _share_excluded(dataset, trained, kept)
    seen = {_label_of(dataset, [row]) for row in held}
    left = sorted({_label_of(dataset, rows) for rows in rows_of.values()} - seen)
    return (
        trained,
        kept,
        [_class_name(dataset, label) for label in left],
    )


def _share_excluded(dataset: Dataset, trained: Subset, held: Subset) -> None:
    """Give excluded moments to the part that their movie is in, or most of it."""
    if not len(dataset.excluded):
        return
    counts: dict[str, int] = {}
    for sign, part in ((-1, trained), (1, held)):
        for label in part.labels if part.labels is not None else ():
            if isinstance(label, Boxes):
                counts[label.movie] = counts.get(label.movie, 0) + sign
    mine = [label for label in dataset.excluded if counts.get(label.movie, 0) > 0]
    held.excluded = mine
    trained.excluded = [label for label in dataset.excluded if counts.get(label.movie, 0) <= 0]


def _held(sources: Sequence[str], rows_of: dict[str, list[int]], share: float) -> list[int]:
    """Return the rows of one class that are held out: sources in the order of their digests."""
    total = sum(len(rows_of[source]) for source in sources)
    held: list[int] = []
    for source in sorted(sources, key=_digest)[:-1]:  # one is left to train on
        rows = rows_of[source]
        if held and len(held) + len(rows) / 2 > share * total:
            break
        held += rows
    return held


def _digest(source: str) -> bytes:
    return hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _label_of(dataset: Dataset, rows: Sequence[int]) -> str:
    """Return what stands for the label of rows; empty where they have none, or several.

    Boxes are no class: hardly two samples have the same.
    """
    if dataset.labels is None or any(isinstance(dataset.labels[row], Boxes) for row in rows[:1]):
        return ""
    found = {repr(_plain(dataset.labels[row])) for row in rows}
    return found.pop() if len(found) == 1 else ""


def _plain(label: Label) -> object:
    return label.tolist() if isinstance(label, np.generic | np.ndarray) else label


def _class_name(dataset: Dataset, label: str) -> str:
    names = dataset.classes or ()
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else label


def _nothing_to_hold_out(dataset: Dataset, sources: int, by: str) -> DataError:
    if by == "folder" and dataset.labels is not None and sources > 1:
        what = "each class lies in one folder, so that no folder can be held out"
        hint = "by: sample (the default), or by: a column of a list that names the sources"
        return DataError(what, where="data.val.by", hint=hint)
    has = f"{quantity(len(dataset), 'samples')} of {quantity(sources, 'sources')}"
    what = f"nothing can be held out: data.train has {has}"
    return DataError(what, where="data.val.split", hint="add samples, or remove it: ~data.val")


def _taken(
    labels: Sequence[Label] | np.ndarray | None, rows: np.ndarray
) -> Sequence[Label] | np.ndarray | None:
    if labels is None or isinstance(labels, np.ndarray):
        return None if labels is None else labels[rows]
    if isinstance(labels, (list, tuple)):
        return [labels[row] for row in rows.tolist()]
    return _Chosen(labels, rows)


class _Chosen(Sequence[Label]):
    """Some of the labels of a set that makes each when it is asked for."""

    def __init__(self, labels: Sequence[Label], rows: np.ndarray) -> None:
        self._labels, self._rows = labels, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Label: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Label]: ...
    def __getitem__(self, index: int | slice) -> Label | Sequence[Label]:
        if isinstance(index, slice):
            return _Chosen(self._labels, self._rows[index])
        return self._labels[int(self._rows[index])]
