"""Options that several commands share, and how a command's body is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDES",
        help="KEY=VALUE sets a key (pretrain.epochs=10), ~KEY removes one.",
    ),
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder; default: runs/<recipe>/<n>."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest good checkpoint, else start.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Move an earlier run in DIR away first.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Build, take one small step, print sizes; write nothing."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed; overrides the recipe's.")]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="cpu|cuda|cuda:N|mps", help="Default: the best there is."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RUN|FILE|timm:NAME|hf:FOLDER|scratch",
        help="Weights; default: the newest finished pre-training of the recipe.",
    ),
]
CompareExpected = Annotated[
    bool,
    typer.Option("--compare-expected", help="Say whether results lie in the recipe's bands."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")]


def finish(body: Callable[[], int], *, verbose: bool = False) -> None:
    """Run a command's body and leave with its exit code, errors mapped to theirs."""
    from maekit.cli.exits import run

    raise typer.Exit(run(body, verbose=verbose))
