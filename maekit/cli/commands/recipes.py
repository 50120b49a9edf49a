"""``maekit recipes``: its commands' options and help."""

from pathlib import Path
from typing import Annotated

import typer

from maekit.cli.declare import runs
from maekit.cli.options import Json, OverridesArgument, RecipeArgument

recipes = typer.Typer(help="Recipes: list, show, copy, write, check.", no_args_is_help=True)


@recipes.command("list")
@runs("recipes:list_recipes")
def recipes_list(json: Json = False) -> None:
    """List the recipes that maekit ships, and those of installed plugins."""


@recipes.command("show")
@runs("recipes:show")
def recipes_show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With every default, and absolute paths.")
    ] = False,
) -> None:
    """Print a recipe, with overrides if any."""


@recipes.command("copy")
@runs("recipes:copy")
def recipes_copy(
    recipe: RecipeArgument,
    destination: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="File or folder; default: here.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Copy a recipe to change it."""


@recipes.command("new")
@runs("new_recipe:new")
def recipes_new(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Pictures or videos: a folder, or a list.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: <folder's name>.yaml here."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Look at data, and write a short recipe that is sized for it.

    Example: maekit recipes new my/photos --out mine.yaml
    """


@recipes.command("validate")
@runs("recipes:validate")
def recipes_validate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE", help="Recipe files or names; KEY=VALUE sets a key of all of them."
        ),
    ],
    json: Json = False,
) -> None:
    """Check recipes and count their models' parameters; needs no data."""


@recipes.command("schema")
@runs("recipes:schema")
def recipes_schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file instead of stdout.")
    ] = None,
) -> None:
    """Print a JSON Schema of recipes, with all installed parts' options, for editors."""
