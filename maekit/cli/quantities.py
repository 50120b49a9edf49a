"""Sizes and times as they are typed: ``16x224x224``, ``5x3``, ``2s``."""

from __future__ import annotations

import math
import re

from maekit.errors import RecipeError

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)")


def counts(text: str, number: int, *, where: str, what: str, hint: str) -> tuple[int, ...]:
    """Read as many numbers above 0 as are meant, joined by ``x``.

    Raises:
        RecipeError: it is something else.
    """
    parts = text.lower().split("x")
    if len(parts) != number or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise RecipeError(f"{what}: {text}", where=where, hint=hint)
    return tuple(map(int, parts))


def seconds(text: str, where: str) -> float:
    """Read a time: ``2s``, ``500ms``, ``1.5min``; a bare number is seconds.

    Raises:
        RecipeError: it is something else, or no time at all.
    """
    found = _TIME.fullmatch(text.strip().lower())
    unit = None if found is None else _UNITS.get(found[2])
    value = 0.0 if found is None or unit is None else float(found[1]) * unit
    if not 0 < value < math.inf:
        hint = "a number above 0 and a unit: 2s, 500ms, 1.5min"
        raise RecipeError(f"not a time: {text}", where=where, hint=hint)
    return value
