"""From an error to what the user sees; `maekit.errors` has the exit codes."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING

import typer

from maekit.cli.output import say, silence
from maekit.errors import (
    BUG,
    INTERRUPTED,
    OUT_OF_MEMORY,
    STOPPED,
    Interrupted,
    MaekitError,
    code_of,
    storage_advice,
)
from maekit.origin import PartFault, blamed
from maekit.ranks import HEARD

if TYPE_CHECKING:
    from collections.abc import Callable

BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports a program that SIGPIPE ended


def run(body: Callable[[], int], *, verbose: bool = False) -> int:
    """Run a command's body and return the exit code; errors go to stderr, without a traceback.

    Args:
        body: does the work and returns an exit code.
        verbose: show the traceback of an error that maekit did not foresee.
    """
    try:
        code = body()
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        say("interrupted", err=True)
        return STOPPED
    except Interrupted as error:
        say(str(error), err=True)
        return INTERRUPTED
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:  # noqa: BLE001 - every error ends here, and none is lost
        known = blamed(error)
        if known is not None:
            known.__cause__ = error
        _report(known or error, verbose=verbose)
        return code_of(known or error)
    return code


def _report(error: Exception, *, verbose: bool) -> None:
    code = code_of(error)
    if any(error is each for each in HEARD):
        return
    if isinstance(error, MaekitError):
        of_part = isinstance(error, PartFault) and error.__cause__ is not None
        unforeseen = of_part and not isinstance(error.__cause__, MaekitError)
        trace = f"\n  traceback in {_log(error)}" if unforeseen else ""
        say(f"error: {error}{trace}", err=True)
    elif code == OUT_OF_MEMORY:
        first = str(error).partition("\n")[0] or type(error).__name__
        say(
            f"error: out of memory: {first}\n"
            "  try: a smaller batch.per_device of the verb, or its activation_checkpointing=true",
            err=True,
        )
    elif code != BUG and isinstance(error, OSError):
        say(f"error: {error}\n  try: {storage_advice(error)}", err=True)
    else:
        log = _log(error)
        say(f"error: {type(error).__name__}: {error} (a bug; traceback in {log})", err=True)
    if verbose:
        say("".join(traceback.format_exception(error)), err=True)


def _log(error: Exception) -> str:
    """Write the traceback to a file of its own and return its path."""
    try:
        handle, name = tempfile.mkstemp(prefix="maekit-", suffix=".log")
    except OSError as reason:
        return f"no file: {reason}; run again with -v"
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    return name
