"""What a data set is, so that a resumed run notices another one in its place.

The names of all samples in their order count, their labels and the names of the classes, and the
sizes of some files; never a time of change, which copying to another disk changes, and never a
look at every file.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from maekit.contracts import Boxes
from maekit.data.rng import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maekit.contracts import Dataset, Label

LOOKED_AT = 1000  # samples whose files are looked at
SHOWN = 5  # differences in a message


class Identity(BaseModel):
    """What is kept of a data set."""

    model_config = ConfigDict(frozen=True)

    samples: int
    names: str  # digest of all names, in order
    labels: str | None  # digest of all labels, in order
    classes: tuple[str, ...] | None
    files: dict[int, tuple[str, int | None]]  # of some samples: name, and size in bytes


def identify(dataset: Dataset) -> Identity:
    """Return what a data set is now."""
    count = len(dataset)
    names = hashlib.sha256()
    for index in range(count):
        name = dataset.name(index).encode("utf-8", "surrogatepass")
        names.update(len(name).to_bytes(8, "little") + name)
    rng = generator(0, purpose="identity", epoch=0, index=0, repeat=0)
    chosen = np.sort(rng.choice(count, min(count, LOOKED_AT), replace=False)).tolist()
    classes = None if dataset.classes is None else tuple(map(_text, dataset.classes))
    files = {
        index: (_text(dataset.name(index)), _size(dataset.containing_file(index)))
        for index in chosen
    }
    return Identity(
        samples=count,
        names=names.hexdigest(),
        labels=_digest(dataset.labels),
        classes=classes,
        files=files,
    )


def differences(before: Identity, now: Identity) -> list[str]:
    """Say how a data set differs from what it was; empty where it is the same."""
    return list(_differences(before, now))


def _differences(before: Identity, now: Identity) -> Iterator[str]:
    if before.samples != now.samples:
        yield f"{before.samples:,} samples before, {now.samples:,} now"
    if before.classes != now.classes:
        old, new = set(before.classes or ()), set(now.classes or ())
        gone, come = sorted(old - new)[:SHOWN], sorted(new - old)[:SHOWN]
        yield f"classes gone: {', '.join(gone) or 'none'}; new: {', '.join(come) or 'none'}" + (
            "" if old != new else "; they are in another order"
        )
    shared = sorted(before.files.keys() & now.files.keys())
    renamed = [i for i in shared if before.files[i][0] != now.files[i][0]]
    if before.names != now.names:
        some = [f"sample {i}: {before.files[i][0]} before, {now.files[i][0]} now" for i in renamed]
        yield "; ".join(["names or their order differ", *some[:SHOWN]])
    if before.labels != now.labels:
        yield "labels differ"
    sizes = [
        f"{now.files[i][0]}: {before.files[i][1]:,} bytes before, {now.files[i][1]:,} now"
        for i in shared
        if i not in renamed
        and None not in (before.files[i][1], now.files[i][1])
        and before.files[i][1] != now.files[i][1]
    ]
    if sizes:
        yield f"{len(sizes)} of {len(shared)} files looked at have another size: " + "; ".join(
            sizes[:SHOWN]
        )


def _digest(labels: Sequence[Any] | np.ndarray | None) -> str | None:
    if labels is None:
        return None
    plain = labels.tolist() if isinstance(labels, np.ndarray) else [_plain(each) for each in labels]
    return hashlib.sha256(repr(plain).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(label: Label) -> object:
    """Return boxes as text shows them whole; all else as it is."""
    return (
        label.__dict__ | {"corners": label.corners.tobytes()} if isinstance(label, Boxes) else label
    )


def _size(name: str) -> int | None:
    try:
        return os.stat(name).st_size  # noqa: PTH116 - names that are not text pass through a string
    except (OSError, ValueError):  # a row of a list, a URL, a member of an archive
        return None


def _text(name: str) -> str:
    """Return a name as JSON can hold it: what is not UTF-8 is escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
