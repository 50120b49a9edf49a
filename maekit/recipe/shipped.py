"""Where recipes come from: a path on disk, or the name of one that maekit ships."""

from __future__ import annotations

import functools
from pathlib import Path

from maekit.errors import RecipeError
from maekit.recipe.suggest import suggest

SUFFIXES = (".yaml", ".yml")


@functools.cache
def shipped() -> dict[str, Path]:
    """The recipes that maekit ships, name to file; ``ablations/x`` for one in a subfolder.

    They lie inside the package in a wheel, and beside it in a checkout.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    folder = package / "recipes"
    if not folder.is_dir() and (checkout / "pyproject.toml").is_file():
        folder = checkout / "recipes"
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in sorted(folder.rglob("*.yaml"))
    }


def find(source: str | Path) -> Path:
    """The file of a recipe: a path that exists, else a shipped one by name or by path.

    Raises:
        RecipeError: there is no such file, or it is a folder.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    named = shipped().get(_name(path))
    if named is not None:
        return named
    if path.is_dir():
        inside = path / "recipe.yaml"
        hint = f"{inside}" if inside.is_file() else "name a .yaml file in it"
        raise RecipeError("this is a folder, not a recipe", where=str(source), hint=hint)
    if path.exists():
        raise RecipeError(
            "not a regular file", where=str(source), hint="save the recipe to a .yaml file"
        )
    raise RecipeError("no such recipe", where=str(source), hint=_advice(path))


def find_parent(child: Path, parent: str) -> Path | None:
    """The file that ``extends: parent`` in ``child`` means: beside it, else a shipped one.

    The second lets a copy of a shipped recipe keep its parent.
    """
    beside = child.parent / Path(parent).expanduser()
    return beside if beside.is_file() else shipped().get(_name(Path(parent)))


def _name(path: Path) -> str:
    name = path.as_posix().removeprefix("./").removeprefix("recipes/")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _advice(path: Path) -> str:
    if path.parent.is_dir():
        beside = [file.name for file in path.parent.iterdir() if file.suffix in SUFFIXES]
        near = suggest(path.name, beside)
        if near:
            return near
    listing = "`maekit recipes list` shows what is shipped"
    near = suggest(_name(path), shipped())
    return f"{near} {listing}" if near else listing
