"""The life of a sweep's folder: locked, planned, run or resumed, and its table written."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.ablate.plan import RECIPE, Plan, make_plan
from maekit.ablate.plot import PLOT, write_plot
from maekit.ablate.sweep import (
    Failure,
    Sweep,
    codes,
    is_done,
    is_extended,
    slots,
    visible_devices,
    write_files,
)
from maekit.ablate.table import SweepTable, make_table, plain_table
from maekit.ablate.values import collect
from maekit.ablate.write import write_table
from maekit.engine.events import Emit, Note
from maekit.engine.expected import compare
from maekit.engine.loggers import require_loggers
from maekit.engine.resume import ABLATE, check_same, check_verb
from maekit.engine.run import OpenRun, RunOptions, choose_folder, open_run
from maekit.errors import INTERRUPTED, RecipeError
from maekit.recipe.load import read
from maekit.registry import resolve
from maekit.runs import read_result, verb_of
from maekit.stop import StopSignal

if TYPE_CHECKING:
    from maekit.recipe.schema import Recipe


@dataclass(frozen=True)
class SweepOptions:
    """Settings of a sweep besides its recipe.

    Attributes:
        run: those of any run; ``source`` is not used.
        jobs: how many run at once; 0: none, what is there is collected.
        only: names of rows; empty: all.
        seeds: other ones than the recipe's.
        device: of every job, as ``--device`` takes it; None: one each, where there are several.
        prepare: make the folder and leave: the jobs are run elsewhere.
    """

    run: RunOptions = field(default_factory=RunOptions)
    jobs: int = 1
    only: Sequence[str] = ()
    seeds: Sequence[int] | None = None
    device: str | None = None
    prepare: bool = False


@dataclass(frozen=True)
class Swept:
    """What a sweep left: result.json and its folder, and what it was laid out as.

    Where it was only prepared, there is no result and no table.
    """

    plan: Plan
    folder: Path
    result: dict[str, Any] = field(default_factory=dict)
    table: SweepTable | None = None


def planned(recipe: Recipe, options: SweepOptions) -> Plan:
    """Return the plan of what is asked for.

    Raises:
        RecipeError: a row or the rows that were asked for are wrong, or a logger is not installed.
    """
    require_loggers(recipe)
    plan = make_plan(recipe, options.seeds)
    return plan.only(options.only) if options.only else plan


def run_sweep(recipe: Recipe, options: SweepOptions, listener: Emit) -> Swept:
    """Run a sweep in a folder, or resume it, and write its table.

    Args:
        recipe: resolved for no verb.
        options: folder, rows, and so on.
        listener: called with every event.

    Returns:
        result.json, folder and table. ``exit`` is the code of the first row that failed, and 75
        where a signal stopped the sweep.

    Raises:
        MaekitError: the sweep cannot run; what fails in a row does not raise.
    """
    plan = planned(recipe, options)
    path = choose_folder(ABLATE, recipe, options.run)
    with (
        StopSignal(signals=options.run.signals) as stop,
        open_run(path, listener, locks=options.run.locks) as run,
    ):
        _check_resumed(path, recipe, plan)  # what is refused leaves the sweep as it was
        begun: dict[str, Any] = {"verb": ABLATE, "recipe": recipe.name}
        with run.recorded(lambda _, code: begun | {"exit": code}):
            run.folder.write_env(ABLATE, options.device or "auto")
            write_files(plan, path)
            if options.prepare:
                return Swept(plan, path)
            run.emit(Note(f"sweep folder: {path}"))
            places = slots(options.jobs, visible_devices(options.device))
            sweep = Sweep(plan, path, places, run.emit, options.device)
            if sweep.done:
                run.emit(Note(f"{len(sweep.done)} of {len(plan.jobs)} runs are done already"))
            sweep.run(stop)
            return _finish(run, plan, sweep, stop, compared=options.run.compare)


def _finish(run: OpenRun, plan: Plan, sweep: Sweep, stop: StopSignal, *, compared: bool) -> Swept:
    """Write what is to be written, whether or not the sweep came to its end."""
    path = run.folder.path
    failed = {key: each for key, each in sweep.failed.items() if each.code != INTERRUPTED}
    table = table_of(plan, path, failed)
    write_table(table, path)
    for suffix in ("png", "svg"):  # of the table before, should there be nothing to draw now
        (path / f"{PLOT}.{suffix}").unlink(missing_ok=True)
    try:
        write_plot(table, path)
    except RecipeError as error:
        run.emit(Note(f"{error.what}: {error.hint}", warning=True))  # a note is one line
    whole = len(sweep.done) == len(plan.jobs)
    code = 0 if whole else INTERRUPTED
    first = next(codes(plan, failed), None)
    if first is not None and not stop.requested:
        code = first[1].code
    result: dict[str, Any] = {
        "verb": ABLATE,
        "exit": code,
        "recipe": plan.recipe.name,
        "jobs": len(plan.jobs),
        "done": len(sweep.done),
        "failures": {
            plan.jobs[key].folder: {"exit": each.code, "error": each.reason}
            for key, each in failed.items()
        },
        **plain_table(table),
    }
    if compared:
        result["expected"] = compare(plan.recipe.expected, ABLATE, _nested(table))
    run.folder.write_result(result)
    if code == INTERRUPTED:
        text = f"{len(sweep.done)} of {len(plan.jobs)} runs are done; continue with --resume"
        run.emit(Note(f"{text} --out {path}", warning=True))
    return Swept(plan, path, result, table)


def table_of(plan: Plan, folder: Path, failed: Mapping[str, Failure]) -> SweepTable:
    """Compute the table of what a sweep's folder holds now."""
    done = {key for key, job in plan.jobs.items() if is_done(job, folder)}
    return make_table(plan, collect(plan, folder), failed, done)


def _nested(table: SweepTable) -> dict[str, Any]:
    """Return means as ``expected`` finds them: by row and measure, dots of names included."""
    nested: dict[str, Any] = {}
    for each in table.rows:
        inner = nested
        for part in each.row.name.split("."):
            inner = inner.setdefault(part, {})
        inner |= {measure: cell.mean for measure, cell in each.cells.items()}
    return nested


def _check_resumed(path: Path, recipe: Recipe, plan: Plan) -> None:
    """Refuse to continue another sweep, or one whose rows' own recipes have changed.

    Raises:
        RecipeError: names the difference, or a row that was extended by hand.
    """
    if not (path / RECIPE).is_file():
        return
    check_verb(path, ABLATE)
    check_same(path, recipe, ABLATE)
    for job in plan.jobs.values():
        if is_extended(job, path):
            msg = "this run was extended: it has a longer budget than the other rows"
            hint = "move its folder away, and the row is made again with its own"
            raise RecipeError(msg, where=str(path / job.folder), hint=hint)
    for name, text in plan.files.items():
        if name == RECIPE or not (path / name).is_file():
            continue
        before = (path / name).read_text(encoding="utf-8")
        changed = [
            line
            for line in difflib.unified_diff(
                before.splitlines(), text.splitlines(), n=0, lineterm=""
            )
            if line[:1] in "+-" and not line.startswith(("+++", "---"))
        ]
        if changed:
            msg = "this recipe has changed since the sweep began: " + "; ".join(changed[:10])
            hint = "put it back, or start a new sweep with another --out"
            raise RecipeError(msg, where=str(path / name), hint=hint)


def sweep_in(folder: Path) -> Plan | None:
    """Return the plan of a sweep's folder, with the rows and seeds that it ran; None: no sweep."""
    if verb_of(folder) != ABLATE or not (folder / RECIPE).is_file():
        return None
    result = read_result(folder)
    seeds, rows = result.get("seeds"), result.get("rows")
    plan = make_plan(resolve(read(folder / RECIPE)), seeds or None, kept=folder)
    known = {row.name for row in plan.rows}
    told = rows if isinstance(rows, list) else []
    names = [row["row"] for row in told if isinstance(row, dict) and row.get("row") in known]
    return plan.only(names) if names else plan
