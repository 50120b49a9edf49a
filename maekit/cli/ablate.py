"""``maekit ablate``: run a table of ablations, list it, or print its commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.ablate.plan import Plan, no_section
from maekit.ablate.plot import PLOT
from maekit.ablate.reference import paper_table
from maekit.ablate.run import SweepOptions, Swept, planned, run_sweep
from maekit.ablate.sweep import command_lines
from maekit.ablate.table import UNITS, scale_of
from maekit.ablate.write import TABLE, cells, columns, sentences
from maekit.cli.output import print_json, print_table, say
from maekit.cli.reporters import shown
from maekit.cli.result import print_comparison
from maekit.engine.events import Note
from maekit.engine.resume import is_restarted
from maekit.engine.run import RunOptions
from maekit.errors import RecipeError
from maekit.recipe.load import read
from maekit.registry import resolve
from maekit.runs import RUNS
from maekit.visualize.report.numbers import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.recipe.schema import Recipe


def ablate(
    recipe: str,
    overrides: list[str] | None,
    jobs: int,
    resume: bool,
    overwrite: bool,
    lock: bool,
    list_only: bool,
    only: list[str] | None,
    seeds: str | None,
    print_commands: bool,
    dry_run: bool,
    compare_expected: bool,
    out: Path | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run a recipe's rows, or say what they are; return the exit code."""
    loaded = read(recipe, overrides or [])
    if loaded.tree.at(("ablate",)) is None:  # before what else its keys lack
        raise no_section()
    resolved = resolve(loaded)
    options = SweepOptions(
        RunOptions(
            out,
            resume or is_restarted(),
            overwrite,
            compare=compare_expected,
            signals=True,
            locks=lock,
        ),
        jobs=jobs,
        only=only or [],
        seeds=None if seeds is None else _seeds(seeds),
        device=device,
        prepare=print_commands,
    )
    with shown("ablate", quiet=quiet, verbose=verbose) as terminal:
        for note in loaded.notes:
            terminal(Note(note))
        if list_only:
            return _list(planned(resolved, options), out, device, json=json)
        if dry_run:
            from maekit.cli.ablate_dry_run import rehearse

            return rehearse(planned(resolved, options), device, terminal, json=json)
        swept = run_sweep(resolved, options, terminal)
    if print_commands:
        return _print_commands(swept.plan, swept.folder, device, json=json)
    return _tell(swept, json=json, quiet=quiet)


def _seeds(text: str) -> list[int]:
    numbers = [each.strip() for each in text.split(",")]
    if not all(each.isdigit() for each in numbers) or len(set(numbers)) < len(numbers):
        hint = "numbers with commas between them, each once, as in --seeds 0,1,2"
        raise RecipeError(f"--seeds {text}: not a list of seeds", where="command line", hint=hint)
    return [int(each) for each in numbers]


def _folder(recipe: Recipe, out: Path | None) -> Path:
    """Return where a sweep would go, without making it."""
    return RUNS / recipe.name / "N" if out is None else out


def _list(plan: Plan, out: Path | None, device: str | None, *, json: bool) -> int:
    """Print rows, the paper's numbers, and the commands."""
    folder = _folder(plan.recipe, out)
    reference = plan.ablate.reference
    paper = None if reference is None else paper_table(reference, [row.name for row in plan.rows])
    stages = command_lines(plan, folder, device)
    measures = [] if paper is None else list(paper.columns)
    if json:
        rows = [
            {
                "row": row.name,
                "words": list(row.words),
                "origin": row.origin or None,
                "paper": {} if paper is None else dict(paper.values.get(row.name, {})),
            }
            for row in plan.rows
        ]
        print_json(
            {
                "name": plan.recipe.name,
                "scale": scale_of(plan),
                "base": plan.base.name,
                "measures": list(plan.ablate.measure),
                "rows": rows,
                "paper": None if paper is None else paper.source,
                "runs": len(plan.jobs),
                "commands": stages,
            }
        )
        return 0
    headings = [f"paper: {paper.columns[each]}" for each in measures] if paper else []
    table = []
    for row in plan.rows:
        words = " ".join([*row.words, *([row.origin] if row.origin else [])])
        numbers = [None if paper is None else paper.of(row.name, each) for each in measures]
        shown = [MISSING if each is None else f"{each:g}" for each in numbers]
        name = f"{row.name} (base)" if row is plan.base else row.name
        table.append((name, words or "as the base recipe", *shown))
    print_table(("row", "changes", *headings), table)
    say(f"measured: {'; '.join(UNITS[each].heading for each in plan.ablate.measure)}")
    say(f"here:     {scale_of(plan)}")
    if paper is not None:
        say(f"paper:    {paper.source}: {paper.title} ({paper.setting})")
    say(f"runs:     {_counted(plan)}\n")
    _say_commands(stages)
    return 0


def _counted(plan: Plan) -> str:
    """Say how many runs there are, and how many of them rows share."""
    counts: dict[str, int] = {}
    for job in plan.jobs.values():
        counts[job.verb] = counts.get(job.verb, 0) + 1
    kinds = ", ".join(f"{count} {verb}" for verb, count in counts.items())
    return f"{len(plan.jobs)} ({kinds}); {len(plan.shared)} shared by rows"


def _say_commands(stages: Sequence[Sequence[str]]) -> None:
    for number, stage in enumerate(stages, 1):
        if len(stages) > 1:
            say(f"# stage {number} of {len(stages)}: after all of the one before")
        for line in stage:
            say(line)


def _print_commands(plan: Plan, folder: Path, device: str | None, *, json: bool) -> int:
    stages = command_lines(plan, folder, device)
    if json:
        print_json({"folder": str(folder), "commands": stages})
        return 0
    _say_commands(stages)
    say(f"then: maekit ablate ... --resume --jobs 0 --out {folder}", err=True)
    return 0


def _tell(swept: Swept, *, json: bool, quiet: bool) -> int:
    """Print the table on stdout; on stderr where things are."""
    result, table = swept.result, swept.table
    code: int = result["exit"]
    if table is None:
        return code
    if json:
        print_json(result)
    else:
        print_table(columns(table), [cells(each, table) for each in table.rows])
        for sentence in sentences(table):
            say(sentence)
        if "expected" in result:
            print_comparison(result["expected"])
    if not quiet:
        files: dict[str, Any] = {"table:": f"{TABLE}.md", "plot:": f"{PLOT}.png"}
        for name, file in files.items():
            if (swept.folder / file).is_file():
                say(f"{name:8} {swept.folder / file}", err=True)
        say(f"report:  maekit report {swept.folder}", err=True)
    return code
