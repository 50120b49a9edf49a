"""A sweep as one HTML page: its table and plot, and one run of each row below, side by side."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from maekit.ablate.plan import Plan
from maekit.ablate.plot import PLOT
from maekit.ablate.run import table_of
from maekit.ablate.sweep import Failure, is_done
from maekit.ablate.table import COSTS, SweepTable, TableRow
from maekit.ablate.write import cells, columns, legend, sentences
from maekit.runs import read_result
from maekit.visualize.report.page import Rendered, SortedCell, SweepSection, render

if TYPE_CHECKING:
    from collections.abc import Iterator


def render_sweep(plan: Plan, folder: Path) -> tuple[Rendered, SweepTable]:
    """Write the page of a sweep as its folder stands now, and return its table too."""
    table = table_of(plan, folder, _failures(plan, folder))
    shown: dict[Path, str] = {}
    for row in plan.rows:
        keys = [row.pretrained.get(plan.seeds[0]), *row.jobs[plan.seeds[0]].values()]
        jobs = (plan.jobs[key] for key in keys if key is not None)
        path = next((folder / job.folder for job in jobs if is_done(job, folder)), None)
        if path is not None:  # that of a row before, where both share it
            shown.setdefault(path, row.name)
    section = SweepSection(
        title=table.title,
        scale=table.scale,
        columns=columns(table),
        rows=[_row(each, table) for each in table.rows],
        base=plan.rows.index(plan.base),
        legend=legend(table),
        sentences=sentences(table),
        plot=_plot(folder),
        left_out=_left_out(table, len(shown)),
    )
    page = render(list(shown), names=list(shown.values()), sweep=section)
    return page, table


def _failures(plan: Plan, folder: Path) -> dict[str, Failure]:
    """Return what the sweep's result says of jobs that failed."""
    told = read_result(folder).get("failures")
    if not isinstance(told, dict):
        return {}
    by_folder = {job.folder: key for key, job in plan.jobs.items() if not is_done(job, folder)}
    return {
        by_folder[name]: Failure(int(each["exit"]), str(each["error"]))
        for name, each in told.items()
        if name in by_folder and isinstance(each, dict) and {"exit", "error"} <= each.keys()
    }


def _row(each: TableRow, table: SweepTable) -> list[SortedCell]:
    texts = cells(each, table)
    return [
        SortedCell(text, key) for text, key in zip(texts, (None, *_keys(each, table)), strict=True)
    ]


def _keys(each: TableRow, table: SweepTable) -> Iterator[float | None]:
    """Yield what each cell behind the name is sorted by, in the order of ``cells``."""
    for measure in table.measures:
        cell = each.cells.get(measure)
        yield None if cell is None else cell.mean
        apart = None if cell is None else cell.difference
        if measure in COSTS:
            yield None if cell is None else cell.mean
        else:
            yield None if apart is None else apart.value
        if table.paper is not None and measure in table.paper.columns:
            yield table.paper.of(each.row.name, measure)
        if measure == "flops":
            yield None if each.found.flops is None else each.found.flops.ratio


def _plot(folder: Path) -> str | None:
    path = folder / f"{PLOT}.svg"
    if not path.is_file():
        return None
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _left_out(table: SweepTable, shown: int) -> str:
    runs = sum(each.finished[0] for each in table.rows)
    if runs <= shown:
        return ""
    seed = table.plan.seeds[0]
    return f"Below: one run of each row, its pre-training with seed {seed} where there is one."
