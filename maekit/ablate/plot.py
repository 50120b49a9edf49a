"""Draw a sweep: a panel for each measure, the paper's numbers in one of their own beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.ablate.table import COSTS, UNITS, SweepTable, TableRow
from maekit.atomic import write_bytes
from maekit.errors import RecipeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOT = "plot"  # .png, .svg
_DPI = 150
_TICKS = 5
_OURS, _PAPERS = "#1f6feb", "#6e7781"
_WIDE_RANGE = 16.0  # values that are so many times apart stand on a logarithmic axis


def write_plot(table: SweepTable, folder: Path) -> bool:
    """Write plot.png and plot.svg; return whether there was anything to draw.

    Raises:
        RecipeError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'maekit[plots]', then `maekit ablate ... --resume`"
        raise RecipeError("the plot needs matplotlib", hint=hint) from error
    papers = () if table.paper is None else table.paper.columns
    measures = [
        each
        for each in table.measures
        if any(each in row.cells for row in table.rows) and (each not in COSTS or each in papers)
    ]
    if not measures:
        return False
    # Ids of SVG elements are random otherwise, and its date would change with every call.
    with mpl.rc_context({"svg.hashsalt": "maekit", "font.size": 9.0, "svg.fonttype": "none"}):
        figure = _draw(Figure, table, measures)
        for form, extra in (("png", {"dpi": _DPI}), ("svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, **extra)
            write_bytes(folder / f"{PLOT}.{form}", buffer.getvalue())
    return True


def _draw(kind: type[Figure], table: SweepTable, measures: Sequence[str]) -> Figure:
    paper = table.paper
    beside = [paper is not None and each in paper.columns for each in measures]
    columns = 2 if any(beside) else 1
    numeric = all(row.row.position is not None for row in table.rows)
    height = 2.4 if numeric else 0.9 + 0.32 * len(table.rows)
    size = (4.6 * columns, height * len(measures) + 0.5)
    figure = kind(figsize=size, layout="constrained")
    axes: Any = figure.subplots(len(measures), columns, squeeze=False)
    figure.suptitle(table.title, fontsize=10)
    for line, measure in enumerate(measures):
        ours, (theirs,) = axes[line][0], axes[line][1:] if columns == 2 else (None,)
        unit = UNITS[measure]
        values = [_ours(row, measure, unit.factor) for row in table.rows]
        _panel(ours, table.rows, values, unit.heading, _OURS, numeric=numeric)
        if theirs is None:
            continue
        if paper is None or measure not in paper.columns:
            theirs.set_visible(False)
            continue
        numbers = [paper.of(row.row.name, measure) for row in table.rows]
        published = [None if each is None else (each, 0.0) for each in numbers]
        heading = f"paper: {paper.columns[measure]}"
        _panel(theirs, table.rows, published, heading, _PAPERS, numeric=numeric)
    return figure


def _ours(row: TableRow, measure: str, factor: float) -> tuple[float, float] | None:
    cell = row.cells.get(measure)
    return None if cell is None else (cell.mean * factor, (cell.std or 0.0) * factor)


def _panel(
    axes: Axes,
    rows: Sequence[TableRow],
    values: Sequence[tuple[float, float] | None],
    heading: str,
    color: str,
    *,
    numeric: bool,
) -> None:
    """Draw values and their spread: a curve over numbers, or one line for each row."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="y" if numeric else "x", color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)
    known = [(place, each) for place, each in enumerate(values) if each is not None]
    means, spreads = [each[0] for _, each in known], [each[1] for _, each in known]
    if not numeric:
        places = [place for place, _ in known]
        axes.errorbar(means, places, xerr=spreads, fmt="o", color=color, capsize=3, markersize=5)
        axes.set_yticks(range(len(rows)), [row.row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(heading)
        axes.locator_params(axis="x", nbins=_TICKS)
        return
    at = [rows[place].row.position or 0.0 for place, _ in known]
    order = sorted(range(len(at)), key=lambda place: at[place])
    ordered = [[column[place] for place in order] for column in (at, means, spreads)]
    axes.errorbar(
        ordered[0], ordered[1], yerr=ordered[2], fmt="o-", color=color, capsize=3, markersize=4
    )
    every = [row.row.position or 0.0 for row in rows]
    if min(every) > 0 and max(every) / min(every) >= _WIDE_RANGE:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(every, [f"{each:g}" for each in every])
    axes.set_ylabel(heading)
