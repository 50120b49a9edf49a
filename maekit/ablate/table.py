"""The table of a sweep: means, spreads, differences, the paper's numbers, and what they say."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit.ablate.differences import Difference, difference
from maekit.ablate.reference import PaperTable, paper_table
from maekit.ablate.values import COUNTED, Measured

if TYPE_CHECKING:
    from maekit.ablate.plan import Plan, PlannedRow
    from maekit.ablate.sweep import Failure


class Unit(NamedTuple):
    """How a measure is written: its heading, what it is multiplied by, and its digits."""

    heading: str
    factor: float
    digits: int


UNITS = {
    "holdout_loss": Unit("held-out loss", 1.0, 4),
    "gain_db": Unit("gain, dB", 1.0, 2),
    "linear": Unit("linear, %", 100.0, 1),
    "knn": Unit("k-NN, %", 100.0, 1),
    "attentive": Unit("attentive, %", 100.0, 1),
    "finetune": Unit("fine-tuned, %", 100.0, 1),
    "seconds": Unit("seconds", 1.0, 0),
    "samples_per_second": Unit("samples/s", 1.0, 0),
    "flops": Unit("GFLOPs", 1e-9, 3),
    "memory": Unit("memory, GB", 1e-9, 2),
    "parameters": Unit("parameters, M", 1e-6, 2),
}
COSTS = ("seconds", "samples_per_second", "flops", "memory", "parameters")
MOST_NAMED = 4  # pairs that a sentence names


@dataclass(frozen=True)
class Cell:
    """A measure of a row.

    Attributes:
        mean: over seeds.
        std: over seeds, of the sample; None for a single one.
        seeds: by seed, each value.
        difference: to the base row; None for it, and where the two share no seed.
    """

    mean: float
    std: float | None
    seeds: Mapping[int, float]
    difference: Difference | None


@dataclass(frozen=True)
class TableRow:
    """A row as the table shows it.

    Attributes:
        row: as it was planned.
        cells: by measure; a measure that is not there is missing.
        failure: why it is not whole; None where it is.
        finished: how many of its jobs are done, of how many.
        found: what its runs left.
    """

    row: PlannedRow
    cells: Mapping[str, Cell]
    failure: Failure | None
    finished: tuple[int, int]
    found: Measured


@dataclass(frozen=True)
class SweepTable:
    """A sweep's table.

    Attributes:
        plan: of the sweep.
        rows: in the order of the recipe.
        paper: its table; None where the recipe names none.
        verdicts: what the numbers say, in sentences.
        notes: what could not be measured, and why.
    """

    plan: Plan
    rows: tuple[TableRow, ...]
    paper: PaperTable | None
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """The recipe's measures, in its order."""
        return self.plan.ablate.measure

    @property
    def title(self) -> str:
        """What stands above the table."""
        return self.plan.ablate.title or self.plan.recipe.name

    @property
    def scale(self) -> str:
        """What was run, in words."""
        return scale_of(self.plan)


def make_table(
    plan: Plan,
    found: Mapping[str, Measured],
    failed: Mapping[str, Failure],
    finished: set[str],
) -> SweepTable:
    """Compute the table of what was found.

    Args:
        plan: of the sweep.
        found: by row.
        failed: by job.
        finished: the jobs that are done.

    Raises:
        RecipeError: the recipe names a paper's table, column or row that is not there.
    """
    reference = plan.ablate.reference
    paper = None if reference is None else paper_table(reference, [row.name for row in plan.rows])
    base = found[plan.base.name]
    rows = []
    for row in plan.rows:
        keys = dict.fromkeys(key for jobs in row.jobs.values() for key in jobs.values())
        own = found[row.name]
        cells: dict[str, Cell] = {
            measure: _cell(measure, own, None if row is plan.base else base)
            for measure in plan.ablate.measure
            if own.values.get(measure)
        }
        failure = next((failed[key] for key in keys if key in failed), None)
        rows.append(TableRow(row, cells, failure, (len(finished & keys.keys()), len(keys)), own))
    verdicts = [
        sentence
        for measure in plan.ablate.measure
        for sentence in _verdicts(measure, plan, found, paper)
    ]
    notes = dict.fromkeys(f"{name}: {note}" for name, own in found.items() for note in own.notes)
    return SweepTable(plan, tuple(rows), paper, tuple(verdicts), tuple(notes))


def _cell(measure: str, own: Measured, base: Measured | None) -> Cell:
    values = own.values[measure]
    numbers = list(values.values())
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    apart = None if base is None else _difference(measure, own, base)
    return Cell(statistics.fmean(numbers), std, values, apart)


def _difference(measure: str, one: Measured, other: Measured) -> Difference | None:
    return difference(
        one.values.get(measure, {}),
        other.values.get(measure, {}),
        one.predictions.get(measure),
        other.predictions.get(measure),
    )


def _verdicts(
    measure: str, plan: Plan, found: Mapping[str, Measured], paper: PaperTable | None
) -> list[str]:
    """Say whether a measure tells the rows apart, and whether in the paper's order."""
    heading = UNITS[measure].heading.partition(",")[0]
    pairs = {}
    for one, other in itertools.combinations(plan.rows, 2):
        apart = _difference(measure, found[one.name], found[other.name])
        if apart is not None:
            pairs[one.name, other.name] = apart
    if not pairs or measure in COUNTED:  # these have no spread
        return []
    sentences = []
    told = [apart for apart in pairs.values() if apart.resolved]
    if measure in COSTS:
        pass  # of interest beside the paper's alone
    elif all(apart.error is None for apart in pairs.values()):
        sentences.append(f"{heading}: one seed and no judged samples, so that no spread is known.")
    elif not told:
        sentences.append(
            f"{heading}: no two rows differ by more than twice their standard error; this table "
            "does not tell their order."
        )
    if paper is None or measure not in paper.columns:
        return sentences
    return [*sentences, *_against_paper(heading, measure, pairs, paper)]


def _against_paper(
    heading: str, measure: str, pairs: Mapping[tuple[str, str], Difference], paper: PaperTable
) -> list[str]:
    agree, against, unresolved, same = [], [], [], []
    for (one, other), apart in pairs.items():
        first, second = paper.of(one, measure), paper.of(other, measure)
        if first is None or second is None:
            continue
        theirs = first - second
        higher, lower = (one, other) if theirs > 0 else (other, one)
        names = f"{higher} above {lower}"
        if abs(theirs) <= paper.noise.get(measure, 0.0):
            same.append(names)
        elif not apart.resolved:
            unresolved.append(names)
        elif (apart.value > 0) == (theirs > 0):
            agree.append(names)
        else:
            against.append(names)
    count = len(agree) + len(against) + len(unresolved)
    if not count:
        return []
    parts = [
        f"{len(agree)} as in the paper{_listed(agree)}",
        f"{len(against)} the other way round than the paper{_listed(against)}",
        f"{len(unresolved)} not told apart here{_listed(unresolved)}",
    ]
    text = f"{heading}: of {count} pairs that differ in the paper ({paper.columns[measure]}), "
    beside = f"; {len(same)} more are equal there" if same else ""
    return [text + ", ".join(parts) + beside + "."]


def _listed(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f" ({', '.join(names[:MOST_NAMED])}{more})"


def scale_of(plan: Plan) -> str:
    """Say what was run: model, size of the data, budget, seeds."""
    recipe = plan.recipe
    parts = []
    if recipe.model is not None:
        backbone = recipe.model.backbone.written
        known = ("size", "width", "depth", "model", "patch")
        sizes = [f"{key} {backbone[key]}" for key in known if backbone.get(key) is not None]
        parts.append(" ".join([str(backbone["name"]), *sizes]))
    data = recipe.data
    height, width = data.height_width
    clip = (
        f"{height}x{width}" if data.train.frames == 1 else f"{data.train.frames}x{height}x{width}"
    )
    parts.append(f"{clip} pixels")
    section = recipe.pretrain
    if section is not None:
        budget = next(f"{getattr(section, key):g} {key}" for key in section.alternatives
                      if getattr(section, key) is not None)  # fmt: skip
        parts.append(f"{budget} of pre-training")
    parts.append(f"seed{'s' if len(plan.seeds) > 1 else ''} {', '.join(map(str, plan.seeds))}")
    return ", ".join(parts)


def plain_table(table: SweepTable) -> dict[str, Any]:
    """Return the table as table.json holds it; judged values are fractions."""
    plan = table.plan
    return {
        "name": plan.recipe.name,
        "title": table.title,
        "scale": table.scale,
        "seeds": list(plan.seeds),
        "base": plan.base.name,
        "measures": list(table.measures),
        "rows": [_plain_row(each, table) for each in table.rows],
        "paper": None if table.paper is None else {
            "source": table.paper.source,
            "title": table.paper.title,
            "setting": table.paper.setting,
            "columns": dict(table.paper.columns),
        },
        "verdicts": list(table.verdicts),
        "notes": list(table.notes),
    }  # fmt: skip


def _plain_row(each: TableRow, table: SweepTable) -> dict[str, Any]:
    plan, row = table.plan, each.row
    record: dict[str, Any] = {
        "row": row.name,
        "words": list(row.words),
        "origin": row.origin or None,
        "position": row.position,
        "exit": 0 if each.failure is None else each.failure.code,
        "error": None if each.failure is None else each.failure.reason,
        "finished": each.finished[0],
        "of": each.finished[1],
        "machines": each.found.machines,
        "runs": {
            str(seed): {role: plan.jobs[key].folder for role, key in jobs.items()}
            for seed, jobs in row.jobs.items()
        },
        "values": {measure: _plain_cell(cell) for measure, cell in each.cells.items()},
        "paper": {} if table.paper is None else dict(table.paper.values.get(row.name, {})),
    }
    if each.found.flops is not None:
        flops = each.found.flops
        record["flops"] = {
            "forward": flops.forward,
            "encoder": flops.encoder,
            "decoder": flops.decoder,
            "total": flops.total,
            "encoder_over_decoder": flops.ratio,
        }
    return record


def _plain_cell(cell: Cell) -> dict[str, Any]:
    record: dict[str, Any] = {
        "mean": cell.mean,
        "std": cell.std,
        "seeds": {str(seed): value for seed, value in cell.seeds.items()},
    }
    apart = cell.difference
    if apart is not None:
        record["difference"] = {
            "value": apart.value,
            "error": apart.error,
            "over_seeds": apart.over_seeds,
            "over_samples": apart.over_samples,
            "samples": apart.samples,
        }
    return record
