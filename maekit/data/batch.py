"""Samples gathered into batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maekit.data.boxes import EMPTY
from maekit.data.pixels import to_float01

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from maekit.contracts import Boxes, Label
    from maekit.data.order import Key


# What samples may leave out, in words that follow a number.
PADDED = "clips padded, as videos are too short"
CUT = "samples cut by more than a tenth"
FURTHER = "further pages or frames in picture files"


class BadFile(NamedTuple):
    """A sample that cannot be read, and why."""

    file: str
    reason: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which no one needs here


@dataclass(frozen=True)
class Sample:
    """One sample as read, R views and masks of it; a bad one has masks but no pixels."""

    views: tuple[np.ndarray, ...]  # each [R, C, T, h, w], all of one dtype; () for a bad sample
    hidden: np.ndarray | None  # bool [R, N]
    decode: np.ndarray | None  # bool [R, N]: what the second masker wants predicted
    label: Label = None
    bad: BadFile | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)  # what is not shown of it, by reason
    known: np.ndarray | None = None  # bool [R, N]: no pixel was filled; None: in no token
    boxes: tuple[Boxes, ...] = ()  # of each repeat, moved with its pixels; () without boxes


@dataclass(frozen=True)
class Batch:
    """B samples with R repeats each; rows are sample-major: (b, r)."""

    views: tuple[np.ndarray, ...]  # each [B*R, C, T, h, w]; uint8, or float32 in [0, 1]
    hidden: np.ndarray | None  # bool [B*R, N]
    decode: np.ndarray | None  # bool [B*R, N]
    weight: np.ndarray  # float32 [B*R]: 0 for a bad sample, whose pixels are zeros
    labels: tuple[Label, ...]  # one for each of the B samples, as its source has it
    keys: tuple[Key, ...]
    bad: tuple[BadFile, ...]
    left_out: tuple[tuple[Key, Mapping[str, int]], ...] = ()  # of samples that leave out anything
    known: np.ndarray | None = None  # bool [B*R, N]: tokens without filled pixels; None: all
    boxes: tuple[Boxes, ...] = ()  # of each row, moved with its pixels; () where none has any


@dataclass(frozen=True)
class Layout:
    """Shapes and types that all samples of one reader share."""

    views: tuple[tuple[int, int, int, int], ...]  # (C, T, h, w) of each
    repeats: int
    tokens: int  # N; 0 without a masker
    decode: bool


class BatchBuilder:
    """A batch in the making: takes samples in any order, and is the same in the end."""

    def __init__(self, layout: Layout, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        self.missing = len(self.keys)
        self._repeats = layout.repeats
        rows = self.missing * layout.repeats
        self._views = [np.zeros((rows, *shape), np.uint8) for shape in layout.views]
        self._hidden = np.zeros((rows, layout.tokens), np.bool_) if layout.tokens else None
        self._decode = np.zeros((rows, layout.tokens), np.bool_) if layout.decode else None
        self._weight = np.ones(rows, np.float32)
        self._labels: list[Label] = [None] * self.missing
        self._bad: dict[int, BadFile] = {}
        self._left_out: dict[int, Mapping[str, int]] = {}
        self._known: np.ndarray | None = None
        self._boxes: dict[int, tuple[Boxes, ...]] = {}

    def put(self, place: int, sample: Sample) -> None:
        """Take the sample of ``keys[place]``; its arrays are copied."""
        rows = slice(place * self._repeats, (place + 1) * self._repeats)
        for number, pixels in enumerate(sample.views):
            if pixels.dtype != np.uint8 and self._views[number].dtype == np.uint8:
                self._views[number] = to_float01(self._views[number])
            whole = self._views[number]
            whole[rows] = pixels if whole.dtype == np.uint8 else to_float01(pixels)
        if self._hidden is not None:
            self._hidden[rows] = sample.hidden
        if self._decode is not None:
            self._decode[rows] = sample.decode
        self._labels[place] = sample.label
        if sample.bad:
            self._weight[rows] = 0
            self._bad[place] = sample.bad
        if sample.left_out:
            self._left_out[place] = sample.left_out
        if sample.known is not None:
            if self._known is None:
                self._known = np.ones((len(self._weight), sample.known.shape[1]), np.bool_)
            self._known[rows] = sample.known
        if sample.boxes:
            self._boxes[place] = sample.boxes
        self.missing -= 1

    def finish(self) -> Batch:
        """Return the batch, once nothing is missing."""
        return Batch(
            tuple(self._views),
            self._hidden,
            self._decode,
            self._weight,
            tuple(self._labels),
            self.keys,
            tuple(self._bad[place] for place in sorted(self._bad)),
            tuple((self.keys[place], self._left_out[place]) for place in sorted(self._left_out)),
            self._known,
            self._all_boxes(),
        )

    def _all_boxes(self) -> tuple[Boxes, ...]:
        if not self._boxes:
            return ()
        none = (EMPTY,) * self._repeats
        return tuple(row for place in range(len(self.keys)) for row in self._boxes.get(place, none))
