"""The command group ``weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maekit.cli import public_commands
from maekit.cli.options import Json, finish

weights = typer.Typer(help="Weights: convert, inspect, list, get.", no_args_is_help=True)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="A run, a weights file of maekit or of others, hf:FOLDER or timm:NAME.",
    ),
]


Destination = Annotated[
    Path, typer.Argument(metavar="DST", help="The file (hf: the folder) to write.")
]
To = Annotated[
    Literal["maekit", "mae", "videomae", "timm", "hf", "onnx"],
    typer.Option("--to", help="Whose code is to load it; hf: transformers; onnx: the encoder."),
]
AllowMissing = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Keys that may be missing, or dropped, as 'head.*'; may be given several times.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="pixel|norm-pixel", help="What the decoder predicts, where SRC does not say."
    ),
]
Heads = Annotated[int | None, typer.Option(min=1, help="Attention heads, where SRC does not say.")]
DecoderHeads = Annotated[int | None, typer.Option(min=1, help="The decoder's, likewise.")]
Clip = Annotated[
    str | None,
    typer.Option(metavar="TxHxW", help="Frames and pixels, where SRC does not say."),
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace DST.")]


def add_to(app: typer.Typer) -> None:
    """Declare the group."""
    public_commands.add_to(weights)
    app.add_typer(weights, name="weights")


@weights.command("convert")
def convert(  # noqa: PLR0917 - each is an option of the command line
    source: Source,
    destination: Destination,
    to: To,
    allow_missing: AllowMissing = None,
    target: Target = None,
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    clip: Clip = None,
    overwrite: Replace = False,
    json: Json = False,
) -> None:
    """Convert weights from and to other projects' formats, all tensors or none.

    Example: maekit weights convert mae_pretrain_vit_base.pth mae.safetensors --to maekit
    """

    def body() -> int:
        from maekit.cli.weights import convert as work

        return work(
            source,
            destination,
            to=to,
            allow_missing=allow_missing or [],
            target=target,
            heads=heads,
            decoder_heads=decoder_heads,
            clip=clip,
            overwrite=overwrite,
            json=json,
        )

    finish(body)


@weights.command("inspect")
def inspect(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A weights file, a run, or hf:FOLDER.")
    ],
    json: Json = False,
) -> None:
    """Say what a weights file holds: format, model, tensors, parameters, checksum, license."""

    def body() -> int:
        from maekit.cli.weights import inspect as work

        return work(source, json=json)

    finish(body)
