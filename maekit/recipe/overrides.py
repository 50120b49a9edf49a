"""``pretrain.epochs=10`` and ``~pretrain.clip_grad``: changes to a recipe on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.errors import RecipeError
from maekit.recipe.merge import check_alternatives, merge, remove
from maekit.recipe.yaml12 import COMMAND_LINE, Node, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Overrides:
    """What a command line sets and removes; the order of its words does not matter."""

    changes: tuple[tuple[Keys, Node], ...]
    removed: tuple[Keys, ...]

    def apply(self, base: Node) -> tuple[Node, tuple[str, ...]]:
        """Change a recipe; returns it with a note for each ``~key`` that was not there.

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
    if path == ("extends",):
        raise RecipeError(
            "extends: a parent can only be named in the file",
            where=str(COMMAND_LINE),
            hint="write `extends: FILE` into a recipe of your own",
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
