"""``maekit plugins``: its commands' options and help."""

from pathlib import Path
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


@plugins.command("check")
@runs("check_plugins:check")
def plugins_check(
    what: Annotated[
        str,
        typer.Argument(metavar="DIST|NAME", help="A distribution, or a part as recipes name it."),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Options of the part; of a distribution with several, NAME.KEY=VALUE.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Where parts of several kinds have the name."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMISE", help="Leave a promise out; may be given several times."),
    ] = None,
    json: Json = False,
) -> None:
    """Check which promises of the contract a part keeps; needs no data and no GPU.

    Example: maekit plugins check random ratio=0.6
    """


@plugins.command("new")
@runs("new_plugin:new")
def plugins_new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="masker, target, backbone, decoder or dataset.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As recipes will name it.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder; default: maekit-NAME.")
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="A target whose network is read from a file.")
    ] = False,
    fitted: Annotated[
        bool, typer.Option("--fitted", help="A target that is fitted to the first batches.")
    ] = False,
) -> None:
    """Write a distribution with one part that installs, passes its tests, and trains, as it is.

    Example: maekit plugins new masker stripes
    """
