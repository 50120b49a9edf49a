"""Pydantic's findings in plain words: the place, the key, what is wrong, what to try."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from maekit.errors import PartError, RecipeError
from maekit.recipe.dump import to_yaml
from maekit.recipe.merge import classes, completed
from maekit.recipe.schema import NAME_OF, OPTIONS_OF, NameOf, OptionsOf, PartSpec
from maekit.recipe.yaml12 import COMMAND_LINE
from maekit.text import carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from maekit.recipe.yaml12 import KeyPath, Node


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "none_required": "null",
}
# Filled with Pydantic's context and the value.
_SENTENCES = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "union_tag_not_found": "has no `name`",
    "union_tag_invalid": "unknown name '{tag}'",
    "greater_than": "expected more than {gt}, got {value}",
    "greater_than_equal": "expected at least {ge}, got {value}",
    "less_than": "expected less than {lt}, got {value}",
    "less_than_equal": "expected at most {le}, got {value}",
    "finite_number": "expected a finite number, got {value}",
    "too_short": "expected at least {min_length} values, got {actual_length}",
    "too_long": "expected at most {max_length} values, got {actual_length}",
    "string_pattern_mismatch": "{value} does not match {pattern}",
}
# Keys by the names that other tools give them.
_SAME = {
    "lr": "base_lr",
    "learning_rate": "base_lr",
    "wd": "weight_decay",
    "batch_size": "global",
    "bs": "global",
    "mask_ratio": "ratio",
    "num_workers": "workers",
    "image_size": "size",
    "img_size": "size",
}
_EXAMPLE = "`maekit recipes show quickstart` prints a complete recipe"


M = TypeVar("M", bound=BaseModel)


def validated(
    model: type[M],
    tree: Node,
    options_of: OptionsOf | None = None,
    name_of: NameOf | None = None,
) -> M:
    """Build ``model`` from a tree of values that know their places.

    Args:
        model: the class to build.
        tree: what to build it from.
        options_of: finds the classes of parts' options; without it they stay as written.
        name_of: finds the names that parts are known by; without it they stay as written.

    Raises:
        RecipeError: lists everything that is wrong, each with its place.
        PartError: a part is not available, and nothing else is wrong.
    """
    tree = completed(tree, model)
    try:
        # As JSON, strictly: lists become tuples, but "3" and true are not numbers.
        return model.model_validate_json(
            carried(json.dumps(tree.plain, ensure_ascii=False)),
            strict=True,
            by_alias=True,
            by_name=False,
            context={OPTIONS_OF: options_of, NAME_OF: name_of},
        )
    except ValidationError as error:
        raise explain(error, _Scope(tree, model, options_of)) from error


@dataclass(frozen=True)
class _Scope:
    """The validated tree, the class that it was to become, and the lookup of parts' options."""

    tree: Node
    model: type[BaseModel]
    options_of: OptionsOf | None

    def options_at(self, path: KeyPath, spec: type[BaseModel]) -> list[type[BaseModel]]:
        """Return the class of the options of the part at ``path``, if there is one."""
        name = self.tree.at((*path, "name"))
        if self.options_of is None or not issubclass(spec, PartSpec):
            return []
        try:
            found = self.options_of(spec.kind, str(name.value)) if name else None
        except PartError:
            return []
        return [] if found is None else [found]


def explain(error: ValidationError, scope: _Scope) -> RecipeError | PartError:
    """Turn a ValidationError into one error that lists everything that is wrong."""
    grouped: dict[KeyPath, list[_Finding]] = {}
    for details in error.errors(include_url=False):
        finding = _find(details, scope.tree)
        grouped.setdefault(finding.union or finding.path, []).append(finding)
    problems: list[_Problem] = []
    for findings in grouped.values():
        problems += _problems(findings, scope)
    if len(problems) == 1:
        kind = PartError if problems[0].of_part else RecipeError
        return kind(problems[0].what, where=problems[0].where, hint=problems[0].hint)
    lines = [f"\n  {found.where}: {found.what} ({found.hint})" for found in problems]
    return RecipeError(
        f"{len(problems)} problems:{''.join(lines)}",
        hint="correct these and run `maekit recipes validate` again",
    )


@dataclass(frozen=True)
class _Problem:
    where: str
    what: str
    hint: str
    of_part: bool = False  # the part itself is not available


@dataclass(frozen=True)
class _Finding:
    """One error of Pydantic's, its location split into keys of the recipe and union branches."""

    details: ErrorDetails
    path: KeyPath  # keys that are in the recipe, and a last one that is missing
    union: KeyPath | None  # the key whose value fits no branch of a union
    tags: tuple[str, ...]


def _find(details: ErrorDetails, tree: Node) -> _Finding:
    path: KeyPath = ()
    tags: list[str] = []
    union: KeyPath | None = None
    location = details["loc"]
    for position, key in enumerate(location):
        last = position == len(location) - 1
        if tree.at((*path, key)) is not None or (last and details["type"] == "missing"):
            path = (*path, key)
            continue
        tags.append(str(key))
        # The branch of a discriminated union is known: its errors stand for themselves.
        chosen = tree.at((*path, "name"))
        if union is None and not (chosen and chosen.value == key):
            union = path
    return _Finding(details, path, union, tuple(tags))


def _problems(findings: list[_Finding], scope: _Scope) -> Iterator[_Problem]:
    """Yield the problems at one key, of which a union has one or more for each branch."""
    tree = scope.tree
    ranks = [_rank(finding) for finding in findings]
    near = [found for found, rank in zip(findings, ranks, strict=True) if rank == min(ranks)]
    shapes = [_expected(found.details) for found in near]
    if len(near) > 1 and min(ranks) > 1 and all(shapes):
        path = near[0].path
        words = list(dict.fromkeys(shape for shape in shapes if shape))
        what = f"{dotted(path)}: expected {' or '.join(words)}, got {_show(tree.at(path))}"
        yield _Problem(str(tree.mark_of(path)), what, _hint(near, scope))
        return
    for found in near:
        what = f"{dotted(found.path)}: {_wrong(found, tree)}" if found.path else _wrong(found, tree)
        of_part = bool(found.details.get("ctx", {}).get("part"))
        yield _Problem(tree.places_of(found.path), what, _hint([found], scope), of_part)


def _rank(finding: _Finding) -> int:
    """Rank how near a union's branch came: 0 failed inside, 1 on a limit, 2 is of another type."""
    if finding.union is None or len(finding.path) > len(finding.union):
        return 0
    return 2 if _expected(finding.details) else 1


def _expected(details: ErrorDetails) -> str | None:
    """Return the expected type, for errors that say no more than that."""
    if details["type"] == "literal_error":
        return " or ".join(f"'{word}'" for word in _words(details))
    return _KINDS.get(details["type"])


def _words(details: ErrorDetails) -> list[str]:
    context = details.get("ctx", {})
    return re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))


def _wrong(finding: _Finding, tree: Node) -> str:
    details = finding.details
    value = _show(tree.at(finding.path))
    sentence = _SENTENCES.get(details["type"])
    if sentence:
        return sentence.format(**{**details.get("ctx", {}), "value": value})
    expected = _expected(details)
    if expected:
        return f"expected {expected}, got {value}"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{message[:1].lower()}{message[1:]}"


def _hint(findings: list[_Finding], scope: _Scope) -> str:
    finding = findings[0]
    kind = finding.details["type"]
    own = finding.details.get("ctx", {}).get("hint")  # of an error that knows what to try
    if own is not None:
        return str(own)
    if kind == "extra_forbidden":
        return _unknown_key(finding, scope)
    words = [word for found in findings for word in _words(found.details)]
    value = finding.details["input"]
    if kind == "union_tag_invalid":
        value = finding.details.get("ctx", {}).get("tag", "")
    if words:
        near = suggest(value, words) if isinstance(value, str) else None
        return near or f"known: {', '.join(words)}"
    field, node = _field_at(finding, scope), scope.tree.at(finding.path)
    if field is None:
        return _EXAMPLE
    if kind in {"model_type", "model_attributes_type"} and isinstance(value, str):
        return _how_parts_are_given(finding.path, value, scope.tree)
    # Keys that do not go together: what their section is for is no advice.
    apart = kind == "value_error" and node is not None and node.fields
    return f"set the keys that it names, below {dotted(finding.path)}" if apart else _about(field)


def _how_parts_are_given(path: KeyPath, value: str, tree: Node) -> str:
    """Say how to give what was written in place of a part: its name, or the path of its data."""
    key = "path" if "/" in value or os.path.exists(value) else "name"  # noqa: PTH110
    if tree.mark_of(path) == COMMAND_LINE:
        return shlex.quote(f"{dotted(path)}.{key}={value}")
    return f"a part is given as `{path[-1]}: {{{key}: {value}}}`"


def _about(field: FieldInfo) -> str:
    default = field.default if isinstance(field.default, (int, float, str)) else None
    about = [] if field.description is None else [field.description]
    if default is not None:
        about.append(f"default {default}")
    return "; ".join(about) or _EXAMPLE


def _unknown_key(finding: _Finding, scope: _Scope) -> str:
    word = str(finding.path[-1])
    around = _models_at(finding.path, finding.tags, scope)
    here = [key for inner in around for key in _keys(inner)]
    near = suggest(word, here)
    if any(issubclass(inner, PartSpec) for inner in around):
        elsewhere: list[tuple[str, ...]] = []
    else:  # a key of another branch of the union that stands here has this very path
        elsewhere = [path for path in _key_paths(scope.model, ()) if path != finding.path]
    # First what the verb's own section has: its learning rate is not that of another verb.
    own = [path for path in elsewhere if path[0] == finding.path[0] and len(finding.path) > 1]
    meant = _SAME.get(word, word)
    for among, name in ((own, _SAME.get(word)), (own, word), (elsewhere, meant)):
        found = next((path for path in among if path[-1] == name), None)
        if found and (name != word or not near):
            return f"did you mean '{'.'.join(found)}'?"
    if near:
        return near
    outer = scope.tree.at(finding.path[:-1])
    free = [key for key in here if outer is None or key not in outer.fields]
    return f"known here: {', '.join(free)}" if free else "remove it: no further key is known here"


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _key_paths(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        yield here
        for inner in _models_in(field):
            yield from _key_paths(inner, here)


def _models_in(field: FieldInfo) -> list[type[BaseModel]]:
    return [found for found in classes(field.annotation) if issubclass(found, BaseModel)]


def _models_at(path: KeyPath, tags: tuple[str, ...], scope: _Scope) -> list[type[BaseModel]]:
    """Return the classes that may stand around the last key of ``path``."""
    around = [scope.model]
    for end, key in enumerate(path[:-1], start=1):
        around = [inner for field in _fields(around, key) for inner in _models_in(field)]
        around += [own for inner in around for own in scope.options_at(path[:end], inner)]
        chosen = [inner for inner in around if _literal_name(inner) & set(tags)]
        around = chosen or around
    return around


def _fields(models: Iterable[type[BaseModel]], key: str | int) -> list[FieldInfo]:
    return [
        field
        for model in models
        for name, field in model.model_fields.items()
        if (field.alias or name) == key
    ]


def _field_at(finding: _Finding, scope: _Scope) -> FieldInfo | None:
    """Return the field of a finding's key, or of the nearest key around it that is one."""
    path = finding.path
    while path:
        fields = _fields(_models_at(path, finding.tags, scope), path[-1])
        if fields:
            return fields[0]
        path = path[:-1]
    return None


def _literal_name(model: type[BaseModel]) -> set[Any]:
    field = model.model_fields.get("name")
    return set() if field is None else set(get_args(field.annotation))


def _show(node: Node | None) -> str:
    """Return a value as the recipe writes it, shortened to one line."""
    if node is None:
        return "nothing"
    return textwrap.shorten(to_yaml([node.plain]).strip()[1:-1], 60, placeholder="...")


def dotted(path: KeyPath) -> str:
    """Return a path as ``pretrain.optimizer.betas[1]``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Ask ``did you mean ...?`` of the nearest known word; None if none is near."""
    words = {str(item).lower(): str(item) for item in known}
    near = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.6)
    return f"did you mean '{words[near[0]]}'?" if near else None
