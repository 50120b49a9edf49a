"""What files say beside their tensors: numbers, sizes, names, each checked to be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from maekit.errors import WeightsError

T = TypeVar("T")


def stated(
    config: Mapping[str, Any], key: str, read: Callable[[object], T | None], where: str
) -> T | None:
    """Return what a file says under a key; None where the key is missing or null.

    Raises:
        WeightsError: it is not what the key is for.
    """
    value = config.get(key)
    if value is None:
        return None
    found = read(value)
    if found is None:
        msg = f"{key} is {value!r}, which cannot be"
        raise WeightsError(msg, where=where, hint="mend it, or delete the line")
    return found


def as_names(value: object) -> tuple[str, ...] | None:
    """Return the names of {"0": name, "1": name, ...} in the order of their numbers."""
    if not isinstance(value, Mapping):
        return None
    names = {str(key): name for key, name in value.items() if isinstance(name, str)}
    ordered = [names.get(str(number)) for number in range(len(value))]
    found = tuple(name for name in ordered if name is not None)
    return found if len(found) == len(value) else None


def as_share(value: object) -> float | None:
    """Return a number from 0 to below 1; None where it is not."""
    found = as_number(value)
    return found if found is not None and 0 <= found < 1 else None


def as_flag(value: object) -> bool | None:
    """Return True or False; None where it is not."""
    return value if isinstance(value, bool) else None


def as_count(value: object) -> int | None:
    """Return a whole number above 0; None where it is not."""
    return value if isinstance(value, int) and as_flag(value) is None and value > 0 else None


def as_number(value: object) -> float | None:
    """Return a number; None where it is not."""
    return float(value) if isinstance(value, (int, float)) and as_flag(value) is None else None


def as_counts(value: object) -> tuple[int, ...]:
    """Return whole numbers above 0; empty where one of them is not."""
    counts = [as_count(each) for each in value] if isinstance(value, (list, tuple)) else []
    return () if None in counts else tuple(each for each in counts if each is not None)


def as_size(value: object) -> tuple[int, int] | None:
    """Return height and width, of a pair or the side of a square; None where it is not."""
    side = as_count(value)
    if side is not None:
        return side, side
    sizes = as_counts(value)
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def as_channels_and_size(value: object) -> tuple[int, int, int] | None:
    """Return channels, height and width; None where it is not."""
    sizes = as_counts(value)
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None


def as_floats(value: object) -> tuple[float, ...] | None:
    """Return numbers; None where it is not."""
    numbers = [as_number(each) for each in value] if isinstance(value, (list, tuple)) else [None]
    found = tuple(each for each in numbers if each is not None)
    return found if len(found) == len(numbers) else None


def as_deviations(value: object) -> tuple[float, ...] | None:
    """Return numbers above 0; None where it is not."""
    found = as_floats(value)
    return found if found is not None and all(each > 0 for each in found) else None
