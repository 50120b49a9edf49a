"""``maekit plugins``: the installed parts."""

from __future__ import annotations

from maekit.cli.output import print_json, print_table
from maekit.errors import PartError
from maekit.recipe.explain import suggest
from maekit.registry import KINDS, listed, names_of


def list_plugins(kind: str | None, *, json: bool) -> int:
    """Print the installed parts, read from metadata alone; returns the exit code."""
    if kind is not None:
        kind = _kind(kind)
    entries = listed(kind)
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
