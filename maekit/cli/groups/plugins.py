"""``maekit plugins``: its commands' options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from maekit.cli.declare import runs
from maekit.cli.options import Json

plugins = typer.Typer(help="Parts that recipes can name.", no_args_is_help=True)


@plugins.command("list")
@runs("recipes:list_parts")
def plugins_list(
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="maskers, targets, backbones, decoders or datasets."),
    ] = None,
    json: Json = False,
) -> None:
    """List the installed parts, built-in and from plugins, without importing them."""


@plugins.command("show")
@runs("recipes:show_part")
def plugins_show(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="masker, target, backbone, decoder or dataset.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As a recipe names it.")],
    json: Json = False,
) -> None:
    """Show a part's options, with their defaults and what they mean.

    Example: maekit plugins show masker block
    """
