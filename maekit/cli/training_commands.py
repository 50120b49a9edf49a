"""Commands that train."""

from __future__ import annotations

from typing import Annotated

import typer

from maekit.cli.options import (
    Device,
    DryRun,
    Json,
    OverridesArgument,
    Overwrite,
    Quiet,
    RecipeArgument,
    Resume,
    RunFolderOption,
    Seed,
    Verbose,
    finish,
)


def add_to(app: typer.Typer) -> None:
    """Declare the training commands."""
    app.command()(pretrain)


def pretrain(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN|FILE", help="Start from these weights."),
    ] = None,
    dry_run: DryRun = False,
    seed: Seed = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
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

    finish(body, verbose=verbose)
