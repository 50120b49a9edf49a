"""Round a ratio to a number of hidden tokens: the sources disagree by one."""

from __future__ import annotations

from typing import Literal

Rounding = Literal["keep", "hidden"]


def hidden_of(n: int, ratio: float, rounding: Rounding) -> int:
    """Return how many of ``n`` are hidden, in Python floats as the sources compute it.

    Args:
        n: how many there are.
        ratio: the hidden fraction.
        rounding: ``keep``: int(n * (1 - ratio)) stay visible (MAE); ``hidden``: int(ratio * n) are
            hidden (VideoMAE).
    """
    if rounding == "hidden":
        return int(ratio * n)
    return n - int(n * (1 - ratio))
