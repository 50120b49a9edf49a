"""Names of a classifier's outputs, as lists of classes are passed around."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from maekit.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 1 << 24  # characters
_HINT = (
    "lines with one name each, in the order of the outputs; or JSON: a list of names, or an object "
    "of numbers and names"
)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read names in the order of outputs: lines, a JSON list, or a JSON object with numbers.

    The object may be {"0": name}, {"0": [name, more]} (imagenet_class_index.json) or {name: 0}.

    Raises:
        RecipeError: there is no such file, or it is nothing of this.
    """
    if not path.is_file():
        raise RecipeError(f"no such file: {path}", where="--classes", hint=_HINT)
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST)
        found = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"not readable: {error}", where=str(path), hint=_HINT) from error
    names = _numbered(found) if isinstance(found, Mapping) else found
    if isinstance(names, list):
        stripped = [name.strip() if isinstance(name, str) else "" for name in names]
        while stripped and not stripped[-1]:
            stripped.pop()
        if stripped and all(stripped):
            return tuple(stripped)
    raise RecipeError("these are no names of classes", where=str(path), hint=_HINT)


def _numbered(found: Mapping[str, object]) -> list[object] | None:
    """Put what belongs to the numbers 0, 1, ... in order; None where one is missing."""
    if all(isinstance(value, int) for value in found.values()):
        found = {str(number): name for name, number in found.items()}
    first = {
        key: value[0] if isinstance(value, list) and value else value
        for key, value in found.items()
    }
    numbers = [str(number) for number in range(len(first))]
    return [first[number] for number in numbers] if first.keys() == set(numbers) else None
