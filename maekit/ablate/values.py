"""What was measured of each row and seed, read from the run folders; what is missing has no key."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.ablate.flops import Flops, count_flops
from maekit.ablate.sweep import is_done
from maekit.engine.build import describe
from maekit.engine.run_folder import PREDICTIONS
from maekit.errors import DataError, MaekitError
from maekit.recipe.ablate import JUDGES
from maekit.visualize.report.numbers import numbers_of
from maekit.visualize.report.run import Predictions, Run, read_predictions, read_run

if TYPE_CHECKING:
    from maekit.ablate.plan import Plan, PlannedRow

COUNTED = ("flops", "parameters")  # of the model, once for all seeds


@dataclass
class Measured:
    """A row's values.

    Attributes:
        values: by measure and seed.
        predictions: by judge and seed, of runs that left them.
        flops: of a sample of pre-training, where they were asked for.
        machines: threads and device of its runs, as env.json has them.
        notes: what could not be measured, and why.
    """

    values: dict[str, dict[int, float]] = field(default_factory=dict)
    predictions: dict[str, dict[int, Predictions]] = field(default_factory=dict)
    flops: Flops | None = None
    machines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(plan: Plan, folder: Path) -> dict[str, Measured]:
    """Read what the finished runs of a sweep left, by row."""
    runs: dict[str, Run] = {
        key: read_run(folder / job.folder) for key, job in plan.jobs.items() if is_done(job, folder)
    }
    kept: dict[str, Predictions] = {}
    return {row.name: _of_row(plan, row, folder, runs, kept) for row in plan.rows}


def _of_row(
    plan: Plan,
    row: PlannedRow,
    folder: Path,
    runs: Mapping[str, Run],
    kept: dict[str, Predictions],
) -> Measured:
    found = Measured()
    for measure in plan.ablate.measure:
        if measure in COUNTED:
            continue
        keys: Mapping[int, str] = row.pretrained
        if measure in JUDGES:
            role = _best(plan, row, measure, runs, found)
            keys = {seed: row.jobs[seed][role] for seed in plan.seeds}
        for seed, key in keys.items():
            if key not in runs:
                continue
            value = value_of(measure, runs[key])
            if value is not None:
                found.values.setdefault(measure, {})[seed] = value
            if measure in JUDGES:
                _add_predictions(found, measure, seed, key, folder / plan.jobs[key].folder, kept)
    every = dict.fromkeys(key for jobs in row.jobs.values() for key in jobs.values())
    machines = (_machine(runs[key].environment) for key in every if key in runs)
    found.machines = list(dict.fromkeys(machines))
    _count(plan, row, found)
    return found


def _best(plan: Plan, row: PlannedRow, judge: str, runs: Mapping[str, Run], found: Measured) -> str:
    """Return the role with the highest mean over seeds; the first, where nothing is judged yet."""
    roles = row.choices[judge]
    means: dict[str, float] = {}
    for role in roles:
        ours = [row.jobs[seed][role] for seed in plan.seeds]
        values = [value_of(judge, runs[key]) for key in ours if key in runs]
        known = [value for value in values if value is not None]
        if known:
            means[role] = statistics.fmean(known)
    best = max(means, key=lambda role: means[role], default=roles[0])
    if len(means) > 1:
        key = next(iter(plan.ablate.best_of or {}))
        chosen = best.removeprefix(f"{judge}-")
        found.notes.append(f"{judge}: the best of {len(means)} values of {key}, {chosen}")
    return best


def _add_predictions(
    found: Measured, measure: str, seed: int, key: str, run: Path, kept: dict[str, Predictions]
) -> None:
    path = run / PREDICTIONS
    if key not in kept:
        if not path.is_file():
            return
        try:
            kept[key] = read_predictions(path)
        except DataError as error:
            found.notes.append(str(error))
            return
    found.predictions.setdefault(measure, {})[seed] = kept[key]


def _count(plan: Plan, row: PlannedRow, found: Measured) -> None:
    """Count what follows from the recipe alone."""
    wanted = [measure for measure in COUNTED if measure in plan.ablate.measure]
    if row.model is None or not wanted:
        return
    try:
        if "parameters" in wanted:
            count = float(describe(row.model).parameters)
            found.values["parameters"] = dict.fromkeys(plan.seeds, count)
        if "flops" in wanted:
            found.flops = count_flops(row.model)
            found.values["flops"] = dict.fromkeys(plan.seeds, float(found.flops.total))
    except MaekitError as error:
        found.notes.append(str(error))


def value_of(measure: str, run: Run) -> float | None:
    """Return what a run measured; judged ones are fractions, or in the labels' own units."""
    if measure in JUDGES:
        judged = numbers_of(run).judged
        return None if judged is None else judged[1]
    if measure == "holdout_loss":
        return run.holdout.get("loss")
    if measure == "memory":
        peaks = [step["memory"] for step in run.steps if step.get("memory") is not None]
        return max(peaks, default=None)
    numbers = numbers_of(run)
    value: float | None = getattr(numbers, measure)
    return value


def _machine(environment: Mapping[str, Any]) -> str:
    threads, gpu = environment.get("threads"), environment.get("gpu")
    return f"{gpu or environment.get('device', 'unknown')}, {threads} thread(s)"
