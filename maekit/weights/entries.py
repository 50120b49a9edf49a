"""Finding the model in a file that holds more than one: teacher and student, an average of it.

Checkpoints are nested mappings. An entry is a place in them with a state dict, named by its keys
("checkpoint/teacher"), or the keys of one state dict that begin alike ("teacher.blocks.0...").
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from maekit.errors import RecipeError, WeightsError
from maekit.weights.formats import recognize

# Under which training code keeps a state dict: MAE and VideoMAE "model", mae_st also "model_state",
# DeepSpeed "module", MoCo v3 "state_dict". What lies beside (an average) is named to be taken.
WRAPPERS = ("model", "model_state", "module", "state_dict", "model_state_dict")
NESTED = 8  # wrappers within wrappers; a file may also contain itself
_MOST = 64  # entries that are looked at


class Entry(NamedTuple):
    """A state dict within a file.

    Attributes:
        name: as ``--entry`` takes it.
        tensors, parameters, size: how many, of how many values, in bytes.
        format: whose keys it has; None where no known model has such.
    """

    name: str
    tensors: int
    parameters: int
    size: int
    format: str | None

    def __str__(self) -> str:
        what = self.format or "no known model"
        return f"{self.name} ({self.tensors} tensors, {self.parameters:,} parameters: {what})"


class Found(NamedTuple):
    """A state dict that was taken out of a file.

    Attributes:
        tensors: under its own names.
        wrapper: the keys under which it lay, outermost first.
        left: what else was there.
        args: the training's arguments.
        entries: all state dicts of the file, where it has more than one.
    """

    tensors: dict[str, Tensor]
    wrapper: tuple[str, ...]
    left: tuple[str, ...]
    args: Mapping[str, Any]
    entries: tuple[Entry, ...]


class SeveralModelsError(WeightsError):
    """A file that holds several models, none of which is the one to take."""

    def __init__(self, entries: tuple[Entry, ...], where: str) -> None:
        self.entries = entries
        fitting = [each for each in entries if each.format is not None]
        listed = "; ".join(map(str, fitting))
        first = fitting[0].name
        hint = f"name one: --entry {first}, or after the file's name: {where}#{first}"
        super().__init__(f"several models are in this file: {listed}", where=where, hint=hint)


def take(content: Any, where: str, entry: str | None = None) -> Found:  # noqa: ANN401 (any pickle)
    """Take the state dict that is meant out of a training checkpoint.

    That is the named entry; else what lies where training code keeps its model; else the only one
    that is a known model's.

    Raises:
        RecipeError: there is no entry of this name.
        WeightsError: there is no state dict, or there are several.
    """
    places = dict(_places(content))
    by_name = {"/".join(path): path for path in places}
    if not places:
        raise _nothing(content, where)
    prefix = ""
    if entry is not None:
        path, prefix = _named(entry, by_name, places, where)
    else:
        path = _usual(content)
        alone = path in places and (path or len(places) == 1)
        if not alone and (path not in places or recognize(places[path]) is None):
            path = _only(places, where)
    tensors = places[path]
    if entry is None and not prefix and recognize(tensors) is None:
        prefix = _only_prefix(tensors, where)
    args, left = _beside(content, path)
    taken = _under(tensors, prefix)
    left += [f"{name}.*" for name in _prefixes(tensors) if prefix and f"{name}." != prefix]
    wrapper = (*path, prefix.rstrip(".")) if prefix else path
    entries = _listed(places) if len(places) > 1 or prefix else ()
    return Found(taken, wrapper, tuple(left), args, entries)


def _places(
    content: object, path: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every state dict once, outermost first: a mapping from texts with tensors in it."""
    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or len(path) > NESTED or id(content) in seen:
        return
    seen.add(id(content))
    own = {str(name): each for name, each in content.items() if isinstance(each, Tensor)}
    if own:
        yield path, own
    for key, value in content.items():
        if isinstance(key, str):
            yield from _places(value, (*path, key), seen)


def _usual(content: object) -> tuple[str, ...]:
    """Return the path that training code's usual names lead to."""
    path: tuple[str, ...] = ()
    for _ in range(NESTED):
        if not isinstance(content, Mapping):
            break
        inner = next((key for key in WRAPPERS if _holds_tensors(content.get(key))), None)
        if inner is None:
            break
        path, content = (*path, inner), content[inner]
    return path


def _holds_tensors(value: object, nested: int = NESTED) -> bool:
    """Return whether a value is a state dict, or a wrapper around one."""
    if not isinstance(value, Mapping) or not nested:
        return False
    if any(isinstance(each, Tensor) for each in value.values()):
        return True
    return any(_holds_tensors(value.get(key), nested - 1) for key in WRAPPERS)


def _named(
    entry: str,
    by_name: Mapping[str, tuple[str, ...]],
    places: Mapping[tuple[str, ...], Mapping[str, Tensor]],
    where: str,
) -> tuple[tuple[str, ...], str]:
    """Return the place of a named entry, and what its keys begin with there."""
    ends = [name for name in by_name if name == entry or name.endswith(f"/{entry}")]
    if entry in by_name or len(ends) == 1:
        return by_name[entry if entry in by_name else ends[0]], ""
    starting = [path for path, tensors in places.items() if entry in _prefixes(tensors)]
    if len(starting) == 1:
        return starting[0], f"{entry}."
    listed = _listed(places)
    if len(ends) > 1 or len(starting) > 1:
        msg = f"several entries are called '{entry}'"
    else:
        msg = f"this file has no entry '{entry}'"
    names = ", ".join(each.name for each in listed[:20]) or "it holds no state dict"
    raise RecipeError(msg, where=where, hint=f"give one of: {names}")


def _only(places: Mapping[tuple[str, ...], Mapping[str, Tensor]], where: str) -> tuple[str, ...]:
    """Return the only place with a known model's state dict; without any, the outermost place.

    Raises:
        WeightsError: several have one.
    """
    listed = _listed(places)
    fitting = [each for each in listed if each.format is not None]
    if len(fitting) > 1:
        raise SeveralModelsError(listed, where)
    by_name = {"/".join(path): path for path in places}
    if fitting and fitting[0].name in by_name:
        return by_name[fitting[0].name]
    return next(iter(places))


def _only_prefix(tensors: Mapping[str, Tensor], where: str) -> str:
    """Return what the keys of the only known model among these begin with; empty without one.

    Raises:
        WeightsError: several are known.
    """
    groups = [_entry(name, _under(tensors, f"{name}.")) for name in _prefixes(tensors)]
    fitting = [each for each in groups if each.format is not None]
    if len(fitting) > 1:
        raise SeveralModelsError(tuple(groups), where)
    return f"{fitting[0].name}." if fitting else ""


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the first words of keys, where there are several."""
    found = list(dict.fromkeys(key.partition(".")[0] for key in tensors if "." in key))
    return found if 1 < len(found) <= _MOST else []


def _under(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key.removeprefix(start): each for key, each in tensors.items() if key.startswith(start)}


def _listed(places: Mapping[tuple[str, ...], Mapping[str, Tensor]]) -> tuple[Entry, ...]:
    """Describe the state dicts of a file, and the models within one whose keys begin apart."""
    found = []
    for path, tensors in list(places.items())[:_MOST]:
        entry = _entry("/".join(path), tensors)
        if path:
            found.append(entry)
        if entry.format is None:
            inner = [_entry(name, _under(tensors, f"{name}.")) for name in _prefixes(tensors)]
            found += [each for each in inner if each.format is not None]
    return tuple(found)


def _entry(name: str, tensors: Mapping[str, Tensor]) -> Entry:
    seen = recognize(tensors)
    return Entry(
        name,
        len(tensors),
        sum(each.numel() for each in tensors.values()),
        sum(each.numel() * each.element_size() for each in tensors.values()),
        None if seen is None else seen.format.title,
    )


def _beside(content: object, path: tuple[str, ...]) -> tuple[Mapping[str, Any], list[str]]:
    """Return the training's arguments, and the names of what lies beside the way to an entry."""
    args: Mapping[str, Any] = {}
    left: dict[str, None] = {}
    for key in (*path, None):
        if not isinstance(content, Mapping):
            break
        if isinstance(content.get("args"), argparse.Namespace):
            args = vars(content["args"])
        left |= dict.fromkeys(
            str(name)
            for name, value in content.items()
            if name != key
            and not isinstance(value, argparse.Namespace)
            and not (key is None and isinstance(value, Tensor))
        )
        content = content[key] if key is not None else None
    return args, list(left)


def _nothing(content: object, where: str) -> WeightsError:
    names = [str(name) for name in content] if isinstance(content, Mapping) else []
    held = f"it holds {', '.join(names)}" if names else f"it is a {type(content).__name__}"
    hint = "give a state dict, alone or under " + ", ".join(WRAPPERS)
    return WeightsError(f"no state dict in this file: {held}", where=where, hint=hint)
