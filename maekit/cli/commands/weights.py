"""``maekit weights``: its commands' options and help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maekit.cli.declare import runs
from maekit.cli.options import Classes, Json

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
    Literal["maekit", "mae", "videomae", "timm", "hf", "onnx", "export"],
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="Whose code is to load it: maekit, mae, videomae, timm, hf (transformers), onnx or "
        "export (torch.export).",
    ),
]
AllowMissing = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Keys that may be missing, or dropped, as 'head.*'; may be given several times.",
    ),
]
EntryName = Annotated[
    str | None,
    typer.Option(
        "--entry",
        metavar="NAME",
        help="Which model of a file with several: teacher, model_ema; the same as FILE#NAME.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="pixel|norm-pixel", help="What the decoder predicts, where SRC does not say."
    ),
]
Heads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Attention heads, where SRC does not say.")
]
DecoderHeads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The decoder's, likewise.")
]
Clip = Annotated[
    str | None,
    typer.Option(metavar="TxHxW", help="Frames and pixels, where SRC does not say."),
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace DST.")]


@weights.command("convert")
@runs("weights:convert")
def weights_convert(
    source: Source,
    destination: Destination,
    to: To,
    entry: EntryName = None,
    allow_missing: AllowMissing = None,
    target: Target = None,
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    clip: Clip = None,
    classes: Classes = None,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Of a classifier, write the encoder alone.")
    ] = False,
    overwrite: Replace = False,
    json: Json = False,
) -> None:
    """Convert weights from and to other projects' formats, all tensors or none.

    A classifier is written whole to onnx, timm, hf and export: checked, with its
    preprocessing and a model card beside it, and the Python that runs it.

    Example: maekit weights convert mae_pretrain_vit_base.pth mae.safetensors --to maekit
    """


@weights.command("inspect")
@runs("weights:inspect")
def weights_inspect(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A weights file, a run, or hf:FOLDER.")
    ],
    entry: EntryName = None,
    json: Json = False,
) -> None:
    """Say what a weights file holds: format, model, tensors, parameters, checksum, license."""


@weights.command("list")
@runs("zoo:list_public")
def weights_list(json: Json = False) -> None:
    """List the weights that the papers' authors published; opens no connection."""


@weights.command("get")
@runs("zoo:get")
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
