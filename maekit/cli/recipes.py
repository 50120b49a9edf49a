"""``maekit recipes`` and ``maekit plugins``: list, show, copy, validate, JSON Schema."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.cli.output import as_json, print_json, print_table, say, writing
from maekit.errors import MaekitError, PartError, RecipeError
from maekit.recipe.dump import dump, to_yaml
from maekit.recipe.explain import suggest, validated
from maekit.recipe.json_schema import PartSchema, json_schema
from maekit.recipe.load import find, read, read_file, read_tree, shipped
from maekit.recipe.schema import VERBS, Recipe
from maekit.registry import KINDS, listed, names_of, options_of, resolve, with_set_names

if TYPE_CHECKING:
    from collections.abc import Sequence


def list_recipes(*, json: bool) -> int:
    """Print the recipes that maekit ships."""
    rows = []
    for name, path in shipped().items():
        tree = read_tree(path)
        verbs = [verb for verb in (*VERBS, "ablate") if verb in tree.fields]
        rows.append({"name": name, "verbs": verbs, "about": _about(path), "file": str(path)})
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
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


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
    """Copy a recipe, comments and all, and print where to."""
    path = find(recipe)
    target = Path(path.name) if destination is None else destination
    if target.is_dir():
        target /= path.name
    try:
        content = path.read_bytes()
        with writing(target), target.open("wb" if overwrite else "xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise RecipeError(
            "this file exists already", where=str(target), hint="another name, or --overwrite"
        ) from error
    say(str(target))
    return 0


def validate(sources: Sequence[str], *, json: bool) -> int:
    """Check recipes, count their models' parameters; return the first failure's code, or 0."""
    code = 0
    results: list[dict[str, Any]] = []
    for source in sources:
        try:
            lines = _describe(source)
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


def _describe(source: str) -> list[str]:
    loaded = read(source)
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
            options = options_of(each.kind, each.full_name)
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
    entries = listed(None if kind is None else _kind(kind))
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


def _kind(word: str) -> str:
    plural = word if word.endswith("s") else f"{word}s"
    if plural not in KINDS:
        raise PartError(
            f"--kind {word}: no such kind of part",
            where="command line",
            hint=suggest(plural, KINDS) or f"one of {', '.join(KINDS)}",
        )
    return plural
