"""Results on stdout: tables and JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE = 240  # columns where stdout is no terminal: whoever reads it can cut


def as_json(value: object) -> str:
    """Format a value as indented JSON with a line end."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
        table.add_row(*(Text(cell) for cell in row))
    try:
        console.print(table)
    except SystemExit as error:  # rich's answer to a broken pipe; ours is that of a shell
        raise BrokenPipeError from error
