"""Commands that make pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maekit.cli.options import Device, Json, Quiet, Verbose, finish


def add_to(app: typer.Typer) -> None:
    """Declare the commands that make pictures."""
    app.command()(reconstruct)


def reconstruct(  # noqa: PLR0917 - each is an option of the command line
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, videos, folders, quoted patterns."),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE|hf:FOLDER",
            help="Weights; default: the newest run below ./runs, else the demo weights.",
        ),
    ] = None,
    masker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:RATIO]",
            help="What is hidden, as tube:0.9 or block:ratio=0.6; default: as in training.",
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(metavar="R[,R...]", help="Hidden fractions; a row of the sheet for each."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A mask of your own: a picture, white where to hide."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the masks: same seed, same mask.")] = 0,
    like_training: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="The masks of a training step of the run, from 1 on."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Predict every patch, with complementary masks.")
    ] = False,
    native: Annotated[
        bool,
        typer.Option("--native", help="Keep each input's size, with resized positions."),
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Show where the encoder looks, too.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New or empty folder; default: maekit-out/<n>."),
    ] = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a model makes of pictures and videos that it sees a part of.

    Example: maekit reconstruct photo.jpg clips/ --ratio 0.5,0.75,0.9
    """

    def body() -> int:
        from maekit.cli.reconstruct import Hidden
        from maekit.cli.reconstruct import reconstruct as work

        return work(
            inputs,
            source=source,
            hidden=Hidden(masker, ratio, mask, seed, like_training, whole),
            native=native,
            attention=attention,
            out=out,
            device=device,
            json=json,
            quiet=quiet,
            verbose=verbose,
        )

    finish(body, verbose=verbose)
