"""What a shell completes: names of recipes, runs and parts, and keys of overrides.

It is called at a press of a key: nothing here imports torch, a part, or a plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("masker", "target", "backbone", "decoder", "dataset")
_MOST_RUNS = 50


def recipes(incomplete: str) -> list[str]:
    """Complete a shipped recipe's name; files are the shell's own."""
    from maekit.recipe.shipped import names

    return [name for name in names() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Complete a run's folder, newest first of each recipe."""
    from maekit.runs import RUNS, runs_of

    if not RUNS.is_dir():
        return []
    names = sorted(each.name for each in RUNS.iterdir() if each.is_dir())
    found = (str(run) for name in names for run in runs_of(name))
    return [run for run in found if run.startswith(incomplete)][:_MOST_RUNS]


def kinds(incomplete: str) -> list[str]:
    """Complete the kind of a part."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def maskers(incomplete: str) -> list[str]:
    """Complete a masker's name."""
    return [name for name in part_names("maskers") if name.startswith(incomplete)]


def overrides(incomplete: str) -> list[str]:
    """Complete an override: its key, and of parts and fixed choices the value."""
    removes = incomplete.startswith("~")
    key, equals, value = incomplete.lstrip("~").partition("=")
    table = dict(_keys())
    if equals:
        return [f"{key}={each}" for each in table.get(key, ()) if each.startswith(value)]
    found = [each for each in table if each.startswith(key)]
    return [f"~{each}" for each in found] if removes else [f"{each}=" for each in found]


def part_names(kind: str) -> list[str]:
    """Return the names of the installed parts of a kind, from metadata alone."""
    from maekit.installed import OURS, declared

    found = declared((kind,))
    return sorted(
        each.point.name if each.distribution == OURS else f"{each.distribution}/{each.point.name}"
        for each in found
    )


def _keys() -> Iterator[tuple[str, list[str]]]:
    """Yield each key of a recipe and the values that it has to choose from."""
    from maekit.recipe.schema import Recipe

    yield from _of_section(Recipe, "")


def _of_section(section: Any, before: str) -> Iterator[tuple[str, list[str]]]:  # noqa: ANN401
    from pydantic import BaseModel

    from maekit.recipe.schema import PartSpec

    for name, field in section.model_fields.items():
        key = f"{before}{field.alias or name}"
        kinds = [each for each in _flat(field.annotation) if isinstance(each, type)]
        below = [each for each in kinds if issubclass(each, BaseModel)]
        parts = [each for each in below if issubclass(each, PartSpec)]
        if parts:
            yield f"{key}.name", part_names(parts[0].kind)
            own = (each for each in parts[0].model_fields if each != "name")
            yield from ((f"{key}.{each}", []) for each in own)
        elif below:
            seen: dict[str, list[str]] = {}
            for each in below:  # there may be several to choose from, each with its name
                for inner, values in _of_section(each, f"{key}."):
                    seen.setdefault(inner, []).extend(values)
            yield from seen.items()
        else:
            yield key, _choices(field.annotation)


def _flat(annotation: Any) -> list[Any]:  # noqa: ANN401 - any type
    """Return the types that an annotation is a choice of."""
    import types
    from typing import Annotated, Union, get_args, get_origin

    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [each for one in get_args(annotation) for each in _flat(one)]
    return _flat(get_args(annotation)[0]) if origin is Annotated else [annotation]


def _choices(annotation: Any) -> list[str]:  # noqa: ANN401 - any type
    """Return the words that a key takes."""
    from typing import Literal, get_args, get_origin

    found: list[str] = []
    for each in _flat(annotation):
        if get_origin(each) is Literal:
            found += [word for word in get_args(each) if isinstance(word, str)]
        elif each is bool:
            found += ["true", "false"]
        elif get_origin(each) is tuple:
            found += [word for one in get_args(each)[:1] for word in _choices(one)]
    return found
