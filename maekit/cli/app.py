"""The command line as declared: names, options and help. Work is imported inside the bodies, so
that ``maekit --help`` costs no more than Typer itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = typer.Typer(
    name="maekit",
    help="Masked-autoencoder pre-training of images (MAE) and videos (VideoMAE).",
    epilog="Start with: maekit pretrain quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
recipes = typer.Typer(help="Recipes: list, show, copy, check.", no_args_is_help=True)
plugins = typer.Typer(help="Parts that recipes can name.", no_args_is_help=True)
app.add_typer(recipes, name="recipes")
app.add_typer(plugins, name="plugins")

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDES",
        help="KEY=VALUE sets a key (pretrain.epochs=10), ~KEY removes one.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line (by default that of the process) and exit with its code."""
    # Torch's threads wait for each other by spinning, which costs up to eight times the work where
    # anything else wants a core (loader workers do); set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app(args=None if argv is None else list(argv), prog_name="maekit")


def _exit(body: Callable[[], int], *, verbose: bool = False) -> None:
    from maekit.cli.exits import run

    raise typer.Exit(run(body, verbose=verbose))


def _version(wanted: bool) -> None:
    if wanted:
        from maekit import __version__

        typer.echo(f"maekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def pretrain(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder; default: runs/<recipe>/<n>."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest good checkpoint, else start.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Move an earlier run in DIR away first.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN|FILE", help="Start from these weights."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build, take one small step, print sizes; write nothing."),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed; overrides the recipe's.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda|cuda:N|mps", help="Default: the best there is.")
    ] = None,
    json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")
    ] = False,
) -> None:
    """Pre-train a masked autoencoder as a recipe says.

    Example: maekit pretrain quickstart pretrain.epochs=10 --out runs/mine
    """

    def body() -> int:
        from maekit.cli.pretrain import pretrain as work

        return work(
            recipe,
            overrides or [],
            out=out,
            resume=resume,
            overwrite=overwrite,
            source=source,
            dry_run=dry_run,
            seed=seed,
            device=device,
            json=json,
            quiet=quiet,
            verbose=verbose,
        )

    _exit(body, verbose=verbose)


@recipes.command("list")
def recipes_list(json: Json = False) -> None:
    """List the recipes that maekit ships."""

    def body() -> int:
        from maekit.cli.recipes import list_recipes

        return list_recipes(json=json)

    _exit(body)


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

    _exit(body)


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

    _exit(body)


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

    _exit(body)


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

    _exit(body)


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

    _exit(body)
