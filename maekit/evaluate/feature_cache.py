"""The features of a whole set: read once, encoded, and kept on disk in shards as they are made.

A folder of shards holds ``manifest.json``, which says what they depend on, and ``part-00000.npz``
... with the features of some samples each, and what could not be read: what was computed before an
interruption is never computed again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zipfile import BadZipFile

import numpy as np

from maekit.atomic import remove_folder, write_atomically, write_text
from maekit.data.batch import BadFile
from maekit.engine import distributed
from maekit.engine.events import Emit, Note
from maekit.engine.left_out import counts_of
from maekit.engine.lock import LOCK, in_use
from maekit.errors import NonFiniteError, RecipeError, StorageError
from maekit.evaluate.predictions import Reading, batches_of, refuse_bad, run_extractors
from maekit.progress import counted

if TYPE_CHECKING:
    from maekit.data.bad_files import BadFiles
    from maekit.data.batch import Batch
    from maekit.data.order import Key
    from maekit.evaluate.predictions import Extractor
    from maekit.evaluate.views import ViewReader

SHARD_SIZE = 256  # samples of one file
_MANIFEST = "manifest.json"
_PREFIX = "features."  # before the name of a kind of features
FeatureArrays = Mapping[str, np.ndarray]  # features [B, V, ...] by name, float32
Name = Callable[[int], str]  # the name of a sample, by its row
# Which samples of a batch cannot be used; raises where that is fatal.
OnBad = Callable[["Batch", FeatureArrays, Name], Sequence[BadFile]]
_NONFINITE = "its {} are not finite"
_FEATURES = "features"
SHARDS = "part-*.npz"  # in a folder of shards, once some samples are done


class FeatureShards:
    """The features of one set on disk, in shards.

    Args:
        folder: where they are kept; it is made.
        about: what they depend on besides the order of the set; plain data.

    Raises:
        RecipeError: the folder holds features of something else.
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        distributed.on_first(lambda: self._open(about))

    def _open(self, about: Mapping[str, Any]) -> None:
        folder = self.folder
        text = json.dumps(about, indent=1, sort_keys=True)
        manifest = folder / _MANIFEST
        if manifest.is_file() and manifest.read_text(encoding="utf-8") != text:
            msg = "these features were made from other inputs, weights or options"
            hint = f"remove {folder}, or give another --out"
            raise RecipeError(msg, where=str(folder), hint=hint)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(manifest, text)
        except OSError as error:
            msg = f"features cannot be kept: {error}"
            raise StorageError(msg, where=str(folder), hint="give another --out") from error

    def has(self, number: int) -> bool:
        """Tell whether a shard is there, whole."""
        return self._path(number).is_file()

    def save(self, number: int, made: FeatureSet) -> None:
        """Write a shard, whole or not at all.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path = self._path(number)
        arrays = {f"{_PREFIX}{name}": features for name, features in made.features.items()}

        def write(draft: Path) -> None:
            with draft.open("wb") as file:  # given a path, np.savez would add a suffix
                said = {"unread": json.dumps(made.unread), "left_out": json.dumps(made.left_out)}
                np.savez(file, rows=made.rows, **said, **arrays)  # type: ignore[arg-type]

        try:
            write_atomically(path, write)
        except OSError as error:
            msg = f"features cannot be written: {error}"
            raise StorageError(
                msg, where=str(path), hint="free some space, and run again"
            ) from error

    def load(self, number: int) -> FeatureSet:
        """Read a shard.

        Raises:
            StorageError: it is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path) as shard:
                features = {
                    name.removeprefix(_PREFIX): shard[name]
                    for name in shard.files
                    if name.startswith(_PREFIX)
                }
                unread = tuple(BadFile(*each) for each in json.loads(str(shard["unread"])))
                left_out = json.loads(str(shard["left_out"])) if "left_out" in shard else {}
                return FeatureSet(shard["rows"], features, unread, Counter(left_out))
        except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
            msg = f"this file of features is damaged: {error}"
            raise StorageError(msg, where=str(path), hint="remove it, and run again") from error

    def load_all(self, size: int, total: int) -> FeatureSet:
        """Read all shards of a set of ``total`` samples, ``size`` in each.

        Raises:
            StorageError: one is damaged.
        """
        return FeatureSet.concatenate(
            (self.load(number) for number in range(-(-total // size))), total
        )

    def remove(self, emit: Emit) -> None:
        """Delete all shards, once what they were made for is written."""
        remove_kept(self.folder, emit)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.npz"


def remove_kept(folder: Path, emit: Emit) -> None:
    """Remove what a result was made of; where that fails, it is said, and the result counts."""
    try:
        remove_folder(folder)
    except OSError as error:
        emit(Note(f"{folder} could not be removed: {error.strerror or error}", warning=True))


def remove_finished(folder: Path, output: Path, emit: Emit) -> None:
    """Remove shards that a process left which was killed when their output was written.

    A call that makes shards anew writes their manifest first: what is older than the output went
    into it.
    """
    if not output.is_file() or not folder.is_dir() or in_use(folder / LOCK):
        return
    written = output.stat().st_mtime_ns
    if all(each.stat().st_mtime_ns <= written for each in folder.iterdir()):
        remove_kept(folder, emit)


def source_of(folder: Path) -> str | None:
    """Return the weights that the shards in a folder were made with; None without shards."""
    try:
        about = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(about["weights"])


def raise_on_bad(read: Batch, made: FeatureArrays, name: Name) -> Sequence[BadFile]:
    """Refuse a batch with a sample that cannot be read, or without finite features.

    Raises:
        DataError: a sample cannot be read.
        NonFiniteError: features are not finite.
    """
    refuse_bad(read)
    _refuse_nonfinite(read, made, name)
    return ()


def count_bad(bad_files: BadFiles) -> OnBad:
    """Leave out what cannot be read and record it, until it is too much."""

    def on_bad(read: Batch, made: FeatureArrays, name: Name) -> Sequence[BadFile]:
        bad_files.add(read.bad, 0)
        _refuse_nonfinite(read, made, name)
        return read.bad

    return on_bad


def skip_bad(
    read: Batch, made: FeatureArrays, name: Name, what: str = _FEATURES
) -> Sequence[BadFile]:
    """Leave out what cannot be read or has no finite features; in the order of the batch.

    Args:
        read: the batch.
        made: of it.
        name: of a row.
        what: features are called.
    """
    bad, reason = {each.index: each for each in read.bad}, _NONFINITE.format(what)
    bad |= {index: BadFile(name(index), reason, index) for index in _nonfinite(read, made)}
    return [bad[key.index] for key in read.keys if key.index in bad]


def _nonfinite(read: Batch, made: FeatureArrays) -> list[int]:
    """List the samples that were read, and of which some kind of features is not finite."""
    bad = {each.index for each in read.bad}
    finite = np.ones(len(read.keys), dtype=bool)
    for features in made.values():
        finite &= np.isfinite(features).reshape(len(finite), -1).all(axis=1)
    return [
        key.index
        for key, fine in zip(read.keys, finite.tolist(), strict=True)
        if not fine and key.index not in bad
    ]


def _refuse_nonfinite(read: Batch, made: FeatureArrays, name: Name) -> None:
    broken = _nonfinite(read, made)
    if broken:
        hint = "look at its pixels, or precision: fp32"
        raise NonFiniteError(_NONFINITE.format(_FEATURES), where=name(broken[0]), hint=hint)


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set, or of a shard of one.

    Attributes:
        rows: int64 ``[n]``: places in the set, of what could be read.
        features: of each extractor, float32 ``[n, V, ...]`` over V test views.
        unread: samples that are left out.
        left_out: what of the others was not shown, counts by reason.
    """

    rows: np.ndarray
    features: dict[str, np.ndarray]
    unread: tuple[BadFile, ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def concatenate(cls, some: Iterable[Self], max_rows: int) -> Self:
        """Concatenate feature sets; at most one is in memory besides the result.

        Args:
            some: at least one.
            max_rows: rows that they have together, at most.
        """
        rows: list[np.ndarray] = []
        unread: list[BadFile] = []
        left_out: Counter[str] = Counter()
        load_all: dict[str, np.ndarray] = {}
        done = 0
        for each in some:
            for name, features in each.features.items():
                if name not in load_all:
                    load_all[name] = np.empty((max_rows, *features.shape[1:]), np.float32)
                load_all[name][done : done + len(features)] = features
            done += len(each.rows)
            rows.append(each.rows)
            unread += each.unread
            left_out += each.left_out
        return cls(
            np.concatenate(rows),
            {name: features[:done] for name, features in load_all.items()},
            tuple(unread),
            left_out,
        )

    def in_order(self) -> Self:
        """Return the same by the order of the set."""
        order = np.argsort(self.rows)
        features = {name: each[order] for name, each in self.features.items()}
        return type(self)(self.rows[order], features, self.unread, self.left_out)


def collect_features(
    reader: ViewReader,
    extractors: Mapping[str, Extractor],
    rows: Sequence[int],
    reading: Reading,
    on_bad: OnBad = raise_on_bad,
) -> FeatureSet:
    """Read samples once, and run every extractor on them.

    Args:
        reader: reads their views.
        extractors: make features, by name.
        rows: which samples of the set, in this order.
        reading: how.
        on_bad: says what is left out.

    Raises:
        DataError, NonFiniteError: as ``on_bad`` does.
    """
    keys = batches_of(rows, max(1, reading.batch // reader.repeats))
    with closing(_batches(reader, extractors, keys, reading, on_bad)) as batches:
        return FeatureSet.concatenate(batches, len(rows))


def collect_shards(
    reader: ViewReader,
    extractors: Mapping[str, Extractor],
    shards: FeatureShards,
    reading: Reading,
    *,
    size: int,
    on_bad: OnBad = raise_on_bad,
    what: str,
) -> None:
    """Make the features of a set that are not kept yet; each rank makes some of the shards.

    Args:
        reader: reads its views.
        extractors: make features, by name.
        shards: where features are kept.
        reading: how.
        size: samples of one shard.
        on_bad: says what is left out.
        what: names the work where it is shown how far it is.

    Raises:
        Interrupted: a signal asked for it; the shards that are done are kept.
        DataError, NonFiniteError: as ``on_bad`` does.
        StorageError: a shard cannot be written.
    """
    total = len(reader.dataset)
    missing = distributed.on_first(
        lambda: [place for place in range(-(-total // size)) if not shards.has(place)]
    )
    missing = distributed.share(missing)
    at_once = max(1, reading.batch // reader.repeats)
    batches = {
        place: batches_of(range(place * size, min(total, (place + 1) * size)), at_once)
        for place in missing
    }
    keys = [batch for place in missing for batch in batches[place]]
    counts = counted(what, sum(map(len, keys)), "samples")

    def make() -> None:
        done = 0

        def shown(some: Iterable[FeatureSet]) -> Iterator[FeatureSet]:
            nonlocal done
            for each in some:
                yield each
                done += len(each.rows) + len(each.unread)
                count(done)

        with counts as count, closing(_batches(reader, extractors, keys, reading, on_bad)) as made:
            for place in missing:
                max_rows = sum(map(len, batches[place]))
                here = shown(islice(made, len(batches[place])))
                shards.save(place, FeatureSet.concatenate(here, max_rows))

    distributed.together(make)


def _batches(
    reader: ViewReader,
    extractors: Mapping[str, Extractor],
    keys: list[list[Key]],
    reading: Reading,
    on_bad: OnBad,
) -> Generator[FeatureSet, None, None]:
    """Yield the features of each batch; the same workers read all of them."""
    with reading.loader(reader, keys) as loader:
        for read, outputs in run_extractors(loader, extractors, reading.device, reader.repeats):
            made = {name: output.float().cpu().numpy() for name, output in outputs.items()}
            unread = on_bad(read, made, reader.dataset.name)
            bad = {each.index for each in unread}
            rows = np.array([each.index for each in read.keys], np.int64)
            good = np.array([each.index not in bad for each in read.keys])
            kept = {name: features[good] for name, features in made.items()}
            yield FeatureSet(rows[good], kept, tuple(unread), counts_of([read]))
