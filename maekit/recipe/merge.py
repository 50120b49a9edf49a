"""Merge a recipe with its parents and the command line, by one set of rules."""

from __future__ import annotations

import functools
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.errors import RecipeError
from maekit.recipe.dump import as_dict
from maekit.recipe.schema import Data, DataSpec, PartSpec, Recipe, Split
from maekit.recipe.sections import Section
from maekit.recipe.yaml12 import COMMAND_LINE, MAX_DEPTH, KeyPath, Node, parse
from maekit.recipe.yaml12 import tree as as_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel


# Keys that the core reads besides a dataset's options: kept when the dataset changes.
CORE_OWNED = frozenset(DataSpec.model_fields) - frozenset(PartSpec.model_fields)
SPLIT = frozenset(Split.model_fields)


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
    # The recipe's own `name` does not name a part, nor does one among a part's options.
    if path and not inside_part and _renamed(base, top):
        core = CORE_OWNED if path[-2:] in {("data", "train"), ("data", "val")} else frozenset()
        kept = {key: node for key, node in kept.items() if key == "name" or key in core}
        mark = top.mark
    if path[-2:] == ("data", "val"):
        kept = _of_one_origin(base, top, kept)
    group = alternatives().get(path, ())
    if any(_given(top, key) for key in group):
        # What both give is merged like any other key.
        kept = {key: node for key, node in kept.items() if key not in group or _given(top, key)}
    inside_part = inside_part or (bool(path) and ("name" in base.fields or "name" in top.fields))
    for key, node in top.value.items():
        kept[key] = (
            _merge(kept[key], node, (*path, key), inside_part=inside_part) if key in kept else node
        )
    return Node(kept, mark)


def _renamed(base: Node, top: Node) -> bool:
    old, new = base.fields.get("name"), top.fields.get("name")
    return old is not None and new is not None and old.value != new.value


def is_split(val: Node) -> bool:
    """Return whether a ``data.val`` is a share of data.train; some sets have a split of their own.

    Theirs stands beside a name, and is a word.
    """
    split = val.fields.get("split")
    return "name" not in val.fields and split is not None and not isinstance(split.value, str)


def _of_one_origin(base: Node, top: Node, kept: dict[str, Node]) -> dict[str, Node]:
    """Return what is kept of ``data.val``: it is a share of data.train, or a set of its own."""
    if is_split(top) and not is_split(base):
        return {key: node for key, node in kept.items() if key in CORE_OWNED}
    if is_split(base) and {"name", "path"} & top.fields.keys():
        return {key: node for key, node in kept.items() if key not in SPLIT}
    return kept


def _with_split(data: Node) -> Node:
    """Give a ``data.val`` that is a share of data.train what it has of data.train.

    Raises:
        RecipeError: it has something else besides.
    """
    val, train = data.fields.get("val"), data.fields.get("train")
    if val is None or train is None or not is_split(val):
        return data
    for key, node in val.fields.items():
        if key not in SPLIT and key not in CORE_OWNED:
            what = f"data.val.{key}: means nothing beside split, which takes data.train's"
            hint = "leave it out, or give data.val a name and no split"
            raise RecipeError(what, where=str(node.mark), hint=hint)
    share = val.fields["split"]
    if not isinstance(share.value, (int, float)) or not 0 < share.value < 1:
        what = f"data.val.split: expected a share between 0 and 1, got {share.plain}"
        raise RecipeError(what, where=str(share.mark), hint="0.1 holds a tenth out")
    held_out = {key: node for key, node in val.fields.items() if key in SPLIT}
    own = {key: node for key, node in val.fields.items() if key in CORE_OWNED}
    entries = {**train.fields, **own, "held_out": Node(held_out, val.mark)}
    return Node({**data.fields, "val": Node(entries, val.mark)}, data.mark)


def _given(node: Node, key: str) -> bool:
    return key in node.fields and node.fields[key].value is not None


def completed(tree: Node, section: type[BaseModel], path: KeyPath = ()) -> Node:
    """Lay what is written over defaults that are more than their class's own.

    So ``finetune.augment.flip=0`` changes one option of the crops that fine-tuning has by default,
    and ``probe.batch.accumulation=8`` leaves the probe's batch as it is.
    """
    if section is Data:
        tree = _with_split(tree)
    entries = dict(tree.fields)
    for name, field in section.model_fields.items():
        key = field.alias or name
        node = entries.get(key)
        if node is None or not isinstance(node.value, dict):
            continue
        here = (*path, key)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, Section):
            node = _merge(as_tree(as_dict(default), node.mark), node, here)
        inner = [found for found in classes(field.annotation) if issubclass(found, Section)]
        entries[key] = completed(node, inner[0], here) if len(inner) == 1 else node
    return Node(entries, tree.mark) if tree.fields else tree


def remove(base: Node, path: tuple[str, ...]) -> Node | None:
    """Return ``base`` without the key at ``path``; None if it has no such key."""
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
    """Return the keys that exclude each other, by the path of their section."""
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
    """List an annotation's classes: Stats and NoneType of ``Stats | Literal["auto"] | None``."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return [annotation] if isinstance(annotation, type) else []
    return [found for argument in arguments for found in classes(argument)]


Keys = tuple[str, ...]


@dataclass(frozen=True)
class Overrides:
    """Keys that a command line sets and removes; the order of its words does not matter."""

    changes: tuple[tuple[Keys, Node], ...]
    removed: tuple[Keys, ...]

    def apply(self, base: Node) -> tuple[Node, tuple[str, ...]]:
        """Change a recipe; return it with a note for each ``~key`` that was not there.

        Raises:
            RecipeError: a key inside a value that is not a mapping, a key set twice, or two
                alternatives (epochs and steps).
        """
        notes = []
        for path in self.removed:
            without = remove(base, path)
            if without is None:
                notes.append(f"~{_dotted(path)}: the recipe has no such key")
            else:
                base = without
        top = Node({}, COMMAND_LINE)
        # Short paths first: `data.train={...}` and then `data.train.frames=8` inside it.
        for path, value in sorted(self.changes, key=lambda change: len(change[0])):
            _check_reachable(base, top, path)
            if value.value is None:  # and what a longer path then puts there starts from nothing
                base = remove(base, path) or base
            top = _insert(top, path, value)
        check_alternatives(top)
        return merge(base, top), tuple(notes)


def parse_overrides(texts: Sequence[str]) -> Overrides:
    """Read ``a.b=c`` (c in YAML) and ``~a.b``; raises RecipeError that names the word."""
    changes: dict[Keys, Node] = {}
    removed = []
    for text in texts:
        if text.startswith("~") and "=" not in text:
            removed.append(_path(text.removeprefix("~"), text))
            continue
        key, equals, value = text.partition("=")
        if not equals or text.startswith("~"):
            raise RecipeError(
                f"{text!r} is neither KEY=VALUE nor ~KEY",
                where=str(COMMAND_LINE),
                hint="set a key as in pretrain.epochs=10, remove one as in ~pretrain.clip_grad",
            )
        path = _path(key, text)
        if path in changes:
            raise RecipeError(
                f"{key}: set twice",
                where=str(COMMAND_LINE),
                hint="give it once; the order of overrides has no meaning",
            )
        changes[path] = _value(key, value)
    return Overrides(tuple(changes.items()), tuple(removed))


def _path(key: str, text: str) -> Keys:
    path = tuple(key.strip().split("."))
    if not all(path):
        raise RecipeError(
            f"{text!r}: the key is empty, or a part of it between dots",
            where=str(COMMAND_LINE),
            hint="name the key by its path, as in pretrain.optimizer.base_lr=1e-4",
        )
    if len(path) > MAX_DEPTH:
        raise RecipeError(
            f"{text[:40]!r}...: more than {MAX_DEPTH} levels",
            where=str(COMMAND_LINE),
            hint="name a key of the recipe",
        )
    if path in {("extends",), ("ablate", "base")}:
        raise RecipeError(
            f"{key}: what a recipe is laid over can only be named in the file",
            where=str(COMMAND_LINE),
            hint=f"write `{path[-1]}: FILE` into a recipe of your own",
        )
    return path


def _value(key: str, text: str) -> Node:
    try:
        node = parse(text)
    except RecipeError as error:
        raise RecipeError(
            f"{key}={text[:80]}: {error.what}",
            where=error.where,
            hint=f"quote the value for the shell and for YAML: {key}='\"...\"'",
        ) from error
    return Node(None, COMMAND_LINE) if node is None else node


def _check_reachable(base: Node, top: Node, path: Keys) -> None:
    for length in range(1, len(path)):
        # What this command line sets hides what the recipe holds.
        node = top.at(path[:length]) or base.at(path[:length])
        if node is None:
            return
        if node.value is not None and not isinstance(node.value, dict):
            outer = _dotted(path[:length])
            shown = str(node.plain)
            raise RecipeError(
                f"{_dotted(path)}: {outer} is {shown[:60]}, not a mapping with keys of its own",
                where=str(COMMAND_LINE),
                hint=f"give the whole value: {outer}=...",
            )


def _insert(top: Node, path: Keys, value: Node) -> Node:
    if not path:
        return value
    key, *rest = path
    inner = top.fields.get(key, Node({}, COMMAND_LINE))
    return Node({**top.fields, key: _insert(inner, tuple(rest), value)}, COMMAND_LINE)


def _dotted(path: Keys) -> str:
    return ".".join(path)
