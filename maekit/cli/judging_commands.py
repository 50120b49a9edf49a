"""Commands that judge a representation, or hand it out."""

from __future__ import annotations

from pathlib import Path
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
    Resume,
    RunFolderOption,
    Seed,
    Verbose,
    WeightsOption,
    finish,
)


def add_to(app: typer.Typer) -> None:
    """Declare the judging commands."""
    app.command()(probe)
    app.command()(embed)


def probe(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    kind: Annotated[
        Literal["linear", "knn", "attentive"] | None,
        typer.Option("--kind", help="Overrides probe.kind."),
    ] = None,
    source: WeightsOption = None,
    out: RunFolderOption = None,
    resume: Resume = False,
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

    Cached features are kept until the result is written: --resume makes only
    the missing ones, then fits the judges anew. All are held in memory;
    --dry-run says how much that is.

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
            resume=resume,
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


def embed(  # noqa: PLR0917 - each is an option of the command line
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Images, videos, folders, quoted patterns, lists of paths."
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE|timm:NAME|hf:FOLDER",
            help="Weights; default: the newest run below ./runs, else the demo weights.",
        ),
    ] = None,
    pool: Annotated[
        Literal["cls", "mean", "tokens"] | None,
        typer.Option(
            help="Class token, mean over patches, or all patch tokens, of what --layer says; "
            "default: cls, or mean where there is no class token."
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(help="Block whose output is taken, from 1; default: after the last norm."),
    ] = None,
    form: Annotated[
        Literal["npz", "safetensors", "parquet"] | None,
        typer.Option("--format", help="Default: as the suffix of --out, else npz."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: embeddings.<format>."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Inputs encoded at once.")] = 32,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Loader processes; default: as in training.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it is there.")
    ] = False,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn images and videos into features; go on where an interrupted call ended.

    Example: maekit embed photos/ --from runs/mine/1 --pool mean --out photos.npz
    """

    def body() -> int:
        from maekit.cli.embed import Wanted, embed_files

        return embed_files(
            inputs,
            Wanted(pool, layer, form, out, batch, workers, overwrite),
            source=source,
            device=device,
            json=json,
            quiet=quiet,
            verbose=verbose,
        )

    finish(body, verbose=verbose)
