"""The commands that train, and those that are about training: their options and help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maekit.cli.declare import runs
from maekit.cli.options import (
    AcceptData,
    CompareExpected,
    Device,
    DeviceMemory,
    Devices,
    DryRun,
    Extend,
    ExtendAs,
    Json,
    Lock,
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


@runs("verbs:train", resumable=True, verb="pretrain", compare_expected=False)
def pretrain(
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


@runs("verbs:train", resumable=True, verb="tokenizer", compare_expected=False)
def tokenizer(
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


@runs("verbs:train", resumable=True, verb="finetune")
def finetune(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: RunFolderOption = None,
    resume: Resume = False,
    extend: Extend = None,
    extend_as: ExtendAs = None,
    overwrite: Overwrite = False,
    accept_data: AcceptData = False,
    lock: Lock = False,
    source: WeightsOption = None,
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


@runs("probe:probe", resumable=True)
def probe(
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


@runs("ablate:ablate", resumable=True)
def ablate(
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


@runs("replay:replay")
def replay(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run that ended with exit 4.")
    ],
    steps: Annotated[
        list[int] | None,
        typer.Option("--step", metavar="N", help="Only this update; may be given several times."),
    ] = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the updates again that were not finite, and say where they stop to be.

    Takes weights, optimizer and samples from nan_capture/ of the run, and names the
    first module whose output is not finite and the samples. Writes nothing.

    Example: maekit replay runs/mine/1
    """
