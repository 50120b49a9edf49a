"""Nested settings side by side: recipes, environments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any


def flat(value: Any, path: str = "") -> dict[str, str]:  # noqa: ANN401 (any plain value)
    """Nested mappings as ``{"data.size": "64"}``; lists and scalars are leaves."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{path}.{key}" if path else str(key))
        return found
    return {path: shown(value)} if path else {}


def shown(value: Any) -> str:  # noqa: ANN401 (any plain value)
    """A leaf as YAML would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(shown(each) for each in value)}]"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    """All digits, so that nothing that differs looks the same; 1e-08 as 1e-8, 2.0 as 2."""
    mantissa, _, exponent = repr(value).partition("e")
    mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def side_by_side(columns: Sequence[dict[str, str]], missing: str) -> list[list[str]]:
    """Rows of a key and its value in each column; keys of one section stay together."""
    ranks: dict[str, int] = {}  # of sections and keys, in the order in which they first appear
    for key in (key for column in columns for key in column):
        for prefix in _prefixes(key):
            ranks.setdefault(prefix, len(ranks))
    keys = {key for column in columns for key in column}
    ordered = sorted(keys, key=lambda key: [ranks[prefix] for prefix in _prefixes(key)])
    return [[key, *(column.get(key, missing) for column in columns)] for key in ordered]


def _prefixes(key: str) -> list[str]:
    """``a.b.c`` as ``a``, ``a.b``, ``a.b.c``."""
    return list(accumulate(key.split("."), "{}.{}".format))


def differing(rows: Sequence[Sequence[str]]) -> list[int]:
    """Indices of rows whose values are not all the same."""
    return [index for index, (_, *values) in enumerate(rows) if len(set(values)) > 1]
