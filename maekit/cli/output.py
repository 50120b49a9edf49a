"""Results on stdout: tables and JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
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

_COMMAND = "maekit "  # to be copied


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    r"""Print text that holds names: what is not text in them is written out (``\x1b``).

    Args:
        text: what is said.
        err: to stderr. That nobody reads it ends nothing: the work and its exit code count.
        nl: end the line.
    """
    shown = printable(text)
    if err and sys.stderr.isatty():
        shown = fitted(shown, shutil.get_terminal_size().columns)
    try:
        typer.echo(shown, err=err, nl=nl)
    except OSError:
        if not err:
            raise
        silence(sys.stderr)


def fitted(text: str, width: int) -> str:
    """Break lines between words, and indent what follows; one with a command is left whole."""
    from maekit.cli.table import broken

    lines = []
    for line in text.split("\n"):
        within = line.lstrip(" ")
        lead = line[: len(line) - len(within)]
        further = f"{lead}  "
        whole = _COMMAND in line or len(line) <= width
        parts = [within] if whole else broken(within, width - len(further))
        lines.append(lead + f"\n{further}".join(parts))
    return "\n".join(lines)


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
    """Print rows under their headings, as plain text that fits the terminal, if there is one."""
    from maekit.cli.table import table_lines

    shown = [[printable(cell, lines=False) for cell in row] for row in rows]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo("\n".join(table_lines(columns, shown, width)))
