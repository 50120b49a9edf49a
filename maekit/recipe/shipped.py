"""Recipes that come with maekit, and with the distributions that extend it, by name.

A distribution declares a folder of recipes under the entry-point group ``maekit.recipes``, as
``package:folder``, a folder inside one of its packages. They are named ``distribution/recipe``
everywhere, so that installing it never changes what another recipe means.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maekit.installed import OURS, declared, normal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint


class Shipped(NamedTuple):
    """A recipe that something installed brings along."""

    name: str  # as the command line, `extends` and `ablate.base` take it
    distribution: str
    path: Path


def shipped_folder() -> Path:
    """Return where maekit's own recipes lie: inside the package in a wheel, else next to it."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    folder = package / "recipes"
    if not folder.is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "recipes"
    return folder


@functools.cache
def shipped() -> dict[str, Path]:
    """List the recipes that maekit ships, name to file; those of subfolders, ``a/x``, come last."""
    return _inside(shipped_folder())


def from_plugins() -> tuple[Mapping[str, Shipped], tuple[str, ...]]:
    """Return the recipes of other distributions by name, and what is wrong with declarations.

    Nothing of the distributions is imported.
    """
    # Keyed by sys.path, so that a distribution that becomes visible later is seen.
    return _from_plugins(tuple(sys.path))


def named(name: str) -> Path | None:
    """Return the file of a recipe's name, of maekit or ``distribution/recipe``; None: of none."""
    own = shipped().get(name)
    if own is not None:
        return own
    distribution, slash, recipe = name.partition("/")
    if not slash:
        return None
    found = from_plugins()[0].get(f"{normal(distribution)}/{recipe}")
    return None if found is None else found.path


def names() -> list[str]:
    """Return the names of all installed recipes, maekit's own first."""
    return [*shipped(), *from_plugins()[0]]


def _inside(folder: Path) -> dict[str, Path]:
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml")))
    }


@functools.lru_cache(maxsize=4)
def _from_plugins(
    search_path: tuple[str, ...],  # noqa: ARG001 - decides which are found
) -> tuple[Mapping[str, Shipped], tuple[str, ...]]:
    found: dict[str, Shipped] = {}
    problems = []
    declarations = sorted(declared(("recipes",)), key=lambda each: each[1:3])
    for _, distribution, version, point in declarations:
        if distribution == OURS:
            continue
        folder = _folder(point)
        recipes = {} if folder is None else _inside(folder)
        if not recipes:
            what = f"recipes of {distribution} {version}: there are none in {point.value}"
            problems.append(f"{what} (package:folder, a folder of .yaml files in the package)")
        for recipe, path in recipes.items():
            name = f"{distribution}/{recipe}"
            found[name] = Shipped(name, distribution, path)
    return found, tuple(problems)


def _folder(point: EntryPoint) -> Path | None:
    """Return the folder that ``package:folder`` means, or None where there is none."""
    package, _, folder = point.value.partition(":")
    top, *below = package.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a top-level package: it imports nothing
    except (ImportError, ValueError):
        return None
    for place in (None if spec is None else spec.submodule_search_locations) or ():
        path = Path(place, *below, folder)
        if folder and path.is_dir():
            return path
    return None
