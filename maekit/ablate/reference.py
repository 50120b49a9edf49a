"""The papers' tables: numbers to stand beside ours, from ``recipes/ablations/reference.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maekit.errors import RecipeError
from maekit.recipe.explain import suggest
from maekit.recipe.shipped import shipped_folder

if TYPE_CHECKING:
    from maekit.recipe.ablate import Reference

FILE = "ablations/reference.json"  # below the shipped recipes
_WHERE = "ablate.reference"


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper, and which of its numbers stand beside ours.

    Attributes:
        title: of the table.
        source: paper and table.
        setting: what it was measured with, in words.
        columns: by measure, the paper's name of it.
        values: by our row and measure; a row or a number that the paper lacks is not there.
        noise: by measure, differences that are none.
    """

    title: str
    source: str
    setting: str
    columns: Mapping[str, str]
    values: Mapping[str, Mapping[str, float]]
    noise: Mapping[str, float]

    def of(self, row: str, measure: str) -> float | None:
        """Return the paper's number, or None."""
        return self.values.get(row, {}).get(measure)


def tables() -> dict[str, dict[str, Any]]:
    """Read all tables, by their id."""
    path = shipped_folder() / FILE
    found: dict[str, dict[str, Any]] = {
        each["id"]: each for each in json.loads(path.read_text(encoding="utf-8"))
    }
    return found


def paper_table(reference: Reference, rows: Iterable[str]) -> PaperTable:
    """Find the paper's numbers of these rows.

    Raises:
        RecipeError: there is no such table, column or row.
    """
    known = tables()
    if reference.table not in known:
        hint = suggest(reference.table, known) or f"one of {', '.join(known)}"
        raise RecipeError(f"no table {reference.table}", where=f"{_WHERE}.table", hint=hint)
    table = known[reference.table]
    header, body = list(table["columns"]), [list(row) for row in table["rows"]]
    if reference.transposed:
        header, body = _transposed(header, body)
    for measure, column in reference.columns.items():
        if column not in header:
            hint = suggest(column, header) or f"one of {', '.join(header)}"
            raise RecipeError(f"no column {column}", where=f"{_WHERE}.columns.{measure}", hint=hint)
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        found = _row(row, reference, body, header)
        if found is not None:
            cells = {
                measure: found[header.index(column)]
                for measure, column in reference.columns.items()
            }
            values[row] = {str(measure): float(cell) for measure, cell in cells.items()
                           if isinstance(cell, (int, float))}  # fmt: skip
    return PaperTable(
        title=table["title"],
        source=f"{table['paper']}, {table['table']}",
        setting="; ".join(f"{key}: {value}" for key, value in table["setting"].items()),
        columns={str(measure): column for measure, column in reference.columns.items()},
        values=values,
        noise={str(measure): value for measure, value in reference.noise.items()},
    )


def _transposed(header: list[str], body: list[list[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Swap rows and columns; a first column of names becomes the heading."""
    columns = [list(column) for column in zip(*body, strict=True)]
    if isinstance(body[0][0], str):
        return ["case", *columns[0]], [
            [name, *column] for name, column in zip(header[1:], columns[1:], strict=True)
        ]
    names = ["value"] if len(body) == 1 else [f"value {place}" for place in range(len(body))]
    return ["case", *names], [[name, *column] for name, column in zip(header, columns, strict=True)]


def _row(
    name: str, reference: Reference, body: list[list[Any]], header: list[str]
) -> list[Any] | None:
    """Return the paper's row of ours: the one that begins with what is wanted."""
    if name in reference.rows:
        wanted = reference.rows[name]
        if wanted is None:
            return None
        cells = list(wanted) if isinstance(wanted, tuple) else [wanted]
        found = next((row for row in body if row[: len(cells)] == cells), None)
        if found is None:
            hint = "one of " + ", ".join(str(row[0]) for row in body)
            where = f"{_WHERE}.rows.{name}"
            raise RecipeError(f"no row that begins with {cells}", where=where, hint=hint)
        return found
    numbers = min(header.index(column) for column in reference.columns.values())
    for count in range(1 if reference.transposed else numbers, 0, -1):
        same = [row for row in body if " ".join(str(cell) for cell in row[:count]) == name]
        if len(same) == 1:
            return same[0]
    return None
