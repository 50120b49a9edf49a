"""``maekit recipes`` and ``maekit plugins``: list, show, copy, validate, JSON Schema."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.cli.output import as_json, print_json, print_table, say, writing
from maekit.errors import MaekitError, PartError, RecipeError
from maekit.installed import OURS
from maekit.origin import naming
from maekit.recipe.dump import dump, to_yaml
from maekit.recipe.explain import suggest, validated
from maekit.recipe.json_schema import PartSchema, json_schema
from maekit.recipe.load import find, read, read_file, read_tree
from maekit.recipe.merge import CORE_OWNED
from maekit.recipe.naming import name_for, renamed
from maekit.recipe.schema import VERBS, Recipe
from maekit.recipe.shipped import Shipped, from_plugins, shipped
from maekit.registry import (
    KINDS,
    listed,
    names_of,
    options_of,
    origin_of_entry,
    resolve,
    with_set_names,
)
from maekit.registry import entry as find_entry
from maekit.registry import find as find_part

if TYPE_CHECKING:
    from collections.abc import Sequence


def list_recipes(*, json: bool) -> int:
    """Print the recipes that maekit ships, then those of other distributions."""
    plugins, problems = from_plugins()
    installed = [Shipped(name, OURS, path) for name, path in shipped().items()]
    rows = []
    for name, distribution, path in (*installed, *plugins.values()):
        try:
            tree = read_tree(path)
        except RecipeError as error:  # a plugin's, which takes no other recipe away
            problems = (*problems, f"{name}: {error}")
            continue
        verbs = [verb for verb in (*VERBS, "ablate") if verb in tree.fields]
        about = {"name": name, "verbs": verbs, "about": _about(path), "file": str(path)}
        rows.append({**about, "distribution": distribution})
    for problem in problems:
        say(f"note: left out: {problem}", err=True)
    if json:
        print_json(rows)
    else:
        print_table(
            ("recipe", "verbs", "about"),
            [(str(row["name"]), " ".join(row["verbs"]), str(row["about"])) for row in rows],
        )
    return 0


def _about(path: Path) -> str:
    """Return the first sentence of the comment that a recipe starts with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    words = [line.lstrip("#").strip() for line in comment if "yaml-language-server" not in line]
    return _SENTENCE.split(" ".join(words), maxsplit=1)[0]


# What ends a sentence, and is followed by the next: no number, file name or "e.g.".
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|(?<=\)\.)\s+")


def show(recipe: str, overrides: list[str] | None, resolved: bool) -> int:
    """Print a recipe: as written, merged with its parents and overrides, or resolved."""
    loaded = read(recipe, overrides or [])
    if not resolved:
        validated(Recipe, with_set_names(loaded.tree))
    for note in loaded.notes:
        say(f"note: {note}", err=True)
    if resolved:
        text = dump(resolve(loaded))
    elif overrides or "extends" in read_file(loaded.path).fields:
        text = to_yaml(loaded.data)
    else:
        text = loaded.path.read_text(encoding="utf-8-sig")
    say(text, nl=not text.endswith("\n"))
    return 0


def copy(recipe: str, destination: Path | None, overwrite: bool) -> int:
    """Copy a recipe, comments and all, under the name of its file, and print where to."""
    path = find(recipe)
    target = Path(path.name) if destination is None else destination
    if target.is_dir():
        target /= path.name
    read_file(path)  # raises where it is no recipe
    try:
        text = renamed(path.read_text(encoding="utf-8-sig"), name_for(target))
        with writing(target), target.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(
            "this file exists already", where=str(target), hint="another name, or --overwrite"
        ) from error
    say(str(target))
    return 0


def validate(sources: Sequence[str], *, json: bool) -> int:
    """Check recipes, count their models' parameters; return the first failure's code, or 0.

    Args:
        sources: recipes, and overrides of all of them.
        json: print what was found for programs.
    """
    overrides = [word for word in sources if _is_override(word)]
    sources = [word for word in sources if word not in overrides]
    if not sources:
        msg, hint = "no recipe is named", "name one before the overrides: quickstart data.size=64"
        raise RecipeError(msg, where="command line", hint=hint)
    code = 0
    results: list[dict[str, Any]] = []
    for source in sources:
        try:
            lines = _describe(source, overrides)
        except MaekitError as error:
            code = code or error.exit_code
            results.append({"recipe": source, "valid": False, "error": str(error)})
            say(f"error: {error}", err=True)
            continue
        results.append({"recipe": source, "valid": True, "model": lines})
        if not json:
            say("\n".join([f"{source}: valid", *(f"  {line}" for line in lines)]))
    if json:
        print_json(results)
    return code


def _is_override(word: str) -> bool:
    """Return whether a word sets or removes a key, and is no file's name."""
    return (word.startswith("~") or "=" in word) and not Path(word).exists()


def _describe(source: str, overrides: Sequence[str]) -> list[str]:
    loaded = read(source, overrides)
    recipe = resolve(loaded)
    lines: list[str] = []
    if recipe.tokenizer is not None:
        from maekit.tokenizer.train import describe as describe_dvae

        lines += describe_dvae(resolve(loaded, "tokenizer"))
    if recipe.pretrain is not None:
        from maekit.engine.build import describe

        lines += describe(resolve(loaded, "pretrain")).lines()
    if recipe.finetune is not None:
        from maekit.evaluate.supervision import describe as describe_classifier

        lines += describe_classifier(resolve(loaded, "finetune"))
    if recipe.ablate is not None:
        from maekit.ablate.plan import describe as describe_sweep

        lines += describe_sweep(recipe)
    return lines


def schema(out: Path | None) -> int:
    """Print (or write) the JSON Schema of recipes with the installed plugins' options."""
    found = []
    for each in listed():
        try:
            with naming(origin_of_entry(each)):
                options = options_of(each.kind, each.full_name)
                options.model_json_schema(by_alias=True)  # a type of its own may have none
        except PartError as error:
            # One broken plugin must not take the editor's help for all others away.
            say(f"note: left out: {error}", err=True)
            continue
        found.append(PartSchema(each.kind, names_of(each), options))
    value = json_schema(found)
    if out is None:
        print_json(value)
    else:
        with writing(out):
            out.write_text(as_json(value), encoding="utf-8")
        say(str(out))
    return 0


def list_parts(kind: str | None, *, json: bool) -> int:
    """Print the installed parts, read from metadata alone."""
    entries = listed(None if kind is None else kind_of(kind))
    if json:
        print_json(
            [
                {
                    "kind": entry.kind,
                    "name": entry.name,
                    "use_as": names_of(entry)[0],
                    "distribution": entry.distribution,
                    "version": entry.version,
                    "class": entry.value,
                }
                for entry in entries
            ]
        )
        return 0
    print_table(
        ("kind", "name in a recipe", "distribution", "version", "class"),
        [
            (entry.kind, names_of(entry)[0], entry.distribution, entry.version, entry.value)
            for entry in entries
        ],
    )
    return 0


def show_part(kind: str, name: str, *, json: bool) -> int:
    """Print a part's options, with defaults and descriptions."""
    plural = kind_of(kind, "KIND")
    options, found = options_of(plural, name), find_entry(plural, name)
    schema = options.model_json_schema(by_alias=True)
    described = schema.get("properties", {})
    rows = []
    for key, field in options.model_fields.items():
        about = described.get(field.alias or key, {})
        default = "required" if field.is_required() else _as_written(about.get("default"))
        rows.append((field.alias or key, default, _type(about), str(about.get("description", ""))))
    if json:
        print_json({"kind": plural, "name": names_of(found)[0], "options": schema})
        return 0
    say(f"{found}: {_about_part(plural, name)}")
    if plural == "datasets":
        core = ", ".join(sorted(CORE_OWNED))
        say(f"beside its options, as every data set: {core}")
    if not rows:
        say("it has no options")
        return 0
    print_table(("option", "default", "values", "meaning"), rows)
    return 0


def _about_part(kind: str, name: str) -> str:
    return (find_part(kind, name).__doc__ or "").strip().partition("\n")[0]


def _as_written(value: object) -> str:
    return "null" if value is None else to_yaml({"value": value}).partition(":")[2].strip()


def _type(about: dict[str, Any]) -> str:
    """Return what an option may be, from its JSON Schema, in few words."""
    if "enum" in about:
        return " | ".join(map(str, about["enum"]))
    if "const" in about:
        return str(about["const"])
    if "anyOf" in about:
        return " | ".join(dict.fromkeys(_type(each) for each in about["anyOf"]))
    kind = str(about.get("type", "mapping"))
    if kind == "array":
        inner: dict[str, Any] = about.get("items") or next(iter(about.get("prefixItems", [])), {})
        return f"list of {_type(inner)}"
    limits = [
        f"{sign} {about[key]:g}"
        for key, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if key in about
    ]
    return " ".join([_WORDS.get(kind, kind), *limits])


_WORDS = {
    "string": "text",
    "boolean": "true | false",
    "integer": "whole number",
    "object": "mapping",
}


def kind_of(word: str, where: str = "--kind") -> str:
    """Return a kind's name in the plural, given in either number; raise PartError for none."""
    plural = word if word.endswith("s") else f"{word}s"
    if plural not in KINDS:
        raise PartError(
            f"{where} {word}: no such kind of part",
            where="command line",
            hint=suggest(plural, KINDS) or f"one of {', '.join(KINDS)}",
        )
    return plural
