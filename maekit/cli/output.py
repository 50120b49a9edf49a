"""Results on stdout: tables and JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from maekit.errors import RecipeError, StorageError
from maekit.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE = 240  # columns where stdout is no terminal: its reader can cut


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    r"""Print text that holds names: what is not text in them is written out (``\x1b``).

    Args:
        text: what is said.
        err: to stderr. That nobody reads it ends nothing: the work and its exit code count.
        nl: end the line.
    """
    try:
        typer.echo(printable(text), err=err, nl=nl)
    except OSError:
        if not err:
            raise
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let what is still written to a stream go nowhere, the interpreter's last flush too."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write a file into an error that names it.

    Raises:
        RecipeError: its folder does not exist.
        StorageError: it cannot be written.
    """
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if not os.path.isdir(path.absolute().parent):  # noqa: PTH112 - raises on no name
            hint = "make it first, or name another one"
            raise RecipeError("no such folder", where=str(path.parent), hint=hint) from error
        what = f"cannot be written: {error.strerror or error}"
        hint = "free some space, or a folder that you can write to"
        raise StorageError(what, where=str(path), hint=hint) from error


def as_json(value: object) -> str:
    """Format a value as indented JSON with a line end."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # As JSON's own escapes, so that names read back as they are.
    return _NO_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


_NO_TEXT = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    typer.echo(as_json(value), nl=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings, as plain text: brackets in it are not markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell, lines=False)) for cell in row))
    try:
        console.print(table)
    except SystemExit as error:  # rich's answer to a broken pipe; ours is that of a shell
        raise BrokenPipeError from error
