"""From a file and a command line to a checked ``Recipe`` that remembers where all was written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.errors import RecipeError
from maekit.recipe.explain import suggest, validated
from maekit.recipe.merge import check_alternatives, merge, parse_overrides, remove
from maekit.recipe.schema import OVERLAYS, VERBS, Recipe
from maekit.recipe.sections import BRITISH
from maekit.recipe.shipped import named, names
from maekit.recipe.yaml12 import KeyPath, Mark, Node, parse, tree

if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_BYTES = 1 << 20
Source = str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe as it was read: what it says, where each value stands.

    Attributes:
        tree: parents, recipe and command line merged, each value with its mark.
        path: the recipe's file.
        notes: for the user, such as a removed key that was not there.
    """

    tree: Node
    path: Path
    notes: tuple[str, ...] = ()

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with its core keys validated and parts' options as written.

        Raises:
            RecipeError: lists everything that is wrong, each with its place.
        """
        return validated(Recipe, self.tree)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The merged recipe as written, without defaults, as plain dicts, lists and scalars."""
        return {key: node.plain for key, node in self.tree.fields.items()}

    @cached_property
    def marks(self) -> Mapping[KeyPath, Mark]:
        """The file and line (or the command line) of every key."""
        return {path: node.mark for path, node in self.tree.walk()}


def load(source: Source, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe and validate its core keys; its parts are validated by ``registry.resolve``.

    Raises:
        RecipeError: as ``read``, or a core key is wrong.
    """
    found = read(source, overrides)
    found.recipe  # noqa: B018 - validates
    return found


def read(source: Source, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe by path, by name if it is a shipped one, or from a mapping; check no key.

    Args:
        source: a file, the name of a shipped recipe (``quickstart``), or what a file would hold.
        overrides: ``a.b=value`` and ``~a.b``, applied together: their order has no meaning.

    Raises:
        RecipeError: with ``file:line`` or ``command line``, the key and what to try.
    """
    if isinstance(source, Mapping):
        path = Path("recipe")
        whole = _on_base(_with_parents(tree(dict(source), Mark("recipe")), path, ()), path, ())
    else:
        path = find(source)
        whole = read_tree(path)
    merged, notes = parse_overrides(overrides).apply(whole)
    return LoadedRecipe(merged, path, (*notes, *_old_spellings(merged)))


def _old_spellings(whole: Node) -> tuple[str, ...]:
    """Return one note that names all values in a spelling that is still read."""
    found = [
        f"{node.mark}: {path[-1]}: {node.value}, now {BRITISH[path[-1], node.value]}"
        for path, node in whole.walk()
        if path and isinstance(node.value, str) and (path[-1], node.value) in BRITISH
    ]
    return (f"old spellings, which are still read: {'; '.join(found)}",) if found else ()


def with_overlays(source: LoadedRecipe, verb: str) -> LoadedRecipe:
    """Return the recipe as one verb sees it: its ``data:`` and ``model:`` overlays merged and gone.

    Raises:
        RecipeError: the recipe has no section for the verb.
    """
    section = source.tree.fields.get(verb)
    if section is None or section.value is None:
        others = [key for key in VERBS if source.tree.at((key,)) not in (None, section)]
        raise RecipeError(
            f"{verb}: the recipe has no such section"
            if section is None
            else f"{verb}: the section is empty",
            where=str(source.tree.mark if section is None else section.mark),
            hint=f"{_section_to_add(verb)}, or use one of the verbs it has: "
            + (", ".join(others) or "none"),
        )
    merged = source.tree
    for key in OVERLAYS:
        overlay = section.fields.get(key)
        if overlay is None:
            continue
        merged = remove(merged, (verb, key)) or merged
        if overlay.value is not None:
            merged = merge(merged, Node({key: overlay}, overlay.mark))
    return LoadedRecipe(merged, source.path, source.notes)


WITH_DEFAULTS = ("finetune", "probe")  # verbs whose section may be empty


def _section_to_add(verb: str) -> str:
    """Say how to add a verb's section, in the recipe and to the command."""
    if verb in WITH_DEFAULTS:
        return f"add `{verb}: {{}}`, whose keys have defaults, or '{verb}={{}}' to the command"
    return f"add `{verb}:` (`maekit recipes show quickstart` has one)"


def read_tree(path: Path) -> Node:
    """Read a recipe with its parents merged, without checking its keys.

    Raises:
        RecipeError: a file cannot be read, is not a YAML mapping, or its parents form a circle.
    """
    return _on_base(_read(path, ()), path, ())


def _on_base(whole: Node, path: Path, children: tuple[Path, ...]) -> Node:
    """Lay a recipe over what its ``ablate.base`` names; unlike a parent, a child can replace it."""
    named = whole.at(("ablate", "base"))
    if named is None or named.value is None:
        return whole
    where, text = str(named.mark), str(named.value)
    # Relative to the file that names it, which may be a parent.
    base = find_parent(Path(named.mark.file), text) or find_parent(path, text)
    if base is None:
        near = _near(text)
        hint = near or "a recipe's name, or its path relative to this file"
        raise RecipeError(f"ablate.base: {text}: no such recipe", where=where, hint=hint)
    children = (*children, path.resolve())
    if base.resolve() in children:
        msg = f"ablate.base: {text} is laid over itself"
        raise RecipeError(msg, where=where, hint="name a recipe without rows")
    own = remove(whole, ("ablate", "base")) or whole
    under = _on_base(_read(base, ()), base, children)
    return Node(merge(under, own).value, own.mark)


def _read(path: Path, children: tuple[Path, ...]) -> Node:
    return _with_parents(read_file(path), path, children)


def _with_parents(layer: Node, path: Path, children: tuple[Path, ...]) -> Node:
    """Merge a recipe into its parents, which are named relative to its path."""
    check_alternatives(layer)
    extends = layer.fields.get("extends")
    if extends is None:
        return layer
    own = remove(layer, ("extends",)) or layer
    where = str(extends.mark)
    if not isinstance(extends.value, str):
        raise RecipeError(
            "extends: takes the path of one parent recipe",
            where=where,
            hint="extends: other.yaml; for more, let the parent extend another one",
        )
    parent = find_parent(path, extends.value)
    if parent is None:
        near = suggest(extends.value, (file.name for file in path.parent.glob("*.y*ml")))
        near = near or _near(_name(Path(extends.value)))
        raise RecipeError(
            f"extends: {extends.value}: no such file next to {path.name}, nor a shipped recipe",
            where=where,
            hint=near or "give the parent's path relative to this file",
        )
    children = (*children, path.resolve())
    if parent.resolve() in children:
        circle = " > ".join(file.name for file in (*children, parent))
        raise RecipeError(
            f"extends: the parents form a circle: {circle}",
            where=where,
            hint="remove one of the `extends`",
        )
    # What is missing from the whole is missing from the child.
    return Node(merge(_read(parent, children), own).value, own.mark)


def read_file(path: Path) -> Node:
    """Read one file as a YAML mapping; raises RecipeError if it is none."""
    name = shown(path)
    node = parse(_text(path, name), name)
    if node is None:
        raise RecipeError(
            "the file is empty", where=f"{name}:1", hint="start from `maekit recipes copy`"
        )
    if not isinstance(node.value, dict):
        kind = "a list" if isinstance(node.value, list) else "a single value"
        raise RecipeError(
            f"a recipe is a mapping (key: value), this is {kind}",
            where=str(node.mark),
            hint="`maekit recipes show quickstart` prints a complete one",
        )
    return node


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(
            f"cannot be read: {error.strerror}", where=name, hint="check the path and its rights"
        ) from error
    hint = "a recipe is a YAML text file; is this the right path?"
    if len(raw) > MAX_BYTES:
        raise RecipeError("larger than 1 MiB: this is not a recipe", where=name, hint=hint)
    if b"\0" in raw:
        raise RecipeError("this is a binary file", where=name, hint=hint)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"not UTF-8 text: byte 0x{raw[error.start]:02x}",
            where=f"{name}:{line}",
            hint="save the file as UTF-8",
        ) from error


def shown(path: Path) -> str:
    """Return the path for messages: relative where it lies below the working directory."""
    below = path.is_absolute() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd()) if below else path)


SUFFIXES = (".yaml", ".yml")


def find(source: str | Path) -> Path:
    """Find a recipe's file: a path that exists, else an installed one by name or by path.

    Raises:
        RecipeError: the file does not exist, or it is a folder.
    """
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - as in find_parent
    if os.path.isfile(path):  # noqa: PTH113
        return path
    installed = named(_name(path))
    if installed is not None:
        return installed
    if os.path.isdir(path):  # noqa: PTH112
        inside = path / "recipe.yaml"
        hint = f"{inside}" if inside.is_file() else "name a .yaml file in it"
        raise RecipeError("this is a folder, not a recipe", where=str(source), hint=hint)
    if os.path.exists(path):  # noqa: PTH110
        raise RecipeError(
            "not a regular file", where=str(source), hint="save the recipe to a .yaml file"
        )
    raise RecipeError("no such recipe", where=str(source), hint=_advice(path))


def find_parent(child: Path, parent: str) -> Path | None:
    """Find the file that ``extends: parent`` means: one next to ``child``, else an installed one.

    The second lets a copy of a shipped recipe keep its parent, and a recipe extend a plugin's.
    """
    # Of os.path, as pathlib raises on names that are too long or of an unknown user.
    neighbor = child.parent / os.path.expanduser(parent)  # noqa: PTH111
    there = os.path.isfile(neighbor)  # noqa: PTH113
    return neighbor if there else named(_name(Path(parent)))


def _name(path: Path) -> str:
    name = path.as_posix().removeprefix("./").removeprefix("recipes/")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _advice(path: Path) -> str:
    if os.path.isdir(path.parent):  # noqa: PTH112
        neighbors = [file.name for file in path.parent.iterdir() if file.suffix in SUFFIXES]
        near = suggest(path.name, neighbors)
        if near:
            return near
    listing = "`maekit recipes list` shows all that are installed"
    near = _near(_name(path))
    return f"{near} {listing}" if near else listing


def _near(name: str) -> str | None:
    """Return a did-you-mean; of a plugin's recipe the bare name is enough."""
    bare = name.rpartition("/")[2]
    same = [full for full in names() if full.rpartition("/")[2] == bare]
    return f"did you mean '{same[0]}'?" if same else suggest(name, names())
