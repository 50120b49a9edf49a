"""Shared memory in which workers leave pixels and masks: one slot for each sample on its way."""

from __future__ import annotations

import math
import shutil
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maekit.data.batch import Sample
from maekit.data.pixels import DTYPES
from maekit.errors import StorageError

if TYPE_CHECKING:
    from maekit.contracts import Label
    from maekit.data.batch import Layout

_ALIGN = 64
_PADDED, _FILLED = 1, 2  # flags of a sample
_DEEPEST = 4  # bytes of a float32, the deepest pixel there is
_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
_SPARE = 0.9  # of what is free there; the rest is for others


class SharedSlots:
    """A row of equal slots. The owner creates and removes it, workers attach by name.

    Args:
        layout: what a sample holds.
        count: how many slots.
        name: None to create, else the name of what the owner created.
    """

    def __init__(self, layout: Layout, count: int, name: str | None = None) -> None:
        self.layout = layout
        self.count = count
        self._size = slot_bytes(layout)
        if name is None:
            self._memory = SharedMemory(create=True, size=self._size * count)
        else:
            self._memory = SharedMemory(name=name)
        self.name = self._memory.name

    def write(self, slot: int, sample: Sample) -> int:
        """Put a sample's arrays into a slot; returns the number of their dtype in DTYPES."""
        dtype = sample.views[0].dtype.name if sample.views else DTYPES[0]
        views, hidden, decode, known = self._arrays(slot, dtype)
        for place, pixels in zip(views, sample.views, strict=bool(sample.views)):
            place[...] = pixels
        if hidden is not None:
            hidden[...] = sample.hidden
        if decode is not None:
            decode[...] = sample.decode
        if known is not None and sample.known is not None:
            known[...] = sample.known
        return DTYPES.index(dtype)

    def read(self, slot: int, dtype: int, label: Label, flags: int = 0) -> Sample:
        """Return the sample in a slot; its arrays are valid until the slot is written again."""
        views, hidden, decode, known = self._arrays(slot, DTYPES[dtype])
        padded, filled = bool(flags & _PADDED), bool(flags & _FILLED)
        return Sample(
            tuple(views), hidden, decode, label, padded=padded, known=known if filled else None
        )

    def close(self, *, remove: bool) -> None:
        """Release the memory; the owner removes it."""
        self._memory.close()
        if remove:
            self._memory.unlink()

    def _arrays(
        self, slot: int, dtype: str
    ) -> tuple[list[np.ndarray], np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        place = slot * self._size

        def take(shape: tuple[int, ...], kind: str) -> np.ndarray:
            nonlocal place
            array: np.ndarray = np.ndarray(shape, kind, self._memory.buf, place)
            place += _aligned(array.nbytes)
            return array

        repeats, tokens = self.layout.repeats, self.layout.tokens
        hidden = take((repeats, tokens), "bool") if tokens else None
        decode = take((repeats, tokens), "bool") if self.layout.decode else None
        known = take((repeats, tokens), "bool") if tokens else None
        views = [take((repeats, *view), dtype) for view in self.layout.views]
        return views, hidden, decode, known


def flags_of(sample: Sample) -> int:
    """Return what ``read`` has to know of a sample besides its arrays."""
    return _PADDED * sample.padded | _FILLED * (sample.known is not None)


def slot_bytes(layout: Layout) -> int:
    """Return the bytes of one slot, at the deepest pixels."""
    masks = 2 * int(layout.tokens > 0) + int(layout.decode)
    pixels = (_DEEPEST * layout.repeats * math.prod(view) for view in layout.views)
    return masks * _aligned(layout.repeats * layout.tokens) + sum(map(_aligned, pixels))


def affordable(layout: Layout, wanted: int, least: int) -> int:
    """Return how many of the requested slots fit into shared memory.

    Too little of it is found out here: whoever writes to memory that is not there is killed.

    Raises:
        StorageError: not even ``least`` fit.
    """
    if not _SHARED.is_dir():
        return wanted
    free = shutil.disk_usage(_SHARED).free
    fit = int(free * _SPARE) // slot_bytes(layout)
    if fit < least:
        need = least * slot_bytes(layout) / 2**20
        what = f"shared memory has {free / 2**20:.0f} MiB free, loader workers need {need:.0f} MiB"
        hint = "give the container more (docker run --shm-size 8g), or set data.workers=0"
        raise StorageError(what, where=str(_SHARED), hint=hint)
    return min(wanted, fit)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
