"""The order of samples: a keyed permutation for each epoch, computed where it is looked at.

No list of all samples is ever made: position i of epoch e is a function of (seed, e, i), so that a
run starts, resumes and splits over ranks at any position at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from maekit.data.rng import generator

_ROUNDS = 8
_SMALL = 4096


class Key(NamedTuple):
    """A sample and a pass over the set: all randomness of a sample is a function of its key."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which no one needs here


def evenly(total: int, most: int) -> list[int]:
    """Return up to ``most`` places of ``range(total)``, evenly spaced, first and last included."""
    places = np.linspace(0, total - 1, min(most, total)).round().astype(np.int64)
    return [int(place) for place in np.unique(places)]


@dataclass(frozen=True)
class Order:
    """The order of ``samples`` samples in each epoch.

    ``full`` permutes all samples. ``window`` cuts the set into stretches of ``window`` samples,
    permutes the stretches and the samples within each, so that a slow disk reads neighbors
    together; every epoch cuts at another place. ``none`` keeps the set's own order.
    """

    samples: int
    seed: int
    shuffle: Literal["full", "window", "none"] = "full"
    window: int = 4096

    def __post_init__(self) -> None:
        if self.samples < 1:
            what = f"an order needs at least one sample, got {self.samples}"
            raise ValueError(what)

    def block(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices at positions ``start`` to ``stop`` (excluded) of an epoch, int64 [n]."""
        if not 0 <= start <= stop <= self.samples:
            what = f"positions {start}:{stop} are not within 0:{self.samples}"
            raise ValueError(what)
        positions = np.arange(start, stop, dtype=np.int64)
        if self.shuffle == "none":
            return positions
        if self.shuffle == "full":
            rng = generator(self.seed, purpose="order", epoch=epoch)
            return permute(positions, self.samples, rng)
        return self._windowed(epoch, positions)

    def _windowed(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        rng = generator(self.seed, purpose="order-of-windows", epoch=epoch)
        # The set is a ring cut at a random place. What is left over after whole windows is the
        # short window, always read last, and thereby other samples in each epoch.
        cut = int(rng.integers(self.samples))
        whole = self.samples // self.window
        slots, offsets = np.divmod(positions, self.window)
        windows = slots.copy()
        inside = slots < whole
        windows[inside] = permute(slots[inside], whole, rng)
        indices = np.empty_like(positions)
        for window in np.unique(windows):
            here = windows == window
            size = self.window if window < whole else self.samples - whole * self.window
            within = generator(
                self.seed, purpose="order-within-window", epoch=epoch, index=int(window)
            )
            indices[here] = window * self.window + permute(offsets[here], size, within)
        return (indices + cut) % self.samples


@dataclass(frozen=True)
class Stream:
    """The samples of each update: effective batches of ``batch``, one after the other.

    An epoch's remainder is dropped, as in the official MAE code; where the set is smaller than one
    batch, epochs are joined instead.
    """

    order: Order
    batch: int

    @property
    def steps_per_epoch(self) -> float:
        """Updates an epoch: whole, or below 1 where epochs are joined."""
        whole = self.order.samples // self.batch
        return float(whole) if whole else self.order.samples / self.batch

    def keys(self, step: int) -> list[Key]:
        """Return the keys of update ``step``, counted from 0."""
        samples = self.order.samples
        if samples >= self.batch:
            epoch, place = divmod(step, samples // self.batch)
            return self._span(epoch, place * self.batch, (place + 1) * self.batch)
        keys: list[Key] = []
        position, stop = step * self.batch, (step + 1) * self.batch
        while position < stop:
            epoch, start = divmod(position, samples)
            end = min(samples, start + stop - position)
            keys += self._span(epoch, start, end)
            position += end - start
        return keys

    def _span(self, epoch: int, start: int, stop: int) -> list[Key]:
        return [Key(epoch, index) for index in self.order.block(epoch, start, stop).tolist()]


def permute(positions: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return where a random permutation of ``range(size)`` puts places.

    ``rng`` stands for the permutation: the same state gives the same one.

    Args:
        positions: int64 ``[n]``, each in ``range(size)``.
        size: how many there are to permute.
        rng: a fresh generator; the same one gives the same permutation.
    """
    if size <= _SMALL:
        # A Feistel network over so few bits reaches only some of the permutations.
        chosen: np.ndarray = rng.permutation(size)[positions]
        return chosen.astype(np.int64)
    keys = rng.integers(0, 2**64, size=_ROUNDS, dtype=np.uint64)
    bits = (size - 1).bit_length()
    values = _feistel(positions.astype(np.uint64), bits, keys)
    # Cycle walking: a value outside range(size) is mapped again until it is inside, at most twice
    # on average, since 2**bits < 2 * size. What remains is a permutation of range(size).
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], bits, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """Permute ``range(2**bits)``, uint64 ``[n]`` to ``[n]``; the halves may be uneven."""
    low, high = bits // 2, bits - bits // 2
    for key in keys:
        left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
        mixed = left ^ (_mix(right ^ key) & np.uint64((1 << high) - 1))
        values = (right << np.uint64(high)) | mixed
        low, high = high, low
    return values


def _mix(values: np.ndarray) -> np.ndarray:
    """Apply the finalizer of splitmix64 (Steele, Lea and Flood, 2014), wrapping on purpose."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
