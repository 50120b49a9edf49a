"""Samples that two sets share: by the file itself, or by a copy of it under the same name.

A measurement on samples that were trained on says nothing. Files of one name and size are compared
by the first megabyte of their content, as drawn sets and arrays have many of them.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maekit.data.order import evenly

if TYPE_CHECKING:
    from maekit.contracts import Dataset

_MOST_SAMPLES = 5_000_000  # of a set whose names are compared
_COMPARED = 64  # copies that are looked for by content, evenly spaced
_BYTES = 1 << 20  # of a file that are compared


class Overlap(NamedTuple):
    """How many samples of one set are in the other, too.

    Attributes:
        same: of the very same file.
        copies: of a file of the same name, size and content; of many an estimate.
        first: one of them.
    """

    same: int
    copies: int
    first: str

    @property
    def samples(self) -> int:
        """All of them."""
        return self.same + self.copies


def overlap(train: Dataset, val: Dataset) -> Overlap | None:
    """Return what ``val`` shares with ``train``; None where nothing is found."""
    if max(len(train), len(val)) > _MOST_SAMPLES:
        return None
    names = [_normal(val.name(index)) for index in range(len(val))]
    own = set(names)
    # By the last two parts of a path, as train/cat/1.png and val/cat/1.png; by the last alone where
    # it is val's only one.
    counts = Counter(map(_last, names))
    twins = {_last_two(name): name for name in names}
    twins |= {_last(name): name for name in names if counts[_last(name)] == 1}
    same: set[str] = set()
    candidates: dict[str, str] = {}  # a file of val, to one of its name in train
    for index in range(len(train)):
        name = _normal(train.name(index))
        if name in own:
            same.add(name)
        elif (twin := twins.get(_last_two(name)) or twins.get(_last(name))) is not None:
            candidates.setdefault(twin, name)
    shared = sum(name in same for name in names)
    left = [name for name in candidates if name not in same]
    compared = [left[place] for place in evenly(len(left), _COMPARED)] if left else []
    equal = [name for name in compared if _equal(name, candidates[name])]
    if not shared and not equal:
        return None
    first = next((name for name in names if name in same), equal[0] if equal else "")
    return Overlap(shared, round(len(equal) / max(1, len(compared)) * len(left)), first)


def _normal(name: str) -> str:
    """Return a path in one spelling; most have it, and a set may have a million."""
    return os.path.normpath(name) if "/." in name or "//" in name else name


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _last_two(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{_last(folder)}/{last}"


def _equal(one: str, other: str) -> bool:
    try:
        first, second = Path(one), Path(other)
        if not (first.is_file() and second.is_file()):
            return False
        if first.stat().st_size != second.stat().st_size:
            return False
        with first.open("rb") as a, second.open("rb") as b:
            return a.read(_BYTES) == b.read(_BYTES)
    except (OSError, ValueError):
        return False
