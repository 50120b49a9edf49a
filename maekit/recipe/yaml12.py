"""YAML 1.2 (core schema) read into a tree in which every value knows its file and line.

PyYAML follows YAML 1.1, where ``1e-4`` is text and ``on`` is a boolean. Here ``1e-4`` is a number,
``on``, ``off``, ``yes`` and ``no`` are words, ``0o17`` is octal and ``1:30`` is text. Duplicate
keys, recursive aliases and aliases that multiply beyond a budget are errors.
Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import yaml

from maekit.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

Scalar = str | int | float | bool | None
Plain: TypeAlias = Scalar | list["Plain"] | dict[str, "Plain"]
KeyPath = tuple[str | int, ...]

MAX_NODES = 10_000  # values after aliases are expanded
MAX_DEPTH = 50
_LONGEST_NUMBER = 100  # digits

_STR = "tag:yaml.org,2002:str"


def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{pattern})\Z")


_NULL = _whole(r"~|null|Null|NULL|")
_BOOL = _whole(r"true|True|TRUE|false|False|FALSE")
_INT = _whole(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = _whole(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)

# Tag, form, first characters. In order: an integer also has the form of a float.
CORE_SCHEMA: tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...] = (
    ("tag:yaml.org,2002:null", _NULL, ("~", "n", "N", "")),
    ("tag:yaml.org,2002:bool", _BOOL, tuple("tTfF")),
    ("tag:yaml.org,2002:int", _INT, tuple("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, tuple("-+.0123456789")),
)


@dataclass(frozen=True)
class Mark:
    """Place of a value: a file and a line (from 1), or the command line."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


COMMAND_LINE = Mark("command line")


@dataclass(frozen=True)
class Node:
    """A value and the mark of its key (of itself, for a list's item and the whole file)."""

    value: Scalar | list[Node] | dict[str, Node]
    mark: Mark

    @property
    def fields(self) -> dict[str, Node]:
        """The entries of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def plain(self) -> Plain:
        """The value as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value

    def at(self, path: KeyPath) -> Node | None:
        """Return the node at ``path``, or None where there is none."""
        node: Node | None = self
        for key in path:
            value = node.value if node else None
            if isinstance(value, list) and isinstance(key, int):
                node = value[key] if key < len(value) else None
            else:
                node = value.get(str(key)) if isinstance(value, dict) else None
        return node

    def mark_of(self, path: KeyPath) -> Mark:
        """Return the mark of ``path``, or of the nearest key around it that exists."""
        for length in range(len(path), -1, -1):
            node = self.at(path[:length])
            if node is not None:
                return node.mark
        raise AssertionError("the empty path always exists")

    def places_of(self, path: KeyPath, key: str | None = None) -> str:
        """Return the mark of ``path``, and the command line where that set a key below it.

        Args:
            path: of a value, or of the part that it is.
            key: below it, whose mark stands for the file's; default: its own.
        """
        own, node = self.mark_of(path if key is None else (*path, key)), self.at(path)
        below = () if node is None else node.walk()
        mixed = own != COMMAND_LINE and any(each.mark == COMMAND_LINE for _, each in below)
        return f"{own} and the {COMMAND_LINE}" if mixed else str(own)

    def walk(self, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
        """Yield every node below and including this one, with its path."""
        yield path, self
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.walk((*path, key))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.walk((*path, index))


def tree(value: Plain, mark: Mark) -> Node:
    """Build a tree of plain dicts, lists and scalars, everything at ``mark``."""
    if isinstance(value, dict):
        return Node({key: tree(item, mark) for key, item in value.items()}, mark)
    if isinstance(value, list):
        return Node([tree(item, mark) for item in value], mark)
    return Node(value, mark)


def parse(text: str, file: str | None = None) -> Node | None:
    """Parse one YAML document; None if it holds nothing.

    Args:
        text: the document.
        file: what errors and marks call it; None for a value on the command line, which has no
            lines worth naming.

    Raises:
        RecipeError: not YAML, a duplicate key, a recursive alias, too many or too deep values.
    """
    reader = _Reader(file)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"the character U+{ord(text[error.position]):04X}"
        raise RecipeError(
            f"not YAML: {character} is not allowed in text",
            where=str(reader.mark(line)),
            hint="save the file as plain UTF-8 text",
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(filter(None, (error.context, error.problem))) or "cannot be parsed"
        raise RecipeError(
            f"not YAML: {problem}",
            where=str(reader.mark(mark.line + 1 if mark else 1)),
            hint=_advice(problem),
        ) from error
    if node is None:
        return None
    return reader.read(node, reader.mark(node.start_mark.line + 1), depth=0)


def _advice(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "quote text that contains ': ', and check the indentation"
    if "alias" in problem or "anchor" in problem:
        return "quote text that starts with '*' or '&'"
    if "expected a single document" in problem:
        return "a recipe is one document: split it at '---' into two files"
    return "check the indentation, the quotes and the brackets on and above this line"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the types of YAML 1.2 and a limit on nesting."""

    # Own table: PyYAML's is a class attribute shared by all loaders.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    # On the command line, names of files that are not UTF-8 have such characters.
    NON_PRINTABLE = re.compile(  # type: ignore[misc]
        yaml.reader.Reader.NON_PRINTABLE.pattern.removesuffix("]") + "\udc80-\udcff]"
    )
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, _pattern, _first in CORE_SCHEMA:
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))


class _Reader:
    """Converter of PyYAML's nodes to ours; it counts as if every alias were written out."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.count = 0
        self.open: set[int] = set()  # the collections around the current node

    def mark(self, line: int) -> Mark:
        return COMMAND_LINE if self.file is None else Mark(self.file, line)

    def mark_of(self, node: yaml.Node) -> Mark:
        return self.mark(node.start_mark.line + 1)

    def read(self, node: yaml.Node, mark: Mark, depth: int) -> Node:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise RecipeError(
                f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels, aliases written out",
                where=str(mark),
                hint="use fewer aliases (*name), or put shared parts into a parent (extends: FILE)",
            )
        if isinstance(node, yaml.ScalarNode):
            return Node(self.scalar(node), mark)
        if id(node) in self.open:
            raise RecipeError(
                "an alias (*name) is inside the value that it refers to",
                where=str(self.mark_of(node)),
                hint="write the inner value out",
            )
        self.open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self.check_tag(node, "map")
            found: Node = Node(self.mapping(node, depth), mark)
        else:
            self.check_tag(node, "seq")
            items = [self.read(item, self.mark_of(item), depth + 1) for item in node.value]
            found = Node(items, mark)
        self.open.discard(id(node))
        return found

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            mark = self.mark_of(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STR:
                shown = getattr(key_node, "value", "")
                raise RecipeError(
                    f"a key must be text, got {str(shown)[:40]!r}",
                    where=str(mark),
                    hint="quote it, or check the indentation",
                )
            key = str(self.scalar(key_node))
            if key == "<<":
                raise RecipeError(
                    "merge keys (<<) are not part of YAML 1.2",
                    where=str(mark),
                    hint="put what is shared into a parent recipe (extends: FILE)",
                )
            if node.flow_style and _stuck(key_node, value_node):
                name, _, value = key.partition(":")
                raise RecipeError(
                    f"{{{key}}} is one key without a value: a colon needs a space behind it",
                    where=str(mark),
                    hint=f"{{{name}: {value}}}",
                )
            if key in entries:
                raise RecipeError(
                    f"{key}: duplicate key, first at {entries[key].mark}",
                    where=str(mark),
                    hint="keep one of the two",
                )
            entries[key] = self.read(value_node, mark, depth + 1)
        return entries

    def check_tag(self, node: yaml.Node, *allowed: str) -> str:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in allowed:
            raise RecipeError(
                f"the tag {node.tag} is not allowed in a recipe",
                where=str(self.mark_of(node)),
                hint="remove the tag; recipes hold text, numbers, true, false, null, lists and "
                "mappings",
            )
        return kind

    def scalar(self, node: yaml.ScalarNode) -> Scalar:
        kind = self.check_tag(node, "str", "null", "bool", "int", "float")
        try:
            return _convert(kind, node.value)
        except ValueError as error:
            raise RecipeError(
                f"{node.value[:40]!r} is not a valid {kind}: {error}",
                where=str(self.mark_of(node)),
                hint="check the value, or quote it to make it text",
            ) from error


def _stuck(key: yaml.ScalarNode, value: yaml.Node) -> bool:
    """Return whether a key of ``{key:value}`` swallowed its value."""
    empty = isinstance(value, yaml.ScalarNode) and not value.value and value.style is None
    return empty and key.style is None and ":" in key.value.strip(":")


def _convert(kind: str, text: str) -> Scalar:
    if kind == "null":
        return None
    if kind == "bool":
        if not _BOOL.match(text):
            raise ValueError("expected true or false")
        return text.lower() == "true"
    if kind == "int":
        if len(text) > _LONGEST_NUMBER:
            raise ValueError(f"longer than {_LONGEST_NUMBER} digits")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if kind == "float":
        # YAML writes .inf and .nan; Python does not take the dot.
        special = text.lower().lstrip("+-") in {".inf", ".nan"}
        return float(text.replace(".", "", 1) if special else text)
    # Of lone surrogates ("\ud800") those are taken that stand for a byte of a file's name.
    text.encode("utf-8", "surrogateescape")
    return text
