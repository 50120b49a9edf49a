"""Arguments and options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maekit.cli import completion

# Of weights; ENTRY is one of several models in a file, as `maekit weights inspect` lists them.
FORMS = "RUN, FILE, FILE#ENTRY, timm:NAME, hf:FOLDER or demo"
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a shipped recipe.",
        autocompletion=completion.recipes,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDES",
        help="KEY=VALUE sets a key (pretrain.epochs=10), ~KEY removes one.",
        autocompletion=completion.overrides,
    ),
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder; default: runs/<recipe>/<n>."),
]
OutputFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="New or empty folder; default: maekit-out/<n>."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume from the newest good checkpoint, if there is one.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Move an earlier run in DIR away first.")
]
Extend = Annotated[
    str | None,
    typer.Option(
        "--extend",
        metavar="KEY=VALUE",
        help="With --resume: go on to a larger budget, as pretrain.epochs=1600.",
    ),
]
ExtendAs = Annotated[
    Literal["planned", "restart"] | None,
    typer.Option(
        "--extend-as",
        help="planned (default): the learning rate as if it had been meant so from the start; "
        "restart: warm-up and a new cosine over what is left.",
    ),
]
AcceptData = Annotated[
    bool,
    typer.Option("--accept-data", help="Resume though the data has changed since the run began."),
]


def _not(value: bool) -> bool:
    return not value


Lock = Annotated[
    bool,
    typer.Option(
        "--no-lock",
        callback=_not,  # `--lock/--no-lock` would take a column of every help page
        help="Leave DIR open to other runs, where its file system has no locks.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Build, take one small step, print sizes; write nothing."),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=2,
        metavar="N",
        help="Of a dry run: the cost for so many samples; the data is not read.",
    ),
]
DeviceMemory = Annotated[
    float | None,
    typer.Option(
        "--device-memory",
        min=0.0,
        metavar="GB",
        help="Of a dry run: what one device has; default: what is free on this one.",
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed; overrides the recipe's.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="cpu, cuda, cuda:N or mps; default: the best there is."
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="WEIGHTS",
        help=f"{FORMS}, or scratch for none; default: the newest finished pre-training of "
        "the recipe.",
        autocompletion=completion.runs,
    ),
]
CompareExpected = Annotated[
    bool,
    typer.Option("--compare-expected", help="Say whether results lie in the recipe's bands."),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="N|all",
        help="Processes that share the work, each on its own device; default: all GPUs, or 1.",
    ),
]
MoreDevices = Annotated[
    str,
    typer.Option(
        "--devices",
        metavar="N|all",
        help="Processes that share the work, each on its own device.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of a classifier's outputs, where the weights have none: lines, or JSON.",
    ),
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="WEIGHTS",
        help=f"Start from {FORMS}; default: from none.",
        autocompletion=completion.runs,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", help="Images, videos, folders, quoted patterns, lists of paths."
    ),
]
RunSamples = Annotated[
    Literal["train", "val"] | None,
    typer.Option(
        "--set",
        help="Samples of the run's own data set; INPUT are then names of samples, or patterns.",
    ),
]
AsRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="Read and score samples as it does its data.val; default: the run's own, or one view.",
    ),
]
Views = Annotated[
    str | None,
    typer.Option("--views", metavar="CLIPSxCROPS", help="Of each sample; 5x3 for example."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, metavar="N", help="Loader processes; default: as in training."
    ),
]
ReplaceFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]
