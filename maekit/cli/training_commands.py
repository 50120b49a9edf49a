"""Commands that train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from maekit.cli.options import (
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
    finish,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from maekit.cli.training import Verb


def add_to(app: typer.Typer) -> None:
    """Declare the training commands."""
    app.command("pretrain", help=PRETRAIN)(_training(_pretrain))
    app.command("tokenizer", help=TOKENIZER)(_training(_tokenizer))


PRETRAIN = """Pre-train a masked autoencoder as a recipe says.

Example: maekit pretrain quickstart pretrain.epochs=10 --out runs/mine
"""
TOKENIZER = """Train a discrete VAE, whose codes the target dvae-token predicts.

Example: maekit tokenizer dvae_tiny data.train.path=my/photos ~data.val
"""


def _pretrain() -> Verb[Any]:
    from maekit.cli.pretrain import PRETRAIN as VERB

    return VERB


def _tokenizer() -> Verb[Any]:
    from maekit.cli.tokenizer import TOKENIZER as VERB

    return VERB


def _training(verb: Callable[[], Verb[Any]]) -> Callable[..., None]:
    """A command with the options that all trainings have; ``verb`` imports what it does."""

    def command(  # noqa: PLR0917 - each is an option of the command line
        recipe: RecipeArgument,
        overrides: OverridesArgument = None,
        out: RunFolderOption = None,
        resume: Resume = False,
        overwrite: Overwrite = False,
        source: Annotated[
            str | None,
            typer.Option("--from", metavar="RUN|FILE", help="Start from these weights."),
        ] = None,
        dry_run: DryRun = False,
        seed: Seed = None,
        device: Device = None,
        json: Json = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        def body() -> int:
            found = verb()
            from maekit.cli.training import command as work

            return work(
                found,
                recipe,
                overrides or [],
                out=out,
                resume=resume,
                overwrite=overwrite,
                source=source,
                dry_run=dry_run,
                seed=seed,
                device=device,
                json=json,
                quiet=quiet,
                verbose=verbose,
            )

        finish(body, verbose=verbose)

    return command
