"""The command line's root. Commands are declared in the ``*_commands`` modules: names, options and
help; work is imported inside the bodies, so that ``maekit --help`` costs no more than Typer."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Annotated

import typer

from maekit.cli import (
    judging_commands,
    picture_commands,
    recipe_commands,
    report_commands,
    training_commands,
    weights_commands,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = typer.Typer(
    name="maekit",
    help="Masked-autoencoder pre-training of images (MAE) and videos (VideoMAE).",
    epilog="Start with: maekit pretrain quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
training_commands.add_to(app)
judging_commands.add_to(app)
picture_commands.add_to(app)
report_commands.add_to(app)
recipe_commands.add_to(app)
weights_commands.add_to(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line (by default that of the process) and exit with its code."""
    # Torch's threads wait for each other by spinning, which costs up to eight times the work where
    # anything else wants a core (loader workers do); set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _commands()(args=None if argv is None else list(argv), prog_name="maekit")


@functools.cache
def _commands() -> Callable[..., object]:
    """Build the command tree once: callers in one process run many commands."""
    return typer.main.get_command(app)


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
