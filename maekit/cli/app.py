"""The command line: every verb's name, options and help, declared once; groups have their files.

A command names the function that it runs, which is imported when it is called: ``maekit --help``
costs no more than Typer. A function's parameters are those of its command (a test says so).
Annotations are no strings, here and in groups/: Typer would compile each of several hundred anew.
"""

import functools
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperArgument

from maekit.cli import completion
from maekit.cli.declare import WORDS, runs
from maekit.cli.groups.plugins import plugins
from maekit.cli.groups.recipes import recipes
from maekit.cli.groups.weights import weights
from maekit.cli.options import (
    FORMS,
    AcceptData,
    Classes,
    CompareExpected,
    Device,
    DeviceMemory,
    Devices,
    DryRun,
    Extend,
    ExtendAs,
    Json,
    Lock,
    MoreDevices,
    OutputFolder,
    OverridesArgument,
    Overwrite,
    Quiet,
    RecipeArgument,
    Resume,
    RunFolderOption,
    Samples,
    Seed,
    StartFrom,
    Verbose,
    WeightsOption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="maekit",
    help="Masked-autoencoder pre-training of images (MAE) and videos (VideoMAE).",
    epilog="Start with: maekit pretrain quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main(argv: "Sequence[str] | None" = None) -> None:
    """Run the command line (by default that of the process) and exit with its code."""
    # Torch's threads wait for each other by spinning, which costs up to eight times the work where
    # anything else wants a core (loader workers do); set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("stdout", "stderr"):  # closed by the caller (``>&-``): the work counts
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else list(argv)
    token = WORDS.set(words)
    try:
        command_tree()(args=words, prog_name="maekit")
    finally:
        WORDS.reset(token)


@functools.cache
def command_tree() -> Any:  # noqa: ANN401 - a click command, whose types Typer does not give
    """Build all commands from their declarations, once."""
    root: Any = typer.main.get_command(app)
    _show_values_plainly(root, typer.Context(root))
    return root


def _show_values_plainly(command: Any, context: Any) -> None:  # noqa: ANN401 - as above
    """Take types off the help of flags and arguments, of this command and those below.

    Typer would write ``<bool>``, though ``--dry-run true`` is an error, and ``<list[str]>``.
    """
    for parameter in command.get_params(context):
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]  # noqa: ARG005
        elif getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for name, below in getattr(command, "commands", {}).items():
        _show_values_plainly(below, typer.Context(below, parent=context, info_name=name))


def _version(wanted: bool) -> None:
    if wanted:
        from maekit import __version__

        typer.echo(f"maekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
@runs("verbs:train", resumable=True, verb="pretrain", compare_expected=False)
def pretrain(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    extend: Extend = None,
    extend_as: ExtendAs = None,
    overwrite: Overwrite = False,
    accept_data: AcceptData = False,
    lock: Lock = False,
    source: StartFrom = None,
    dry_run: DryRun = False,
    samples: Samples = None,
    device_memory: DeviceMemory = None,
    seed: Seed = None,
    device: Device = None,
    devices: Devices = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pre-train a masked autoencoder as a recipe says.

    Example: maekit pretrain quickstart pretrain.epochs=10 --out runs/mine
    """


@app.command()
@runs("verbs:train", resumable=True, verb="tokenizer", compare_expected=False)
def tokenizer(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    extend: Extend = None,
    extend_as: ExtendAs = None,
    overwrite: Overwrite = False,
    accept_data: AcceptData = False,
    lock: Lock = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="WEIGHTS", help="Start from a tokenizer's RUN or FILE."),
    ] = None,
    dry_run: DryRun = False,
    samples: Samples = None,
    device_memory: DeviceMemory = None,
    seed: Seed = None,
    device: Device = None,
    devices: Devices = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a discrete VAE, whose codes the target dvae-token predicts.

    Example: maekit tokenizer dvae_tiny data.train.path=my/photos ~data.val
    """


@app.command()
@runs("verbs:train", resumable=True, verb="finetune")
def finetune(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    extend: Extend = None,
    extend_as: ExtendAs = None,
    overwrite: Overwrite = False,
    accept_data: AcceptData = False,
    lock: Lock = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help=f"{FORMS}, or scratch for none; default: the newest finished pre-training of "
            "the recipe.",
        ),
    ] = None,
    dry_run: DryRun = False,
    samples: Samples = None,
    device_memory: DeviceMemory = None,
    compare_expected: CompareExpected = False,
    seed: Seed = None,
    device: Device = None,
    devices: Devices = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train an encoder on labels as a recipe says, and judge it on data.val.

    Without --from: from the newest finished pre-training run of the recipe.

    Example: maekit finetune mae_cifar10 --from runs/mae_cifar10/1
    """


@app.command()
@runs("probe:probe", resumable=True)
def probe(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    kind: Annotated[
        Literal["linear", "knn", "attentive"] | None,
        typer.Option(
            "--kind", metavar="KIND", help="linear, knn or attentive; overrides probe.kind."
        ),
    ] = None,
    source: WeightsOption = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    accept_data: AcceptData = False,
    lock: Lock = False,
    dry_run: DryRun = False,
    samples: Samples = None,
    device_memory: DeviceMemory = None,
    compare_expected: CompareExpected = False,
    seed: Seed = None,
    device: Device = None,
    devices: Devices = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Judge frozen features on labels, next to an untrained encoder and raw pixels.

    Cached features are kept until the result is written: --resume makes only
    the missing ones, then fits the judges anew. All are held in memory;
    --dry-run says how much that is.

    Example: maekit probe tiny_images --kind knn --from runs/tiny_images/1
    """


@app.command()
@runs("evaluate:evaluate", resumable=True)
def evaluate(  # noqa: PLR0917 - each is an option of the command line
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
            help="Labeled samples; default: the recipe's data.val.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="Read and judge as this one does; default: the run's own, or one view.",
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option("--views", metavar="CLIPSxCROPS", help="Of each sample; 5x3 for example."),
    ] = None,
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
    MAE's, VideoMAE's, mae_st's, timm's or transformers' code.

    Example: maekit evaluate mae_finetuned_vit_base.pth --data imagenet/val
    """


@app.command()
@runs("bench:bench")
def bench(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", min=1, metavar="N", help="Without the data: noise for N samples."
        ),
    ] = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure what holds pre-training back: the model, the loader, or both.

    Takes a minute or two, and writes nothing. The batch is smaller than the
    recipe's where a step of it would take more than seconds.

    Example: maekit bench quickstart data.workers=2
    """


@app.command()
@runs("ablate:ablate", resumable=True)
def ablate(  # noqa: PLR0917 - each is an option of the command line
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Runs at once, each with its share of cores and devices; 0: collect only.",
        ),
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what is finished, run the rest.")
    ] = False,
    overwrite: Overwrite = False,
    lock: Lock = False,
    list_only: Annotated[
        bool, typer.Option("--list", help="Print rows, the paper's numbers and commands.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ROW", help="A row; may be given several times."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Other seeds than the recipe's.")
    ] = None,
    print_commands: Annotated[
        bool,
        typer.Option("--print-commands", help="Prepare DIR and print its commands, for a cluster."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print runs, hours and disk; write nothing.")
    ] = False,
    compare_expected: CompareExpected = False,
    out: RunFolderOption = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a table of ablations, and put it beside the paper's.

    Each row and seed is an ordinary run; a row that fails is marked, and the
    others go on.

    Example: maekit ablate ablations/mae_mask_sampling_tiny --jobs 2
    """


RunSet = Annotated[
    Literal["train", "val"] | None,
    typer.Option(
        "--set",
        help="Samples of the run's own data set; INPUT are then names of samples, or patterns.",
    ),
]


@app.command()
@runs("embed:embed", resumable=True)
def embed(  # noqa: PLR0917 - each is an option of the command line
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT", help="Images, videos, folders, quoted patterns, lists of paths."
        ),
    ] = None,
    samples: RunSet = None,
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
    workers: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Loader processes; default: as in training."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it is there.")
    ] = False,
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


@app.command()
@runs("predict:predict", resumable=True)
def predict(  # noqa: PLR0917 - each is an option of the command line
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT", help="Images, videos, folders, quoted patterns, lists of paths."
        ),
    ] = None,
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
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="Read inputs as this one reads data.val; default: the run's own, or one view.",
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option("--views", metavar="CLIPSxCROPS", help="Of each input; 5x3 for example."),
    ] = None,
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
    workers: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Loader processes; default: the recipe's."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it is there.")
    ] = False,
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


@app.command()
@runs("detect:detect")
def detect(  # noqa: PLR0917 - each is an option of the command line
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
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Read films as this one's data.val; default: RUN's."
        ),
    ] = None,
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


@app.command()
@runs("reconstruct:reconstruct")
def reconstruct(  # noqa: PLR0917 - each is an option of the command line
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Images, videos, folders, quoted patterns."),
    ] = None,
    samples: RunSet = None,
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


@app.command()
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


# Groups come after the commands, each in the order of its help page.
app.add_typer(recipes, name="recipes")
app.add_typer(plugins, name="plugins")
app.add_typer(weights, name="weights")
