"""Commands that judge a representation, or hand it out."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from maekit.cli.options import (
    CompareExpected,
    Device,
    DryRun,
    Json,
    OverridesArgument,
    Overwrite,
    Quiet,
    RecipeArgument,
    RunFolderOption,
    Seed,
    Verbose,
    WeightsOption,
    finish,
)


def add_to(app: typer.Typer) -> None:
    """Declare the judging commands."""
    app.command()(probe)


def probe(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    kind: Annotated[
        Literal["linear", "knn", "attentive"] | None,
        typer.Option("--kind", help="Overrides probe.kind."),
    ] = None,
    source: WeightsOption = None,
    out: RunFolderOption = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    compare_expected: CompareExpected = False,
    seed: Seed = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge frozen features on labels, beside an untrained encoder and raw pixels.

    Example: maekit probe tiny_images --kind knn --from runs/tiny_images/1
    """

    def body() -> int:
        from maekit.cli.probe import probe as work

        return work(
            recipe,
            overrides or [],
            kind=kind,
            source=source,
            out=out,
            overwrite=overwrite,
            dry_run=dry_run,
            compare_expected=compare_expected,
            seed=seed,
            device=device,
            json=json,
            quiet=quiet,
            verbose=verbose,
        )

    finish(body, verbose=verbose)
