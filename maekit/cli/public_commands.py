"""``maekit weights list`` and ``maekit weights get``: the papers' public weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maekit.cli.options import Json, finish


def add_to(group: typer.Typer) -> None:
    """Declare both commands in the group ``weights``."""
    group.command("list")(weights_list)
    group.command("get")(weights_get)


def weights_list(json: Json = False) -> None:
    """List the weights that the papers' authors published; opens no connection."""

    def body() -> int:
        from maekit.cli.weights_public import list_public

        return list_public(json=json)

    finish(body)


def weights_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `maekit weights list`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the license.")] = False,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Fetch it from here instead (a copy)."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder; default: here.")
    ] = Path(),
    json: Json = False,
) -> None:
    """Download public weights from their authors, after their license was agreed to.

    Example: maekit weights get mae_pretrain_vit_base_full --out weights
    """

    def body() -> int:
        from maekit.cli.weights_public import get

        return get(name, yes=yes, url=url, out=out, json=json)

    finish(body)
