"""How a recipe is laid over its parent, and the command line over both: one set of rules."""

from __future__ import annotations

import functools
import typing

from maekit.errors import RecipeError
from maekit.recipe.schema import DataSpec, PartSpec, Recipe
from maekit.recipe.section import Section
from maekit.recipe.yaml12 import KeyPath, Node

# What the core reads beside a dataset's options: kept when the dataset changes.
CORE_OWNED = frozenset(DataSpec.model_fields) - frozenset(PartSpec.model_fields)


def merge(base: Node, top: Node) -> Node:
    """Lay ``top`` over ``base``: mappings merge key by key, everything else is replaced.

    A part that gets a new ``name`` drops its old options, but the keys of ``data.train`` and
    ``data.val`` that the core owns stay. A key of ``top`` that says the same as others in a
    different unit (epochs, steps, samples) removes those of ``base``.
    """
    return _merge(base, top, ())


def _merge(base: Node, top: Node, path: KeyPath, *, inside_part: bool = False) -> Node:
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    kept, mark = dict(base.value), base.mark
    # The recipe's own `name` is no part's, nor is one among a part's options.
    if path and not inside_part and _renamed(base, top):
        core = CORE_OWNED if path[-2:] in {("data", "train"), ("data", "val")} else frozenset()
        kept = {key: node for key, node in kept.items() if key == "name" or key in core}
        mark = top.mark
    group = alternatives().get(path, ())
    if any(_given(top, key) for key in group):
        kept = {key: node for key, node in kept.items() if key not in group}
    inside_part = inside_part or (bool(path) and ("name" in base.fields or "name" in top.fields))
    for key, node in top.value.items():
        kept[key] = (
            _merge(kept[key], node, (*path, key), inside_part=inside_part) if key in kept else node
        )
    return Node(kept, mark)


def _renamed(base: Node, top: Node) -> bool:
    old, new = base.fields.get("name"), top.fields.get("name")
    return old is not None and new is not None and old.value != new.value


def _given(node: Node, key: str) -> bool:
    return key in node.fields and node.fields[key].value is not None


def remove(base: Node, path: tuple[str, ...]) -> Node | None:
    """``base`` without the key at ``path``; None if it has no such key."""
    key, *rest = path
    if key not in base.fields:
        return None
    entries = dict(base.fields)
    if rest:
        inner = remove(entries[key], tuple(rest))
        if inner is None:
            return None
        entries[key] = inner
    else:
        del entries[key]
    return Node(entries, base.mark)


def check_alternatives(layer: Node) -> None:
    """Raise RecipeError if one file, or one command line, gives two alternatives."""
    for path, group in alternatives().items():
        section = layer.at(path)
        if section is None:
            continue
        given = [key for key in group if _given(section, key)]
        if len(given) > 1:
            places = [
                f"{'.'.join(map(str, (*path, key)))} ({section.fields[key].mark})" for key in given
            ]
            raise RecipeError(
                f"{' and '.join(places)} exclude each other",
                where=str(section.fields[given[-1]].mark),
                hint=f"keep one of {', '.join(given)}",
            )


@functools.cache
def alternatives() -> dict[KeyPath, tuple[str, ...]]:
    """The keys that exclude each other, by the path of their section."""
    return dict(_alternatives(Recipe, ()))


def _alternatives(
    section: type[Section], path: KeyPath
) -> typing.Iterator[tuple[KeyPath, tuple[str, ...]]]:
    if section.alternatives:
        yield path, section.alternatives
    for name, field in section.model_fields.items():
        for inner in classes(field.annotation):
            if issubclass(inner, Section):
                yield from _alternatives(inner, (*path, field.alias or name))


def classes(annotation: object) -> list[type]:
    """The classes in an annotation: of ``Stats | Literal["auto"] | None`` Stats and NoneType."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return [annotation] if isinstance(annotation, type) else []
    return [found for argument in arguments for found in classes(argument)]
