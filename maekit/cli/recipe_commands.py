"""The command groups ``recipes`` and ``plugins``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maekit.cli.options import Json, OverridesArgument, RecipeArgument, finish

recipes = typer.Typer(help="Recipes: list, show, copy, check.", no_args_is_help=True)
plugins = typer.Typer(help="Parts that recipes can name.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Declare both groups."""
    app.add_typer(recipes, name="recipes")
    app.add_typer(plugins, name="plugins")


@recipes.command("list")
def recipes_list(json: Json = False) -> None:
    """List the recipes that maekit ships."""

    def body() -> int:
        from maekit.cli.recipes import list_recipes

        return list_recipes(json=json)

    finish(body)


@recipes.command("show")
def recipes_show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With every default, and absolute paths.")
    ] = False,
) -> None:
    """Print a recipe, with overrides if any."""

    def body() -> int:
        from maekit.cli.recipes import show

        return show(recipe, overrides or [], resolved=resolved)

    finish(body)


@recipes.command("copy")
def recipes_copy(
    recipe: RecipeArgument,
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", help="File or folder; default: here.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Copy a recipe to change it."""

    def body() -> int:
        from maekit.cli.recipes import copy

        return copy(recipe, destination, overwrite=overwrite)

    finish(body)


@recipes.command("validate")
def recipes_validate(
    sources: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="Recipe files or names.")
    ],
    json: Json = False,
) -> None:
    """Check recipes and count their models' parameters; needs no data."""

    def body() -> int:
        from maekit.cli.recipes import validate

        return validate(sources, json=json)

    finish(body)


@recipes.command("schema")
def recipes_schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file instead of stdout.")
    ] = None,
) -> None:
    """Print a JSON Schema of recipes, with all installed parts' options, for editors."""

    def body() -> int:
        from maekit.cli.recipes import schema

        return schema(out)

    finish(body)


@plugins.command("list")
def plugins_list(
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="maskers, targets, backbones, decoders or datasets."),
    ] = None,
    json: Json = False,
) -> None:
    """List the installed parts, built-in and from plugins, without importing them."""

    def body() -> int:
        from maekit.cli.plugins import list_plugins

        return list_plugins(kind, json=json)

    finish(body)
