"""Parts by kind and name: listed from installed metadata, imported only when used.

Built-ins and plugins are declared alike, as entry points (``maekit.maskers``, ``.targets``,
``.backbones``, ``.decoders``, ``.datasets``), so nothing here knows a concrete part.
"""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

from maekit.contracts import Backbone, Dataset, Decoder, Masker, PartOptions, Target
from maekit.errors import DataError, PartError, RecipeError
from maekit.installed import OURS, declared, normal
from maekit.origin import Origin, Place, naming, remember
from maekit.recipe.dump import as_dict
from maekit.recipe.explain import dotted, suggest, validated
from maekit.recipe.load import LoadedRecipe, with_overlays
from maekit.recipe.merge import CORE_OWNED, is_split, merge
from maekit.recipe.schema import OVERLAYS, VERBS, PartSpec, Recipe, Untyped, parts
from maekit.recipe.yaml12 import Mark, Node, tree
from maekit.stop import Leaving

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from maekit.contracts import PartContext

_BASES: dict[str, type] = {
    "maskers": Masker,
    "targets": Target,
    "backbones": Backbone,
    "decoders": Decoder,
    "datasets": Dataset,
}
KINDS = tuple(_BASES)
PRETRAIN = "pretrain"  # the one verb that builds targets, decoders and maskers
_LISTING = "`maekit plugins list` shows all parts"


@dataclass(frozen=True)
class Entry:
    """A part as its distribution declares it; nothing of it is imported."""

    kind: str
    name: str
    distribution: str
    version: str
    value: str  # module:Class
    point: metadata.EntryPoint = field(repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """``distribution/name``, which always means this part."""
        return f"{self.distribution}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind[:-1]} '{self.name}' of {self.distribution} {self.version}"


def listed(kind: str | None = None) -> tuple[Entry, ...]:
    """List the installed parts of one kind, or of all; built-ins first, then by distribution."""
    # Keyed by sys.path, so that a distribution that becomes visible later is seen.
    entries = _entries(tuple(sys.path))
    return tuple(entry for entry in entries if kind is None or entry.kind == kind)


@functools.lru_cache(maxsize=4)
def _entries(search_path: tuple[str, ...]) -> tuple[Entry, ...]:  # noqa: ARG001
    found = [
        Entry(kind, point.name, distribution, version, point.value, point)
        for kind, distribution, version, point in declared(KINDS)
    ]
    return tuple(
        sorted(
            found,
            key=lambda e: (KINDS.index(e.kind), e.distribution != OURS, e.distribution, e.name),
        )
    )


def entry(kind: str, name: str, versions: Mapping[str, str] | None = None) -> Entry:
    """Return the one part that ``name`` (or ``distribution/name``) means.

    Args:
        kind: of part.
        name: of the part.
        versions: of the distributions that whoever names it was made with, where that is known.

    Raises:
        PartError: there is none, or two plugins share the bare name.
    """
    distribution, slash, bare = name.rpartition("/")
    matches = [found for found in listed(kind) if found.name == bare]
    if slash:
        matches = [found for found in matches if found.distribution == normal(distribution)]
    # Built-ins own their bare names: no plugin can change what a recipe means.
    ours = [found for found in matches if found.distribution == OURS]
    matches = ours or matches
    if len(matches) == 1:
        return matches[0]
    if not matches and slash:
        raise _lacking(kind, bare, normal(distribution), versions or {})
    if not matches:
        raise PartError(f"unknown {kind[:-1]} '{name}'", hint=_near(kind, name))
    raise PartError(
        f"{len(matches)} distributions call a {kind[:-1]} '{name}'",
        hint="name one of " + ", ".join(found.full_name for found in matches),
    )


def _lacking(kind: str, bare: str, distribution: str, versions: Mapping[str, str]) -> PartError:
    """Say that a part's distribution is not installed, or is of a version that has no such part."""
    known = versions.get(distribution)
    wanted = f"{distribution} {known}" if known else distribution
    install = f"pip install {distribution}" + (f"=={known}" if known else "")
    installed = version_of(distribution)
    part = f"{kind[:-1]} '{bare}'"
    if installed is None:
        what = f"the {part} is of {wanted}, which is not installed"
        return PartError(what, hint=f"{install}; {_LISTING}")
    what = f"{distribution} {installed} has no {part}"
    if known not in (None, installed):
        return PartError(f"{what}; it was of version {known}", hint=install)
    return PartError(what, hint=_near(kind, bare))


def version_of(distribution: str) -> str | None:
    """Return the installed version of a distribution; None: it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def canonical(kind: str, name: str) -> str:
    """Return the name that means a part wherever it is read again.

    That is the bare one of maekit's own, and ``distribution/name`` of all others, as another
    distribution may come to have one of the same name. What is not installed stays as it is.
    """
    try:
        found = entry(kind, name)
    except PartError:
        return name
    return found.name if found.distribution == OURS else found.full_name


def has_own(kind: str, name: str) -> bool:
    """Return whether maekit itself has a part of a bare name, which then means that one."""
    return any(each.name == name and each.distribution == OURS for each in listed(kind))


def versions_of(specs: Iterable[PartSpec]) -> dict[str, str] | None:
    """Return the installed versions of the distributions that parts are of; None: of maekit."""
    named = {normal(spec.name.rpartition("/")[0]) for spec in specs if "/" in spec.name} - {OURS}
    found = {each: version for each in sorted(named) if (version := version_of(each))}
    return found or None


def other_versions(before: Mapping[str, str] | None) -> list[str]:
    """Say which distributions have another version now than they had, or are gone."""
    lines = []
    for name, version in sorted((before or {}).items()):
        now = version_of(name)
        if now != version:
            lines.append(f"{name} was {version} then, and is {now or 'not installed'} now")
    return lines


def names_of(part: Entry) -> tuple[str, ...]:
    """List a part's names, the shortest first.

    The bare name is among them only where it is the part's alone.
    """
    ours = part.distribution == OURS
    rivals = [other for other in listed(part.kind) if other.name == part.name]
    return (part.name, part.full_name) if ours or len(rivals) == 1 else (part.full_name,)


def _near(kind: str, name: str) -> str:
    if not listed():
        return "maekit's own parts are not registered: install it (pip install -e .)"
    bare = name.rpartition("/")[2]
    elsewhere = [found.kind[:-1] for found in listed() if found.name == bare and found.kind != kind]
    if elsewhere:
        return f"'{bare}' is a {elsewhere[0]}; {_LISTING}"
    near = suggest(bare, (found.name for found in listed(kind)))
    return f"{near} {_LISTING}" if near else _LISTING


def find(kind: str, name: str, versions: Mapping[str, str] | None = None) -> type[Any]:
    """Import a part's class.

    Args:
        kind: of part.
        name: of the part.
        versions: as ``entry`` takes them.

    Raises:
        PartError: unknown, ambiguous, failing to import, or not a class.
    """
    found = entry(kind, name, versions)
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no result of a command
            part = found.point.load()
    except Leaving:  # a signal came, and it is no plugin's doing
        raise
    except (Exception, SystemExit) as error:
        # Whatever a plugin's module does on import, it is that plugin that is broken.
        raise PartError(
            f"{found} cannot be imported: {type(error).__name__}: {error}",
            where=found.value,
            hint=f"update or uninstall {found.distribution}, or use another part",
        ) from error
    if not isinstance(part, type):
        raise PartError(f"{found} is not a class", where=found.value, hint=_report(found))
    base = _BASES[kind]
    if not issubclass(part, base):
        what = f"{found} does not inherit from maekit.contracts.{base.__name__}"
        raise PartError(what, where=found.value, hint=_report(found))
    missing = sorted(getattr(part, "__abstractmethods__", ()))
    if missing:
        what = f"{found} does not define {', '.join(missing)}, which maekit.contracts requires"
        raise PartError(what, where=found.value, hint=_report(found))
    return part


def _report(found: Entry) -> str:
    return f"report this to the authors of {found.distribution}, or use another part"


def options_of(
    kind: str, name: str, versions: Mapping[str, str] | None = None
) -> type[PartOptions]:
    """Return a part's ``Options`` class.

    Args:
        kind: of part.
        name: of the part.
        versions: as ``entry`` takes them.

    Raises:
        PartError: as ``find``, or the part has no valid ``Options``.
    """
    options = getattr(find(kind, name, versions), "Options", None)
    found = entry(kind, name)
    if not (isinstance(options, type) and issubclass(options, PartOptions)):
        raise PartError(
            f"{found} has no `Options` derived from maekit.contracts.PartOptions",
            where=found.value,
            hint=_report(found),
        )
    reserved = {"name"} | (CORE_OWNED if kind == "datasets" else set())
    taken = sorted(reserved & set(options.model_fields))
    if taken:
        raise PartError(
            f"{found} has an option that the core owns: {', '.join(taken)}",
            where=found.value,
            hint=_report(found),
        )
    return options


def installed_options_of(kind: str, name: str) -> type[PartOptions] | None:
    """Return a part's ``Options`` class, or None where the part is not available.

    The header of weights can be read whether or not the parts are installed; building the model
    raises the error.
    """
    try:
        return options_of(kind, name)
    except PartError:
        return None


def resolve(source: LoadedRecipe, verb: str | None = None) -> Recipe:
    """Validate a whole recipe together with its parts: options with defaults, paths absolute.

    Args:
        source: what ``read`` returned.
        verb: merge this verb's ``data:`` and ``model:`` overlays first; without it they stay,
            each checked, with absolute paths.

    Raises:
        PartError: a part is unknown or broken, with the place that names it.
        RecipeError: lists everything that is wrong, in the core's keys and in parts' options.
    """
    if verb is not None:
        return _resolved(with_overlays(source, verb).tree, verb)
    recipe = _resolved(source.tree, None)
    for each in VERBS:
        section = source.tree.fields.get(each)
        overlays = [key for key in OVERLAYS if section and key in section.fields]
        if not overlays:
            continue
        merged = as_dict(resolve(source, each))
        completed = {key: _as_in(source.data[each][key], merged[key]) for key in overlays}
        recipe = recipe.model_copy(
            update={each: getattr(recipe, each).model_copy(update=completed)}
        )
    return recipe


def _resolved(tree: Node, verb: str | None) -> Recipe:
    """Validate a recipe; parts that the verb does not build may be missing."""
    tree = with_set_names(tree)
    written = tree.fields.get("plugins")
    versions = {name: str(each.value) for name, each in written.fields.items()} if written else {}
    spared = set() if verb is None else _spared(tree, verb)

    def find_options(kind: str, name: str) -> type[PartOptions] | None:
        if (kind, name) in spared:
            return installed_options_of(kind, name)
        return options_of(kind, name, versions)

    recipe = validated(Recipe, tree, find_options, canonical)
    named = dict(parts(recipe))
    for path, spec in named.items():
        spec.stand_at(Place(dotted(path), tree.places_of(path, "name")))
    return recipe.model_copy(update={"plugins": versions_of(named.values())})


_WHERE = {  # the kinds of parts by where a recipe names them
    ("data", "train"): "datasets",
    ("data", "val"): "datasets",
    ("model", "backbone"): "backbones",
    ("model", "decoder"): "decoders",
    ("pretrain", "masker"): "maskers",
    ("pretrain", "decoder_masker"): "maskers",
    ("pretrain", "target"): "targets",
}


def _spared(tree: Node, verb: str) -> set[tuple[str, str]]:
    """Return the parts (kind, name) that only other verbs build."""
    built: set[tuple[str, str]] = set()
    spared: set[tuple[str, str]] = set()
    for path, kind in _WHERE.items():
        name = tree.at((*path, "name"))
        if name is None:
            continue
        only_pretrain = path[0] == PRETRAIN or kind == "decoders"
        (spared if only_pretrain and verb != PRETRAIN else built).add((kind, str(name.value)))
    return spared - built


def with_set_names(tree: Node) -> Node:
    """Return a recipe whose data sets are named: where none is, a path says what reads it.

    Raises:
        DataError: there is nothing that a data set reads.
        RecipeError: more than one reads it, or the one that is named does not.
    """
    for key in ("train", "val"):
        spec = tree.at(("data", key))
        path = None if spec is None else spec.fields.get("path")
        if spec is None or path is None or not isinstance(path.value, str) or is_split(spec):
            continue
        name = spec.fields.get("name")
        if name is None:
            found = reader_of(path.value, f"data.{key}", str(path.mark))
            named_it = Node({"data": _inside(key, "name", Node(found, path.mark))}, path.mark)
            tree = merge(tree, named_it)
        elif isinstance(name.value, str):
            _refuse_path(name.value, path, f"data.{key}")
    return tree


def _inside(section: str, key: str, node: Node) -> Node:
    return Node({section: Node({key: node}, node.mark)}, node.mark)


def _readers_of(path: str) -> list[str]:
    """Name the installed data sets that read what lies at a path."""
    path = os.path.expanduser(path)  # noqa: PTH111 - as the data sets do
    found = []
    for each in listed("datasets"):
        try:
            part = find("datasets", each.full_name)
        except PartError:  # a plugin that is broken is so for those who name it
            continue
        if part.reads(path):
            found.append(names_of(each)[0])
    return found


def reader_of(path: str, key: str, where: str | None = None) -> str:
    """Return the name of the one data set that reads what lies at a path.

    Args:
        path: a folder or a list.
        key: of the recipe.
        where: of the path, for errors.

    Raises:
        DataError: none does.
        RecipeError: several do.
    """
    found = _readers_of(path)
    if len(found) == 1:
        return found[0]
    if found:
        what = f"{key}.name: missing, and {path} can be read as {' or '.join(found)}"
        raise RecipeError(what, where=where, hint=f"set {key}.name to one of them")
    there = "holds no pictures and no videos" if os.path.exists(path) else "does not exist"  # noqa: PTH110
    what = f"{key}.name: missing, and {path} {there}, which would say what reads it"
    raise DataError(what, where=where, hint=f"check {key}.path, or set {key}.name: images")


def _refuse_path(name: str, path: Node, key: str) -> None:
    """Refuse a path for a data set that takes none: one that is drawn, or downloaded."""
    try:
        takes = options_of("datasets", name).model_fields
    except PartError:
        return  # said with all else that is wrong
    if "path" in takes:
        return
    reader = next(iter(_readers_of(str(path.value))), "images")
    drawn = "draws its own samples" if {"seed", "split"} <= takes.keys() else "reads no path"
    hint = f"{key}.name={reader} {key}.path={shlex.quote(str(path.value))}"
    if key == "data.train":
        hint += "; and 'data.val={split: 0.1}', or ~data.val for none"
    raise RecipeError(f"{key}.path: '{name}' {drawn}", where=str(path.mark), hint=hint)


def _as_in(overlay: Any, merged: Any) -> Any:  # noqa: ANN401
    """Return the overlay's keys with the values that the merged recipe has for them."""
    if isinstance(overlay, dict) and isinstance(merged, dict):
        # What a resolved recipe leaves out stays as it is written.
        return {key: _as_in(value, merged.get(key, value)) for key, value in overlay.items()}
    return merged


Spec = TypeVar("Spec", bound=PartSpec)


def spec_of(
    kind: type[Spec], part: Mapping[str, Any], versions: Mapping[str, str] | None = None
) -> Spec:
    """Return a part's spec, with typed options, from its flat mapping.

    Args:
        kind: of spec.
        part: its name and options.
        versions: as ``entry`` takes them.

    Raises:
        PartError: as ``find``.
        RecipeError: an option is wrong.
    """
    here = tree(dict(part), Mark(f"{kind.kind[:-1]} {part.get('name')}"))

    def find_options(plural: str, name: str) -> type[PartOptions]:
        return options_of(plural, name, versions)

    return validated(kind, here, find_options, canonical)


def typed(spec: Spec, versions: Mapping[str, str] | None = None) -> Spec:
    """Return a part's spec with typed options and the name that means it everywhere.

    Args:
        spec: it may have been read where the part was not installed.
        versions: as ``entry`` takes them.

    Raises:
        PartError: as ``find``.
        RecipeError: an option is wrong.
    """
    if not isinstance(spec.options, Untyped) and spec.name == canonical(spec.kind, spec.name):
        return spec
    made = spec_of(type(spec), spec.written, versions)
    made.stand_at(spec.place)
    return made


def build(spec: PartSpec, context: PartContext | None = None) -> Any:  # noqa: ANN401
    """Build a part as ``Class(options)``, or ``Class(options, context)`` if it takes both.

    Raises:
        PartError: as ``find``, or the part needs a context and there is none.
        RecipeError: an option is wrong.
    """
    part, origin = find(spec.kind, spec.name), origin_of_spec(spec)
    spec = typed(spec)
    with naming(origin):
        if not takes_context(part):
            built = part(spec.options)
        elif context is None:
            raise origin.error("can only be built for a model: it needs a context")
        else:
            built = part(spec.options, context)
    remember(built, origin)
    return built


def origin_of_spec(spec: PartSpec) -> Origin:
    """Return where the part comes from that a recipe names.

    Raises:
        PartError: there is none, or two plugins share the bare name.
    """
    return origin_of_entry(entry(spec.kind, spec.name), spec.place)


def origin_of_entry(found: Entry, place: Place | None = None) -> Origin:
    """Return where an installed part comes from."""
    kind = found.kind[:-1]
    return Origin(kind, found.name, found.distribution, found.version, place or Place())


def takes_context(part: type[Any]) -> bool:
    """Tell whether a part is built as ``Class(options, context)``."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        parameter
        for parameter in inspect.signature(part).parameters.values()
        if parameter.kind in positional
    ]
    return len(needed) > 1
