"""Every shipped recipe, as it is resolved, against the numbers of its source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sources import DEPARTURES, OWN, SOURCES, UNSOURCED

from maekit.recipe.dump import as_dict
from maekit.recipe.load import load
from maekit.recipe.shipped import shipped
from maekit.registry import resolve

SECTIONS = ("model", "pretrain", "finetune", "probe", "tokenizer")
# Keys that say how a run goes on here, or where files lie: no source has them.
OF_RUNS = (
    "precision", "compile", "checkpoint", "validate", "pictures", "online_probe", "max_nonfinite",
    "activation_checkpointing", "sharding", "path", "published", "root", "weights",
)  # fmt: skip


def flat(tree: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree by their dotted keys; statistics and lists are leaves."""
    for key, value in tree.items():
        name = f"{start}{key}"
        if isinstance(value, Mapping) and name != "data.stats":
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def resolved(name: str) -> dict[str, Any]:
    """Return what ``recipes show NAME --resolved`` prints, by dotted keys."""
    tree = as_dict(resolve(load(name)))
    return dict(flat(tree))


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) or isinstance(theirs, float):
        numbers = isinstance(ours, (int, float)) and isinstance(theirs, (int, float))
        return numbers and math.isclose(ours, theirs, rel_tol=1e-9)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_has_its_sources_numbers_but_where_it_says_so(name: str) -> None:
    ours, departures = resolved(name), DEPARTURES.get(name, {})
    apart = {
        key: (ours.get(key), theirs)
        for key, theirs in SOURCES[name].items()
        if not same(ours.get(key), theirs)
    }
    said = {key: (own, SOURCES[name][key]) for key, (own, _) in departures.items()}
    assert apart == said


@pytest.mark.parametrize("name", DEPARTURES)
def test_a_departure_is_said_in_the_recipes_comments(name: str) -> None:
    comments = comments_of(name)
    for key, (_, word) in DEPARTURES[name].items():
        assert word in comments, f"{name} does not say why {key} differs"


def comments_of(name: str) -> str:
    """Return the texts of a recipe's file and of those that it extends."""
    text, found = shipped()[name].read_text(encoding="utf-8"), ""
    while True:
        found += text
        parent = next((line for line in text.splitlines() if line.startswith("extends:")), None)
        if parent is None:
            return found
        file = Path(parent.partition(":")[2].strip()).stem
        text = shipped()[file].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SOURCES)
def test_every_number_that_a_recipe_writes_is_in_its_table(name: str) -> None:
    """A number that a recipe sets and its table does not know would be held to nothing."""
    written = dict(flat(load(name).data))
    unknown = {
        key
        for key in written
        if key.partition(".")[0] in SECTIONS
        and key not in SOURCES[name]
        and not set(key.split(".")) & set(OF_RUNS)
    }
    ours = UNSOURCED.get(name, {})
    assert unknown == ours.keys()
    comments = comments_of(name)
    for key, word in ours.items():
        assert word in comments, f"{name} does not say that {key} is of no source"


def test_every_shipped_recipe_has_a_source_or_is_ours() -> None:
    alone = {name for name in shipped() if "/" not in name}
    assert alone == SOURCES.keys() | set(OWN)
    assert not SOURCES.keys() & set(OWN)
    assert DEPARTURES.keys() <= SOURCES.keys()
