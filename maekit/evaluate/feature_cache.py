"""The features of a whole set: read once, encoded, and kept on disk in shards as they are made.

A folder of shards holds ``manifest.json``, which says what they depend on, and ``part-00000.npz``
... with the features of some samples each, and what could not be read: what was computed before an
interruption is never computed again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zipfile import BadZipFile

import numpy as np

from maekit.atomic import write_atomically, write_text
from maekit.data.batch import BadFile
from maekit.engine.events import Emit, Note
from maekit.errors import NonFiniteError, RecipeError, StorageError
from maekit.evaluate.predictions import Reading, batches_of, refuse_bad, run_networks

if TYPE_CHECKING:
    from maekit.data.bad_files import BadFiles
    from maekit.data.batch import Batch
    from maekit.data.order import Key
    from maekit.evaluate.predictions import Network
    from maekit.evaluate.views import ViewReader

PART = 256  # samples whose features are kept together
_MANIFEST = "manifest.json"
_PREFIX = "features."  # before the name of a kind of features
Made = Mapping[str, np.ndarray]  # features [B, V, ...] by name, float32
Name = Callable[[int], str]  # what a sample is called
# Which samples of a batch cannot be used; raises where that is fatal.
Check = Callable[["Batch", Made, Name], Sequence[BadFile]]
_SECONDS = 10.0  # between two words on how far reading is
BROKEN = "its features are not finite"


class Parts:
    """The parts of the features of one set.

    Args:
        folder: where they lie; it is made.
        about: what they depend on, beside the order of the set: plain data.

    Raises:
        RecipeError: there are parts of something else.
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(about, indent=1, sort_keys=True)
        manifest = folder / _MANIFEST
        if manifest.is_file() and manifest.read_text(encoding="utf-8") != text:
            msg = "these parts are of other inputs, weights or options"
            hint = f"remove {folder}, or give another --out"
            raise RecipeError(msg, where=str(folder), hint=hint)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(manifest, text)
        except OSError as error:
            msg = f"parts cannot be kept: {error}"
            raise StorageError(msg, where=str(folder), hint="give another --out") from error

    def has(self, number: int) -> bool:
        """Whether a part is there, whole."""
        return self._path(number).is_file()

    def keep(self, number: int, made: Collected) -> None:
        """Write a part, whole or not at all.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path = self._path(number)
        arrays = {f"{_PREFIX}{name}": features for name, features in made.features.items()}

        def write(draft: Path) -> None:
            with draft.open("wb") as file:  # given a path, np.savez would add a suffix
                np.savez(file, rows=made.rows, unread=json.dumps(made.unread), **arrays)  # type: ignore[arg-type]

        try:
            write_atomically(path, write)
        except OSError as error:
            msg = f"a part cannot be written: {error}"
            raise StorageError(msg, where=str(path), hint="free some space, then again") from error

    def load(self, number: int) -> Collected:
        """A part that is there.

        Raises:
            StorageError: it is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path) as part:
                features = {
                    name.removeprefix(_PREFIX): part[name]
                    for name in part.files
                    if name.startswith(_PREFIX)
                }
                unread = tuple(BadFile(*each) for each in json.loads(str(part["unread"])))
                return Collected(part["rows"], features, unread)
        except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
            msg = f"a part is damaged: {error}"
            raise StorageError(msg, where=str(path), hint="remove it, then again") from error

    def whole(self, size: int, total: int) -> Collected:
        """All parts in one: of a set of ``total`` samples, ``size`` in each.

        Raises:
            StorageError: one is damaged.
        """
        return Collected.of((self.load(number) for number in range(-(-total // size))), total)

    def remove(self) -> None:
        """Delete them: what they became is written."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.npz"


def source_of(folder: Path) -> str | None:
    """The weights that parts say they are of; None where there are no parts."""
    try:
        about = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(about["weights"])


def strict(read: Batch, made: Made, name: Name) -> Sequence[BadFile]:
    """Every sample counts: what cannot be read, or has no finite features, is fatal.

    Raises:
        DataError: a sample cannot be read.
        NonFiniteError: features are not finite.
    """
    refuse_bad(read)
    _refuse_broken(read, made, name)
    return ()


def counted(ledger: BadFiles) -> Check:
    """What cannot be read is left out and recorded, until it is too much."""

    def check(read: Batch, made: Made, name: Name) -> Sequence[BadFile]:
        ledger.add(read.bad, 0)
        _refuse_broken(read, made, name)
        return read.bad

    return check


def lenient(read: Batch, made: Made, name: Name) -> Sequence[BadFile]:
    """What cannot be read, or has no finite features, is left out; in the order of the batch."""
    bad = {each.index: each for each in read.bad}
    bad |= {index: BadFile(name(index), BROKEN, index) for index in _broken(read, made)}
    return [bad[key.index] for key in read.keys if key.index in bad]


def _broken(read: Batch, made: Made) -> list[int]:
    """The samples that were read, and of which some kind of features is not finite."""
    bad = {each.index for each in read.bad}
    finite = np.ones(len(read.keys), dtype=bool)
    for features in made.values():
        finite &= np.isfinite(features).reshape(len(finite), -1).all(axis=1)
    return [
        key.index
        for key, fine in zip(read.keys, finite.tolist(), strict=True)
        if not fine and key.index not in bad
    ]


def _refuse_broken(read: Batch, made: Made, name: Name) -> None:
    broken = _broken(read, made)
    if broken:
        hint = "look at its pixels, or precision: fp32"
        raise NonFiniteError(BROKEN, where=name(broken[0]), hint=hint)


@dataclass(frozen=True)
class Collected:
    """The features of a set, or of a part of one.

    Attributes:
        rows: int64 ``[n]``: places in the set, of what could be read.
        features: for each way of making them, float32 ``[n, V, ...]`` over V test views.
        unread: samples that are left out.
    """

    rows: np.ndarray
    features: dict[str, np.ndarray]
    unread: tuple[BadFile, ...] = ()

    @classmethod
    def of(cls, some: Iterable[Self], most: int) -> Self:
        """Several in one, which no more than one of them is held beside.

        Args:
            some: at least one.
            most: rows that they have together, at most.
        """
        rows: list[np.ndarray] = []
        unread: list[BadFile] = []
        whole: dict[str, np.ndarray] = {}
        done = 0
        for each in some:
            for name, features in each.features.items():
                if name not in whole:
                    whole[name] = np.empty((most, *features.shape[1:]), np.float32)
                whole[name][done : done + len(features)] = features
            done += len(each.rows)
            rows.append(each.rows)
            unread += each.unread
        return cls(
            np.concatenate(rows),
            {name: features[:done] for name, features in whole.items()},
            tuple(unread),
        )


class Progress:
    """Says how far reading is, now and then."""

    def __init__(self, what: str, emit: Emit) -> None:
        self.what, self.emit = what, emit
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > _SECONDS:
            self._told = time.monotonic()
            self.emit(Note(f"{self.what}: {done:,} of {total:,}"))


def collect(
    reader: ViewReader,
    ways: Mapping[str, Network],
    rows: Sequence[int],
    reading: Reading,
    check: Check = strict,
) -> Collected:
    """Read samples once, and make all kinds of features of them.

    Args:
        reader: reads their views.
        ways: to make features, by name.
        rows: which samples of the set, in this order.
        reading: how.
        check: says what is left out.

    Raises:
        DataError, NonFiniteError: as ``check`` does.
    """
    keys = batches_of(rows, max(1, reading.batch // reader.repeats))
    with closing(_encoded(reader, ways, keys, reading, check)) as batches:
        return Collected.of(batches, len(rows))


def collect_parts(
    reader: ViewReader,
    ways: Mapping[str, Network],
    parts: Parts,
    reading: Reading,
    *,
    size: int,
    check: Check = strict,
    go_on: Callable[[int, int], bool] = lambda _done, _total: True,
) -> bool:
    """Make the features of a set that are not kept yet; whether all of them are there then.

    Args:
        reader: reads its views.
        ways: to make features, by name.
        parts: where features are kept.
        reading: how.
        size: samples of one part.
        check: says what is left out.
        go_on: hears how many samples of how many are done, after each part.

    Raises:
        DataError, NonFiniteError: as ``check`` does.
        StorageError: a part cannot be written.
    """
    total = len(reader.dataset)
    missing = [place for place in range(-(-total // size)) if not parts.has(place)]
    at_once = max(1, reading.batch // reader.repeats)
    batches = {
        place: batches_of(range(place * size, min(total, (place + 1) * size)), at_once)
        for place in missing
    }
    keys = [batch for place in missing for batch in batches[place]]
    with closing(_encoded(reader, ways, keys, reading, check)) as made:
        for place in missing:
            most = sum(map(len, batches[place]))
            parts.keep(place, Collected.of(islice(made, len(batches[place])), most))
            done = min(total, (place + 1) * size)
            if not go_on(done, total) and place != missing[-1]:
                return False
    return True


def _encoded(
    reader: ViewReader,
    ways: Mapping[str, Network],
    keys: list[list[Key]],
    reading: Reading,
    check: Check,
) -> Generator[Collected, None, None]:
    """The features of each batch; the same workers read all of them."""
    with reading.loader(reader, keys) as loader:
        for read, outputs in run_networks(loader, ways, reading.device, reader.repeats):
            made = {name: output.float().cpu().numpy() for name, output in outputs.items()}
            unread = check(read, made, reader.dataset.name)
            left_out = {each.index for each in unread}
            rows = np.array([each.index for each in read.keys], np.int64)
            good = np.array([each.index not in left_out for each in read.keys])
            left = {name: features[good] for name, features in made.items()}
            yield Collected(rows[good], left, tuple(unread))
