"""Shared memory in which workers leave pixels and masks: one slot for each sample on its way."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maekit.data.batch import Sample
from maekit.data.memory import Memory, free_memory
from maekit.data.pixels import DTYPES
from maekit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maekit.contracts import Boxes, Label
    from maekit.data.batch import Layout
    from maekit.data.reader import Room

_ALIGN = 64
_DEEPEST = 4  # bytes of a float32, the deepest pixel there is
_SPARE = 0.5  # of the memory that is free; the rest is for models and others


class SharedSlots:
    """A row of equal slots in shared memory.

    Args:
        layout: what a sample holds.
        count: how many slots.
        memory: None to make it, else what the owner made.
    """

    def __init__(self, layout: Layout, count: int, memory: Memory | None = None) -> None:
        self.layout = layout
        self.count = count
        self._size = slot_bytes(layout)
        self.memory = Memory(self._size * count) if memory is None else memory

    def room(self, slot: int) -> Room:
        """Return what gives the views of a slot, for a reader to fill."""
        return lambda dtype: self._arrays(slot, dtype)[0]

    def write(self, slot: int, sample: Sample) -> int:
        """Put a sample's arrays into a slot; returns the number of their dtype in DTYPES."""
        dtype = sample.views[0].dtype.name if sample.views else DTYPES[0]
        views, hidden, decode, known = self._arrays(slot, dtype)
        for place, pixels in zip(views, sample.views, strict=bool(sample.views)):
            if not np.may_share_memory(place, pixels):  # it was read into the slot
                place[...] = pixels
        if hidden is not None:
            hidden[...] = sample.hidden
        if decode is not None:
            decode[...] = sample.decode
        if known is not None and sample.known is not None:
            known[...] = sample.known
        return DTYPES.index(dtype)

    def read(self, slot: int, dtype: int, told: Told) -> Sample:
        """Return the sample in a slot; its arrays are valid until the slot is written again."""
        views, hidden, decode, known = self._arrays(slot, DTYPES[dtype])
        known = known if told.filled else None
        return Sample(
            tuple(views),
            hidden,
            decode,
            told.label,
            left_out=told.left_out,
            known=known,
            boxes=told.boxes,
        )

    def close(self) -> None:
        """Let go of the memory."""
        self.memory.close()

    def _arrays(
        self, slot: int, dtype: str
    ) -> tuple[list[np.ndarray], np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        place = slot * self._size

        def take(shape: tuple[int, ...], kind: str) -> np.ndarray:
            nonlocal place
            array: np.ndarray = np.ndarray(shape, kind, self.memory.map, place)
            place += _aligned(array.nbytes)
            return array

        repeats, tokens = self.layout.repeats, self.layout.tokens
        hidden = take((repeats, tokens), "bool") if tokens else None
        decode = take((repeats, tokens), "bool") if self.layout.decode else None
        known = take((repeats, tokens), "bool") if tokens else None
        views = [take((repeats, *view), dtype) for view in self.layout.views]
        return views, hidden, decode, known


class Told(NamedTuple):
    """Facts of a sample besides its arrays."""

    label: Label = None
    left_out: Mapping[str, int] = MappingProxyType({})
    filled: bool = False
    boxes: tuple[Boxes, ...] = ()

    @classmethod
    def of(cls, sample: Sample) -> Told:
        """Return what ``read`` has to know of a sample."""
        return cls(sample.label, dict(sample.left_out), sample.known is not None, sample.boxes)


def slot_bytes(layout: Layout) -> int:
    """Return the bytes of one slot, at the deepest pixels."""
    masks = 2 * int(layout.tokens > 0) + int(layout.decode)
    pixels = (_DEEPEST * layout.repeats * math.prod(view) for view in layout.views)
    return masks * _aligned(layout.repeats * layout.tokens) + sum(map(_aligned, pixels))


def affordable(layout: Layout, wanted: int, least: int) -> int:
    """Return how many slots of those wanted fit into memory.

    Raises:
        StorageError: not even ``least`` fit.
    """
    free = free_memory()
    if free is None:
        return wanted
    fit = int(free * _SPARE) // slot_bytes(layout)
    if fit < least:
        need = least * slot_bytes(layout) / 2**20
        what = f"{free / 2**20:.0f} MiB of memory are free, loader workers need {need:.0f} MiB"
        hint = "fewer data.workers, or data.workers=0, which reads in the main process"
        raise StorageError(what, where="data.workers", hint=hint)
    return min(wanted, fit)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
