"""The commands that use what was trained: their options and help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maekit.cli import completion
from maekit.cli.declare import runs
from maekit.cli.options import (
    FORMS,
    AsRecipe,
    Classes,
    CompareExpected,
    Device,
    Devices,
    Inputs,
    Json,
    Lock,
    MoreDevices,
    OutputFolder,
    OverridesArgument,
    Overwrite,
    Quiet,
    ReplaceFile,
    Resume,
    RunFolderOption,
    RunSamples,
    Verbose,
    Views,
    Workers,
)


@runs("evaluate:evaluate", resumable=True)
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE",
            help="A classifier: a run, or weights of maekit or of others.",
            autocompletion=completion.runs,
        ),
    ],
    overrides: OverridesArgument = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FOLDER|LIST",
            help="Labeled samples, or boxes of a detector; default: the recipe's data.val.",
        ),
    ] = None,
    recipe: AsRecipe = None,
    views: Views = None,
    classes: Classes = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    lock: Lock = False,
    compare_expected: CompareExpected = False,
    devices: Devices = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge a classifier on labeled samples, without training.

    It may be a run of finetune or of the linear probe, or a fine-tuned file of
    MAE's, VideoMAE's, mae_st's, timm's or transformers' code; or a detector of
    actions, which is judged on a list of boxes.

    Example: maekit evaluate mae_finetuned_vit_base.pth --data imagenet/val
    """


@runs("embed:embed", resumable=True)
def embed(
    inputs: Inputs = None,
    samples: RunSamples = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help=f"{FORMS}; default: the newest finished run below ./runs, else demo.",
        ),
    ] = None,
    pool: Annotated[
        Literal["cls", "mean", "tokens"] | None,
        typer.Option(
            help="Class token, mean over patches, or all patch tokens, of --layer; "
            "default: cls, or mean where there is no class token; of a classifier what its head "
            "gets."
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Block whose output is taken, from 1; default: after the last norm."
        ),
    ] = None,
    form: Annotated[
        Literal["npz", "safetensors", "parquet", "csv"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="npz, safetensors, parquet or csv; default: as the suffix of --out, else npz.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: embeddings.<format>."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Inputs encoded at once.")] = 32,
    workers: Workers = None,
    overwrite: ReplaceFile = False,
    lock: Lock = False,
    devices: MoreDevices = "1",
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn images and videos into features; run again, an interrupted call is resumed.

    Example: maekit embed photos/ --from runs/mine/1 --pool mean --out photos.npz
    """


@runs("predict:predict", resumable=True)
def predict(
    inputs: Inputs = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help="A classifier: RUN or FILE; default: the newest one below ./runs.",
            autocompletion=completion.runs,
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, metavar="N", help="Classes that are written.")
    ] = 5,
    form: Annotated[
        Literal["csv", "json", "parquet"] | None,
        typer.Option("--format", help="Default: as the suffix of --out, else csv."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: predictions.<format>."),
    ] = None,
    of_set: Annotated[
        Literal["val"] | None,
        typer.Option("--set", help="In place of INPUT: the samples of the recipe's data.val."),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="2s", help="Of videos: a window begins every so often."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            metavar="4s",
            help="How long each is; default: as --every, and at least a clip.",
        ),
    ] = None,
    recipe: AsRecipe = None,
    views: Views = None,
    classes: Classes = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures",
            metavar="DIR",
            help="Draw answers: sheets of pictures, and a film of each video.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Views scored at once; default: the recipe's."),
    ] = None,
    workers: Workers = None,
    overwrite: ReplaceFile = False,
    lock: Lock = False,
    devices: MoreDevices = "1",
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what is on images and videos; run again, an interrupted call is resumed.

    Writes each input's likeliest classes and their probabilities, or labels, or
    values. What cannot be read is named (exit 6), and the others are done.

    Example: maekit predict photos/ --from runs/mine/2 --out answers.csv
    """


@runs("detect:detect")
def detect(
    inputs: Annotated[
        list[str], typer.Argument(metavar="VIDEO", help="Videos, folders, quoted patterns.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help="A detector: RUN or FILE; default: the newest classifier below ./runs.",
        ),
    ] = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            "--boxes",
            metavar="CSV",
            help="The boxes of persons, or full-frame: one box, the default.",
        ),
    ] = None,
    persons: Annotated[
        Path | None,
        typer.Option(
            "--persons", metavar="FILE", help="Find them with these weights of torchvision's."
        ),
    ] = None,
    persons_model: Annotated[
        str | None,
        typer.Option(
            "--persons-model", metavar="NAME", help="Whose they are; a Faster R-CNN (ResNet-50)."
        ),
    ] = None,
    persons_score: Annotated[
        float, typer.Option("--persons-score", metavar="SHARE", help="Persons at least so sure.")
    ] = 0.8,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="1s", help="A moment every so often; default: 1s."),
    ] = None,
    least: Annotated[
        float,
        typer.Option("--least", metavar="SHARE", help="Actions at least so likely are kept."),
    ] = 0.1,
    film_too: Annotated[
        bool, typer.Option("--film/--no-film", help="Films with boxes and actions drawn.")
    ] = True,
    recipe: AsRecipe = None,
    out: OutputFolder = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Detect what is done in boxes of videos: rows of them, and films that show it.

    A list of boxes has a header (video, second, x1, y1, x2, y2, and a score if there is one) or is
    one of AVA's; corners are fractions of width and height.

    Example: maekit detect film.mp4 --from runs/actions/1 --boxes persons.csv
    """


@runs("reconstruct:reconstruct")
def reconstruct(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Images, videos, folders, quoted patterns."),
    ] = None,
    samples: RunSamples = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help="RUN, FILE, hf:FOLDER or demo; default: the newest finished run below ./runs "
            "that predicts better than a fill, else demo.",
        ),
    ] = None,
    masker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:RATIO]",
            help="What is hidden, as tube:0.9 or block:ratio=0.6; default: as in training.",
            autocompletion=completion.maskers,
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
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of the masks: same seed, same mask.")
    ] = 0,
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
    out: OutputFolder = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show how a model completes pictures and videos of which it sees a part.

    Example: maekit reconstruct photo.jpg clips/ --ratio 0.5,0.75,0.9
    """


@runs("report:report")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders.", autocompletion=completion.runs),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Default: RUN/report.html; of several runs ./report.html."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Put a run, or several side by side, on one HTML page that needs no network.

    Example: maekit report runs/quickstart/1
    """
