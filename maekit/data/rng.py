"""Keyed randomness: what is drawn for a sample depends on its key, never on global state.

A key is (seed, purpose, epoch, index, repeat), so that a crop or a mask is the same whatever the
number of workers, ranks or restarts, and any one of them can be drawn again.
"""

from __future__ import annotations

import functools
import hashlib
import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = 0xFFFFFFFF


def generator(
    seed: int, *, purpose: str, epoch: int = 0, index: int = 0, repeat: int = 0
) -> np.random.Generator:
    """Return the random generator of one key.

    Args:
        seed: the recipe's seed, 0 <= seed < 2**64.
        purpose: what is drawn (``"plan"``, ``"mask"``); purposes are independent of each other.
        epoch: the pass over the set.
        index: the sample's place in the set.
        repeat: which of the views of one decoded sample.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, epoch, index, repeat)))


@contextmanager
def seeded(
    seed: int, *, purpose: str, epoch: int = 0, index: int = 0, repeat: int = 0
) -> Iterator[None]:
    """Put a library that draws from global generators under one key, and restore them after.

    Sets Python's, numpy's and, where torch is already imported, torch's CPU state.
    """
    words = _sequence(seed, purpose, epoch, index, repeat).generate_state(3, np.uint64)
    torch = sys.modules.get("torch")
    python_state = random.getstate()
    # The legacy global generator is what libraries draw from; that is why it is set here.
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state = torch.random.get_rng_state() if torch else None
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) & _WORD)  # noqa: NPY002
    if torch:
        torch.default_generator.manual_seed(int(words[2]) >> 1)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if torch:
            torch.random.set_rng_state(torch_state)


def _sequence(
    seed: int, purpose: str, epoch: int, index: int, repeat: int
) -> np.random.SeedSequence:
    # Two words for each number: SeedSequence would otherwise give (2**32,) and (0, 1) one stream.
    numbers = (seed, _tag(purpose), epoch, index, repeat)
    words = [w for n in numbers for w in (n & _WORD, n >> 32)]
    # Of a list it would make an array word by word, which takes longer than all the rest.
    return np.random.SeedSequence(np.array(words, np.uint32))


@functools.lru_cache(maxsize=256)
def _tag(purpose: str) -> int:
    # Python's own hash of a string differs from process to process.
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
