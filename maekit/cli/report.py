"""``maekit report``: runs as one HTML file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.ablate.page import render_sweep
from maekit.ablate.run import sweep_in
from maekit.ablate.table import plain_table
from maekit.ablate.write import cells, columns
from maekit.atomic import write_bytes
from maekit.cli.output import print_json, print_table, say
from maekit.cli.reporters import shown
from maekit.engine.run_folder import plain
from maekit.errors import RecipeError, StorageError
from maekit.visualize.report.numbers import elapsed, held_out, number, numbers_of
from maekit.visualize.report.page import render
from maekit.visualize.report.paired import Paired, Unpaired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.ablate.plan import Plan
    from maekit.visualize.report.run import Run

FILE = "report.html"
SUFFIXES = (".html", ".htm")
PAIRED = ("run", "compared with", "same samples", "difference of top-1", "standard error", "notes")
LEFT_OUT = ("not compared by sample", "with", "why")


def report(runs: list[Path], out: Path | None, *, json: bool) -> int:
    """Write the page; return the exit code."""
    target = _target(runs, out)
    plans = [sweep_in(folder) for folder in runs]
    if any(plans):
        return _report_sweep(runs, plans[0], target, json=json)
    with shown():
        page, records, pairing = render(runs)
    _write(target, page)
    if json:
        rows = [
            {"run": str(run.path), "state": run.verdict.state, **asdict(numbers_of(run))}
            for run in records
        ]
        result = {"verb": "report", "exit": 0, "output": str(target), "bytes": len(page)}
        pairs = [_pair(each, records) for each in pairing.pairs]
        left_out = [_unpaired(each, records) for each in pairing.left_out]
        print_json(plain(result | {"runs": rows, "paired": pairs, "not_paired": left_out}))
    else:
        columns = ("run", "verdict", "loss", "held out", "time")
        print_table(columns, [_row(run) for run in records])
        if pairing.pairs:
            print_table(PAIRED, [_pair_row(each, records) for each in pairing.pairs])
        if pairing.left_out:
            rows = [_unpaired(each, records) for each in pairing.left_out]
            print_table(LEFT_OUT, [tuple(value or "-" for value in row.values()) for row in rows])
        say(f"report: {target}", err=True)
    return 0


def _report_sweep(runs: list[Path], plan: Plan | None, target: Path, *, json: bool) -> int:
    """Write the page of a sweep, which stands alone; return the exit code."""
    if plan is None or len(runs) > 1:
        msg = "a sweep of maekit ablate has a page of its own"
        raise RecipeError(msg, where="command line", hint="report it alone, or name runs below it")
    with shown():
        (page, _, _), table = render_sweep(plan, runs[0])
    _write(target, page)
    if json:
        result = {"verb": "report", "exit": 0, "output": str(target), "bytes": len(page)}
        print_json(plain(result | {"sweep": plain_table(table)}))
    else:
        print_table(columns(table), [cells(each, table) for each in table.rows])
        say(f"report: {target}", err=True)
    return 0


def _write(target: Path, page: bytes) -> None:
    try:
        write_bytes(target, page)
    except OSError as error:
        msg = f"the report cannot be written: {error.strerror}"
        raise StorageError(msg, where=str(target), hint="another file with --out") from error


def _pair(pair: Paired, runs: Sequence[Run]) -> dict[str, Any]:
    counted = asdict(pair) | {"difference": pair.difference, "error": pair.error}
    return counted | {"one": str(runs[pair.one].path), "other": str(runs[pair.other].path)}


def _pair_row(pair: Paired, runs: Sequence[Run]) -> tuple[str, ...]:
    values = (f"{pair.samples:,}", f"{pair.difference:+.4f}", f"{pair.error:.4f}")
    return (str(runs[pair.one].path), str(runs[pair.other].path), *values, "; ".join(pair.notes))


def _unpaired(left_out: Unpaired, runs: Sequence[Run]) -> dict[str, str | None]:
    beside = None if left_out.beside is None else str(runs[left_out.beside].path)
    return {"run": str(runs[left_out.run].path), "beside": beside, "reason": left_out.reason}


def _target(folders: list[Path], out: Path | None) -> Path:
    if out is None:
        return folders[0] / FILE if len(folders) == 1 else Path(FILE)
    if out.suffix.lower() not in SUFFIXES:
        msg = "a report is a file that ends in .html"
        better = out / FILE if out.is_dir() else out.with_suffix(".html")
        raise RecipeError(msg, where=f"--out {out}", hint=f"--out {better}")
    if not out.parent.is_dir():
        msg = "its folder does not exist"
        raise RecipeError(msg, where=f"--out {out}", hint=f"make {out.parent} first")
    return out


def _row(run: Run) -> tuple[str, ...]:
    found = numbers_of(run)
    values = (number(found.loss_last), held_out(found), elapsed(found.seconds))
    return (str(run.path), run.verdict.text, *values)
