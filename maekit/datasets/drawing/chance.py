"""Draws that scenes make again and again, in plain Python numbers (numpy's would widen arrays)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

Choice = TypeVar("Choice")


def one_of(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """Draw one of the choices, all equally likely; name one twice to make it likelier."""
    return choices[int(rng.integers(len(choices)))]


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Draw True with this probability."""
    return rng.uniform() < probability


def sign(rng: np.random.Generator) -> float:
    """Draw -1 or 1."""
    return 1.0 if happens(rng, 0.5) else -1.0
