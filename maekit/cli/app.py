"""The command line as a whole; ``commands/`` declares each command's options and help."""

import functools
import io
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument

from maekit.cli.commands.plugins import plugins
from maekit.cli.commands.recipes import recipes
from maekit.cli.commands.trained import detect, embed, evaluate, predict, reconstruct, report
from maekit.cli.commands.training import (
    ablate,
    bench,
    finetune,
    pretrain,
    probe,
    replay,
    tokenizer,
)
from maekit.cli.commands.weights import weights
from maekit.cli.declare import WORDS

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


# In the order of the help page: what trains, what judges and uses what was trained, groups.
for _command in (
    *(pretrain, tokenizer, finetune, probe, evaluate, bench, replay, ablate),
    *(embed, predict, detect, reconstruct, report),
):
    app.command()(_command)
app.add_typer(recipes, name="recipes")
app.add_typer(plugins, name="plugins")
app.add_typer(weights, name="weights")
