"""Write a sweep's table as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maekit.ablate.table import COSTS, UNITS, Cell, SweepTable, TableRow, plain_table
from maekit.ablate.values import COUNTED
from maekit.atomic import write_text
from maekit.engine.run_folder import plain
from maekit.text import printable
from maekit.visualize.report.numbers import MISSING, number

if TYPE_CHECKING:
    from maekit.ablate.differences import Difference

TABLE = "table"  # .md, .csv, .json
MINUS = "\N{MINUS SIGN}"


def write_table(table: SweepTable, folder: Path) -> None:
    """Write table.md, table.csv and table.json."""
    text = json.dumps(plain(plain_table(table)), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(folder / f"{TABLE}.json", printable(text) + "\n")
    write_text(folder / f"{TABLE}.csv", printable(as_csv(table)))
    write_text(folder / f"{TABLE}.md", printable(as_markdown(table)))


def columns(table: SweepTable) -> list[str]:
    """Return the headings for people."""
    found = ["row"]
    for measure in table.measures:
        found += [UNITS[measure].heading, f"to {table.plan.base.name}"]
        if table.paper is not None and measure in table.paper.columns:
            found.append(f"paper: {table.paper.columns[measure]}")
        if measure == "flops":
            found.append("encoder / decoder")
    return found


def cells(each: TableRow, table: SweepTable) -> list[str]:
    """Return a row for people: what is missing is a dash, what failed says so."""
    name = each.row.name
    found = [name if each.failure is None else f"{name} (exit {each.failure.code})"]
    for measure in table.measures:
        cell = each.cells.get(measure)
        found += [value_text(measure, cell), difference_text(measure, each, table)]
        if table.paper is not None and measure in table.paper.columns:
            value = table.paper.of(name, measure)
            found.append(MISSING if value is None else f"{value:g}")
        if measure == "flops":
            flops = each.found.flops
            found.append(MISSING if flops is None else f"{flops.ratio:.2f}")
    return found


def value_text(measure: str, cell: Cell | None) -> str:
    """Write mean and standard deviation in the measure's unit."""
    if cell is None:
        return MISSING
    unit = UNITS[measure]
    if measure in COUNTED:
        return number(cell.mean * unit.factor)
    mean = f"{cell.mean * unit.factor:.{unit.digits}f}".replace("-", MINUS)
    if cell.std is None:
        return mean
    return f"{mean} ± {cell.std * unit.factor:.{unit.digits}f}"


def difference_text(measure: str, each: TableRow, table: SweepTable) -> str:
    """Write the difference to the base row and its standard error; of FLOPs and such, a factor."""
    cell = each.cells.get(measure)
    if each.row is table.plan.base or cell is None or cell.difference is None:
        return "base" if each.row is table.plan.base else MISSING
    if measure in COSTS:
        base = cell.mean - cell.difference.value
        return MISSING if base == 0 else f"{cell.mean / base:.2f}x"
    return _signed(measure, cell.difference)


def _signed(measure: str, apart: Difference) -> str:
    unit = UNITS[measure]
    text = f"{apart.value * unit.factor:+.{unit.digits}f}".replace("-", MINUS)
    if apart.error is None:
        return text
    mark = " *" if apart.resolved else ""
    return f"{text} ± {apart.error * unit.factor:.{unit.digits}f}{mark}"


def sentences(table: SweepTable) -> list[str]:
    """Return what stands below the table."""
    found = list(table.verdicts)
    if table.paper is not None:
        paper = table.paper
        found.append(
            f"The paper's numbers: {paper.source} ({paper.title}; {paper.setting}). They are at "
            f"its scale; here: {table.scale}."
        )
    for each in table.rows:
        if each.failure is not None:
            found.append(f"{each.row.name}: exit {each.failure.code}: {each.failure.reason}")
        elif each.finished[0] < each.finished[1]:
            done, count = each.finished
            found.append(f"{each.row.name}: {done} of {count} runs are done.")
    return [*found, *table.notes]


def legend(table: SweepTable) -> str:
    """Say how the table's numbers are to be read."""
    spread = "mean ± standard deviation over seeds" if len(table.plan.seeds) > 1 else "one seed"
    return (
        f"Values: {spread}. To {table.plan.base.name}: the difference ± its standard error, paired "
        "over seeds and, where samples were judged, over samples; * is more than twice that."
    )


def as_markdown(table: SweepTable) -> str:
    """Return the table as Markdown, the base row bold."""
    lines = [f"# {table.title}", "", f"{table.scale}.", ""]
    lines += [_line(columns(table)), _line("---" for _ in columns(table))]
    for each in table.rows:
        row = cells(each, table)
        if each.row is table.plan.base:
            row[0] = f"**{row[0]}**"
        lines.append(_line(row))
    lines += ["", legend(table), ""]
    lines += [f"- {sentence}".replace("\n", "\n  ") for sentence in sentences(table)]
    return "\n".join(lines) + "\n"


def _line(texts: Sequence[str] | Iterator[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def as_csv(table: SweepTable) -> str:
    """Return the table as CSV: all digits, fractions as fractions."""
    names = ["row", "exit"]
    for measure in table.measures:
        names += [f"{measure}{end}" for end in ("", "_std", "_difference", "_error", "_paper")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for each in table.rows:
        code = 0 if each.failure is None else each.failure.code
        row: list[object] = [each.row.name, code]
        for measure in table.measures:
            cell = each.cells.get(measure)
            apart = None if cell is None else cell.difference
            paper = None if table.paper is None else table.paper.of(each.row.name, measure)
            row += [
                None if cell is None else cell.mean,
                None if cell is None else cell.std,
                None if apart is None else apart.value,
                None if apart is None else apart.error,
                paper,
            ]
        writer.writerow(row)
    return buffer.getvalue()
