"""``maekit ablate --dry-run``: runs, shared runs, hours and disk, measured on one of each kind."""

from __future__ import annotations

import json as json_text
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maekit.ablate.plan import Job, Plan
from maekit.ablate.sweep import words_for, write_files
from maekit.cli.dry_run import size
from maekit.cli.output import print_json, print_table
from maekit.engine.events import Emit, Note
from maekit.engine.reporters import duration
from maekit.engine.run_folder import free_space
from maekit.stop import check
from maekit.text import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence


class Cost(NamedTuple):
    """What jobs of one kind take.

    Attributes:
        jobs: how many there are, over seeds.
        seconds, disk: of one; None where it is not known.
        problem: why not.
    """

    jobs: int
    seconds: float | None
    disk: float | None
    problem: str | None = None


def rehearse(plan: Plan, device: str | None, emit: Emit, *, json: bool) -> int:
    """Dry-run one job of each kind, and print what all of them take; return the exit code."""
    kinds: dict[tuple[object, ...], list[Job]] = {}
    for job in plan.jobs.values():
        kinds.setdefault((job.verb, job.role, job.recipe, job.words), []).append(job)
    costs: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory(prefix="maekit-ablate-") as name:
        folder = Path(name)
        write_files(plan, folder)
        for jobs in kinds.values():
            check()
            emit(Note(f"dry run: {jobs[0].folder}"))
            costs[jobs[0].folder] = _cost(jobs, plan, folder, device)
    seconds = [(each.seconds or 0.0) * each.jobs for each in costs.values()]
    disk = [(each.disk or 0.0) * each.jobs for each in costs.values()]
    unknown = {name: each.problem for name, each in costs.items() if each.problem is not None}
    if json:
        print_json(
            {
                "verb": "ablate",
                "exit": 0,
                "runs": len(plan.jobs),
                "shared": len(plan.shared),
                "seconds": round(sum(seconds), 1),
                "disk_bytes": int(sum(disk)),
                "kinds": {name: each._asdict() for name, each in costs.items()},
                "not_known": unknown,
            }
        )
        return 0
    rows = [_row(name, each) for name, each in costs.items()]
    print_table(("run", "times", "time of one", "disk of one"), rows)
    without = quantity(len(unknown), "kinds")
    few = f" without {without} of which nothing is known" if unknown else ""
    total = [
        ("runs", f"{len(plan.jobs)}, {len(plan.shared)} of them shared by rows"),
        ("time", f"at most about {duration(sum(seconds))} one after the other{few}"),
        ("disk", f"{size(sum(disk))}, {size(free_space())} free here"),
    ]
    print_table(("dry run", ""), [*total, *((name, text or "") for name, text in unknown.items())])
    return 0


def _row(name: str, cost: Cost) -> Sequence[str]:
    time = "not known" if cost.seconds is None else duration(cost.seconds)
    disk = "not known" if cost.disk is None else size(cost.disk)
    return name, f"{cost.jobs}", time, disk


def _cost(jobs: Sequence[Job], plan: Plan, folder: Path, device: str | None) -> Cost:
    """Dry-run the first of equal jobs; weights that are yet to be made are left out."""
    job = jobs[0]
    words = words_for(job, plan, folder, device)
    words = [*words[: words.index("--out")], "--dry-run", "--json"]
    if job.after is not None:
        words[words.index("--from") + 1] = "scratch"
        if job.verb not in {"finetune", "probe"}:
            del words[words.index("--from") : words.index("--from") + 2]
    if job.codes is not None:
        problem = "its tokenizer is yet to be trained"
        return Cost(len(jobs), None, None, problem)
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "maekit", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        problem = lines[-1].removeprefix("error: ") if lines else f"exit {done.returncode}"
        return Cost(len(jobs), None, None, problem)
    told: dict[str, Any] = json_text.loads(done.stdout)
    return Cost(len(jobs), told.get("seconds"), told.get("disk_bytes", told.get("memory_bytes")))
