"""What a set leaves out, told: files that are not read, pages behind the first, padded clips.

What a set leaves out of its folder it knows itself. What of a sample is not shown, or shown twice,
is known once it is read: it is counted over the first pass, so that each sample counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maekit.data.batch import CUT, FURTHER, PADDED
from maekit.data.overlap import overlap
from maekit.engine import distributed
from maekit.engine.events import Emit, Note
from maekit.errors import MaekitError
from maekit.recipe.schema import SEGMENTS
from maekit.text import listed, quantity

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.data.batch import Batch
    from maekit.data.order import Key
    from maekit.data.reader import SampleReader

KEY = "left_out"  # of result.json, and of the state's extra, so that a resumed run keeps counting
LeftOut = dict[str, dict[str, int]]  # counts by reason, of each set by its key in the recipe


def announce_set(dataset: Dataset, key: str, emit: Emit) -> None:
    """Say how much there is to read, and what is left out."""
    classes = dataset.classes
    labeled = "unlabeled" if classes is None else f"{len(classes)} classes"
    emit(Note(f"{key}: {len(dataset):,} samples, {labeled}"))
    for note in dataset.notes:
        emit(Note(f"{key}: {note}"))
    announce_left_out(key, dataset.left_out, emit)


def announce_overlap(train: Dataset, val: Dataset, emit: Emit) -> str | None:
    """Warn where data.val holds files of data.train; return what was said."""
    found = overlap(train, val)
    if found is None:
        return None
    about = "" if found.copies == 0 else " or copies of them"
    text = (
        f"{found.samples:,} of {len(val):,} samples of data.val are files of data.train{about}, "
        f"the first {found.first}: what is measured on them says nothing about new ones"
    )
    emit(Note(text, warning=True))
    return text


def announce_left_out(of: str, counts: Mapping[str, int], emit: Emit) -> None:
    """Say in one line what is left out, if anything is."""
    if counts:
        emit(Note(f"left out of {of}: {listed(counts)}", warning=True))


def left_out_of(sets: Mapping[str, Dataset | None], seen: Mapping[str, Any]) -> LeftOut:
    """Return what sets leave out; those that leave out nothing are not named.

    Args:
        sets: by their keys in the recipe.
        seen: counts of what reading found, by the same keys.
    """
    found = {
        key: dict(dataset.left_out) | dict(seen.get(key, {}))
        for key, dataset in sets.items()
        if dataset is not None
    }
    return {key: counts for key, counts in found.items() if counts}


def counts_of(batches: Iterable[Batch]) -> Counter[str]:
    """Count what the samples of batches leave out, by reason."""
    found: Counter[str] = Counter()
    for batch in batches:
        for _, counts in batch.left_out:
            found.update(counts)
    return found


def count_batches(batches: Iterable[Batch]) -> Counter[str]:
    """Count what the samples of all ranks' batches leave out, by reason."""
    return sum(distributed.gather(counts_of(batches)), Counter())


class SeenLeftOut:
    """Counts, over the first pass, of what the samples of a set leave out.

    Args:
        reader: reads the samples.
        key: of the set, in the recipe.
        extra: the state's, which keeps the counts.
        emit: called with a note of the first sample of each reason.
    """

    def __init__(self, reader: SampleReader, key: str, extra: dict[str, Any], emit: Emit) -> None:
        self.reader, self.emit = reader, emit
        self.counts: dict[str, int] = extra.setdefault(KEY, {}).setdefault(key, {})
        self._announced: set[str] = set()

    def add(self, left_out: Sequence[tuple[Key, Mapping[str, int]]]) -> None:
        """Count what a batch's samples leave out."""
        for key, found in left_out:
            for reason, count in found.items():
                if reason not in self._announced:
                    self._announced.add(reason)
                    name = self.reader.dataset.name(key.index)
                    self.emit(Note(f"{name} {_first(reason, count, self.reader, key)}"))
                if key.epoch == 0:
                    self.counts[reason] = self.counts.get(reason, 0) + count


def _first(reason: str, count: int, reader: SampleReader, key: Key) -> str:
    """Say what is left out of the first sample of its kind; there will be more of them."""
    if reason == PADDED:
        return _padding(reader)
    if reason == CUT:
        return _cutting(reader, key)
    if reason == FURTHER:
        return f"holds {quantity(count, reason)}: of such files the first is taken"
    return f"leaves out {quantity(count, reason)}"


def _cutting(reader: SampleReader, key: Key) -> str:
    high, wide = reader.views[0].size
    hint = f"{high}x{wide} shows its middle; data.fit: pad or stretch shows all of such samples"
    try:
        info = reader.dataset.open(key.index).info
    except (MaekitError, OSError):  # it could be read a moment ago
        return f"is cut: {hint}"
    return f"is {info.height}x{info.width}, {reader.cuts(info):.0%} of it is cut away: {hint}"


def _padding(reader: SampleReader) -> str:
    spec = reader.spec
    span, how = f"{spec.frames} frames", "are padded with their last frame"
    if spec.sampling in SEGMENTS:
        how = "show frames twice"
    elif spec.stride > 1:
        span += f" at stride {spec.stride}"
    return f"is shorter than {span}: such clips {how}"
