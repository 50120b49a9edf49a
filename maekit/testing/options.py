"""What becomes of a part's options: do they survive a recipe, and does anything read them?"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from maekit.contracts import PartOptions


def options_of(part: type[Any], options: PartOptions | Mapping[str, Any] | None) -> PartOptions:
    """Validate what a recipe would say of a part.

    Raises:
        AssertionError: the part has no valid ``Options``.
        ValueError: (pydantic's) the options are wrong, or one is missing.
    """
    kind = getattr(part, "Options", None)
    assert isinstance(kind, type), "has no nested class `Options`"
    assert issubclass(kind, PartOptions), "its `Options` do not derive from PartOptions"
    if isinstance(options, PartOptions):
        return options
    return kind.model_validate(dict(options or {}))


def check_recipe(options: PartOptions) -> None:
    """Check that options are the same once they were written into a recipe, and have a schema."""
    kind = type(options)
    try:
        text = json.dumps(options.model_dump(mode="json"))
    except Exception as error:
        what = f"options cannot be written into a recipe: {type(error).__name__}: {error}"
        raise AssertionError(what) from error
    again = kind.model_validate(json.loads(text))
    assert again == options, f"options come back from a recipe changed: {text}"
    try:
        kind.model_json_schema()
    except Exception as error:
        what = f"options have no JSON Schema, which editors complete recipes by: {error}"
        raise AssertionError(what) from error
    blank = [name for name, field in kind.model_fields.items() if not field.description]
    assert not blank, f"no description of {', '.join(blank)}: Field(..., description=...)"


def resolved(options: PartOptions) -> PartOptions:
    """Return options as a resolved recipe, or the header of weights, brings them back."""
    return type(options).model_validate(options.model_dump(mode="json"))


def watched(options: PartOptions) -> tuple[PartOptions, set[str]]:
    """Return equal options, and the names of those that were read, which grows as they are."""
    kind: Any = type(options)
    fields = set(kind.model_fields)
    read: set[str] = set()

    def attribute(self: object, name: str) -> Any:  # noqa: ANN401 - any option
        if name in fields:
            read.add(name)
        elif name in ("model_dump", "model_copy", "structure", "__dict__"):
            read.update(fields)
        return kind.__getattribute__(self, name)

    def each(self: object) -> Any:  # noqa: ANN401 - dict(options): no attribute is asked for
        read.update(fields)
        return kind.__iter__(self)

    namespace = {
        "__getattribute__": attribute,
        "__iter__": each,
        "__module__": kind.__module__,
    }
    spy: Any = type(kind.__name__, (kind,), namespace)
    values = {name: value for name, value in options.__dict__.items() if name in fields}
    made = spy.model_construct(_fields_set=options.model_fields_set, **values)
    read.clear()  # what making it looked at
    return made, read


def unread(part: type[Any], options: PartOptions, read: set[str]) -> list[str]:
    """Return options that nothing reads: not in this trial, nor anywhere in the part's own code."""
    silent = type(options).model_fields.keys() - read - set(options.load_time)
    return sorted(silent - _mentioned((*part.__mro__, *type(options).__mro__)))


def _mentioned(classes: tuple[type, ...]) -> set[str]:
    """Return all names that the code of classes reads as attributes."""
    found: set[str] = set()
    for each in classes:
        if each is BaseModel or each.__module__.partition(".")[0] in ("builtins", "torch", "abc"):
            continue
        try:
            code = ast.parse(textwrap.dedent(inspect.getsource(each)))
        except (OSError, TypeError, SyntaxError):
            continue  # without source nothing can be said
        found |= {node.attr for node in ast.walk(code) if isinstance(node, ast.Attribute)}
    return found
