"""From a recipe with rows to the runs that they take; runs that rows share are there once."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.ablate.reference import paper_table
from maekit.errors import MaekitError, RecipeError
from maekit.recipe.ablate import JUDGES, Ablate, Row, Step
from maekit.recipe.dump import as_dict, dump, to_flow
from maekit.recipe.explain import suggest
from maekit.recipe.load import LoadedRecipe, read
from maekit.recipe.merge import parse_overrides
from maekit.recipe.schema import VERBS
from maekit.recipe.yaml12 import parse
from maekit.registry import resolve

if TYPE_CHECKING:
    from maekit.recipe.schema import Recipe

RECIPE = "recipe.yaml"  # of the sweep: what rows change
RUNS = "runs"  # folder below the sweep's: runs/<row>/<seed>/<role>
# Keys that say nothing of what a run computes.
_ASIDE = ("name", "seed", "expected", "ablate")


@dataclass(frozen=True)
class Job:
    """One run: an ordinary command in a folder of its own.

    Attributes:
        key: jobs of one key compute the same, and are one.
        role: its folder's name: pretrain, finetune, linear ...
        verb: the command.
        recipe: its file, below the sweep's folder.
        words: overrides.
        folder: below the sweep's folder.
        source: the weights that it starts from, as ``--from`` takes them.
        after: the key of the job whose weights it starts from, instead.
        codes: the key of the tokenizer's job whose codes it predicts.
        judge: the measure that it makes: linear, finetune ...; None: it only trains.
    """

    key: str
    role: str
    verb: str
    recipe: str
    words: tuple[str, ...]
    seed: int
    folder: str
    source: str | None = None
    after: str | None = None
    codes: str | None = None
    judge: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of the jobs that must be done before."""
        return tuple(key for key in (self.after, self.codes) if key is not None)


@dataclass(frozen=True)
class PlannedRow:
    """A row and its jobs.

    Attributes:
        name: of the row.
        words: what it changes, as on the command line.
        origin: where its weights come from, if not from a pre-training by its own recipe.
        position: the value of the only axis, where it is a number.
        jobs: by seed and role, the key of each job.
        choices: by judge, the roles of which the best is taken; mostly one.
        pretrained: by seed, the key of the job that measures of pre-training are of.
        model: the recipe as its pre-training has it; None where nothing is pre-trained.
    """

    name: str
    words: tuple[str, ...]
    origin: str
    position: float | None
    jobs: Mapping[int, Mapping[str, str]]
    choices: Mapping[str, tuple[str, ...]]
    pretrained: Mapping[int, str]
    model: Recipe | None


@dataclass(frozen=True)
class Plan:
    """All rows and all jobs of a sweep.

    Attributes:
        recipe: the base with its section ``ablate``.
        files: the recipes that jobs read, by their place below the sweep's folder.
        rows: in the order of the table.
        jobs: by key, each after those that it needs.
        seeds: that every row runs with.
    """

    recipe: Recipe
    files: Mapping[str, str]
    rows: tuple[PlannedRow, ...]
    jobs: Mapping[str, Job]
    seeds: tuple[int, ...]

    @property
    def ablate(self) -> Ablate:
        """The section of the recipe."""
        return required_ablate(self.recipe)

    @property
    def base(self) -> PlannedRow:
        """The row that others are compared with."""
        wanted = self.ablate.compare_to
        return next((row for row in self.rows if row.name == wanted), self.rows[0])

    def users(self, key: str) -> list[str]:
        """Return the names of the rows that use a job."""
        return [row.name for row in self.rows if any(key in jobs.values()
                for jobs in row.jobs.values())]  # fmt: skip

    @property
    def shared(self) -> set[str]:
        """The keys of jobs that several rows use."""
        return {key for key in self.jobs if len(self.users(key)) > 1}

    def only(self, names: Sequence[str]) -> Plan:
        """Return the plan with some of its rows; jobs keep their folders.

        Raises:
            RecipeError: there is no such row.
        """
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                hint = suggest(name, known) or f"one of {', '.join(known)}"
                raise RecipeError(f"--only {name}: no such row", where="command line", hint=hint)
        rows = tuple(row for row in self.rows if row.name in names)
        used = {key for row in rows for jobs in row.jobs.values() for key in jobs.values()}
        jobs = {key: job for key, job in self.jobs.items() if key in used}
        return replace(self, rows=rows, jobs=jobs)


def required_ablate(recipe: Recipe) -> Ablate:
    """Return the section ``ablate``; raise RecipeError where there is none."""
    if recipe.ablate is None:
        raise no_section()
    return recipe.ablate


def no_section() -> RecipeError:
    """Return the error of a recipe without rows."""
    hint = "`maekit recipes list` shows the shipped ones, ablations/..."
    return RecipeError("the recipe has no such section", where="ablate", hint=hint)


def make_plan(
    recipe: Recipe, seeds: Sequence[int] | None = None, *, kept: Path | None = None
) -> Plan:
    """Lay out the rows of a resolved recipe.

    Args:
        recipe: as ``registry.resolve`` returns it for no verb.
        seeds: other ones than the recipe's.
        kept: a sweep's folder, whose copies of rows' own recipes are read instead of those.

    Raises:
        RecipeError: a row changes what it cannot, names a recipe that is not there, or leaves
            nothing to measure.
    """
    ablate = required_ablate(recipe)
    builder = _Builder(recipe, ablate, kept)
    chosen = tuple(ablate.seeds if seeds is None else seeds)
    rows = _rows(ablate)
    if ablate.compare_to is not None and ablate.compare_to not in rows:
        hint = suggest(ablate.compare_to, rows) or f"one of {', '.join(rows)}"
        raise RecipeError("there is no such row", where="ablate.compare_to", hint=hint)
    planned = [builder.row(name, row, chosen) for name, row in rows.items()]
    # All rows of one seed come before the next one's, so that there is a whole table early.
    order = {seed: place for place, seed in enumerate(chosen)}
    jobs = sorted(builder.jobs.items(), key=lambda item: order[item[1].seed])
    return Plan(recipe, builder.files, tuple(planned), dict(jobs), chosen)


def describe(recipe: Recipe) -> list[str]:
    """Check all rows of a resolved recipe, with the paper's numbers; return their count in words.

    Raises:
        RecipeError: as ``make_plan`` and ``paper_table``.
    """
    plan = make_plan(recipe)
    names = [row.name for row in plan.rows]
    if plan.ablate.reference is not None:
        paper_table(plan.ablate.reference, names)
    return [f"{len(names)} rows ({', '.join(names)}): {len(plan.jobs)} runs"]


def _rows(ablate: Ablate) -> dict[str, Row]:
    """Return the rows, of axes all combinations, named by their values."""
    if ablate.axes is None:
        return {name: row for name, row in (ablate.rows or {}).items() if row is not None}
    rows: dict[str, Row] = {}
    for values in itertools.product(*ablate.axes.values()):
        name = " x ".join(_named(value) for value in values)
        if name in rows:
            msg = f"two rows are named {name}"
            raise RecipeError(msg, where="ablate.axes", hint="give each value once, or rows")
        rows[name] = Row(set_=dict(zip(ablate.axes, values, strict=True)))
    return rows


def _named(value: Any) -> str:  # noqa: ANN401 - any plain value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        inner = [to_flow(each) for key, each in value.items() if key != "name"]
        return " ".join([value["name"], *inner])
    return to_flow(value)


def words_of(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Write changes as a command line takes them."""
    return tuple(
        key if key.startswith("~") and value is None else f"{key}={to_flow(value)}"
        for key, value in changes.items()
    )


class _Builder:
    """Makes jobs, and finds those that are there already."""

    def __init__(self, recipe: Recipe, ablate: Ablate, kept: Path | None) -> None:
        self.ablate = ablate
        self._kept = kept
        self.jobs: dict[str, Job] = {}
        self.files = {RECIPE: dump(recipe)}
        self._trees = {RECIPE: _loaded(self.files[RECIPE])}
        self._resolved: dict[tuple[str, str | None, tuple[str, ...]], Recipe] = {}
        self._slugs: set[str] = set()
        self._named: dict[str, str] = {}  # files, by what the recipe calls them
        self._judges = [each for each in ablate.measure if each in JUDGES]

    def row(self, name: str, row: Row, seeds: Sequence[int]) -> PlannedRow:
        """Plan a row's jobs for each seed."""
        slug = self._slug(name)
        try:
            file = self._file(row.recipe)
            self._resolve(file, None, words_of(row.set_))  # also what no job of it reads
            chain = self._chain(row, file)
            jobs: dict[int, dict[str, str]] = {}
            choices: dict[str, dict[str, None]] = {}
            pretrained: dict[int, str] = {}
            for seed in seeds:
                own, last = self._chained(chain, row, file, seed, slug)
                jobs[seed] = dict(own)
                if last is not None:
                    pretrained[seed] = last
                end = next(reversed(own.values()), None)
                source = row.from_ if not own else None
                for judge, role, changes in self._judged():
                    verb = "finetune" if judge == "finetune" else "probe"
                    draft = _Draft(role, verb, file, {**row.set_, **changes}, source, end, judge)
                    jobs[seed][role] = self._job(draft, seed, slug)
                    choices.setdefault(judge, {})[role] = None
                if not jobs[seed]:
                    hint = "a pre-training, or one of linear, knn, attentive, finetune in measure"
                    raise RecipeError("there is nothing to run and to measure", hint=hint)
        except MaekitError as error:
            where = f"ablate row {name!r}" + ("" if error.where is None else f", {error.where}")
            raise type(error)(error.what, where=where, hint=error.hint) from error
        model = self._model(next(iter(pretrained.values()), None))
        return PlannedRow(
            name=name,
            words=words_of(row.set_),
            origin=_origin(row),
            position=self._position(row),
            jobs=jobs,
            choices={judge: tuple(roles) for judge, roles in choices.items()},
            pretrained=pretrained,
            model=model,
        )

    def _judged(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield judges, the roles of their runs, and what those change besides."""
        best_of = self.ablate.best_of or {}
        key = next(iter(best_of), "")
        for judge in self._judges:
            section = "finetune" if judge == "finetune" else "probe"
            if key.partition(".")[0] != section:
                yield judge, judge, {}
                continue
            for value in best_of[key]:
                yield judge, f"{judge}-{_slug(_named(value))}", {key: value}

    def _chain(self, row: Row, file: str) -> tuple[Step, ...]:
        if row.chain is not None:
            return row.chain
        if row.from_ is not None:
            return ()
        if "pretrain" not in self._trees[file].tree.fields:
            hint = "from: scratch, or the weights that are judged"
            raise RecipeError("its recipe pre-trains nothing", hint=hint)
        return (Step(),)

    def _chained(
        self, chain: Sequence[Step], row: Row, file: str, seed: int, slug: str
    ) -> tuple[dict[str, str], str | None]:
        """Return a chain's jobs by role, and the last pre-training among them."""
        found: dict[str, str] = {}
        before: str | None = None
        codes: str | None = None
        pretrained: str | None = None
        for place, step in enumerate(chain, 1):
            role = step.verb if len(chain) == 1 else f"{place}-{step.verb}"
            if step.recipe is None:
                own, changes = file, {**row.set_, **step.set_}
            else:
                own, changes = self._file(step.recipe), step.set_
            after = None if step.from_ is not None else before
            draft = _Draft(role, step.verb, own, changes, step.from_, after)
            if step.verb == "pretrain" and codes is not None:
                draft = replace(draft, codes=codes)
            found[role] = self._job(draft, seed, slug)
            if step.verb == "tokenizer":
                codes = found[role]
            else:
                before = found[role]
            if step.verb == "pretrain":
                pretrained = found[role]
        return found, pretrained

    def _job(self, draft: _Draft, seed: int, slug: str) -> str:
        """Return the key of a job, which is made unless there is one of the same run."""
        words = _read_by(draft.verb, words_of(draft.changes))
        shown = (*words, f"probe.kind={draft.judge}") if draft.verb == "probe" else words
        recipe = self._resolve(draft.file, draft.verb, shown)
        key = _digest(recipe, draft, seed)
        if key not in self.jobs:
            self.jobs[key] = Job(
                key=key,
                role=draft.role,
                verb=draft.verb,
                recipe=draft.file,
                words=words,
                seed=seed,
                folder=f"{RUNS}/{slug}/{seed}/{draft.role}",
                source=draft.source,
                after=draft.after,
                codes=draft.codes,
                judge=draft.judge,
            )
        return key

    def _model(self, key: str | None) -> Recipe | None:
        if key is None:
            return None
        job = self.jobs[key]
        return self._resolve(job.recipe, job.verb, job.words)

    def _resolve(self, file: str, verb: str | None, words: tuple[str, ...]) -> Recipe:
        known = self._resolved.get((file, verb, words))
        if known is None:
            loaded = self._trees[file]
            tree, _ = parse_overrides(words).apply(loaded.tree)
            known = resolve(replace(loaded, tree=tree), verb)
            self._resolved[file, verb, words] = known
        return known

    def _file(self, recipe: str | None) -> str:
        """Return the place of a recipe below the sweep's folder, where it is kept as it is now."""
        if recipe is None:
            return RECIPE
        if recipe not in self._named:
            stems = _numbered(Path(recipe).stem)
            name = next(
                each for stem in stems if (each := f"recipes/{stem}.yaml") not in self.files
            )
            copy = None if self._kept is None else self._kept / name
            there = copy is not None and copy.is_file()
            self.files[name] = dump(resolve(read(copy if copy is not None and there else recipe)))
            self._trees[name] = _loaded(self.files[name])
            self._named[recipe] = name
        return self._named[recipe]

    def _position(self, row: Row) -> float | None:
        """Return where a row stands on the only axis, if that is one of numbers."""
        axes = self.ablate.axes
        value = row.set_[next(iter(axes))] if axes is not None and len(axes) == 1 else None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if is_number else None  # type: ignore[arg-type]

    def _slug(self, name: str) -> str:
        free = next(each for each in _numbered(_slug(name)) if each not in self._slugs)
        self._slugs.add(free)
        return free


@dataclass(frozen=True)
class _Draft:
    role: str
    verb: str
    file: str
    changes: Mapping[str, Any]
    source: str | None
    after: str | None
    judge: str | None = None
    codes: str | None = None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "row"


def _numbered(slug: str) -> Iterator[str]:
    yield slug
    yield from (f"{slug}-{number}" for number in itertools.count(2))


def _loaded(text: str) -> LoadedRecipe:
    tree = parse(text, RECIPE)
    if tree is None:  # a dump is never empty
        raise AssertionError
    return LoadedRecipe(tree, Path(RECIPE))


def _read_by(verb: str, words: Sequence[str]) -> tuple[str, ...]:
    """Leave out what is said to other verbs."""
    others = {each for each in VERBS if each != verb}
    return tuple(
        word for word in words if re.split(r"[.=]", word.removeprefix("~"))[0] not in others
    )


def _digest(recipe: Recipe, draft: _Draft, seed: int) -> str:
    """Return what tells runs apart: what they read of their recipe, the seed, the weights."""
    others = {each for each in VERBS if each != draft.verb}
    plain = {key: each for key, each in as_dict(recipe).items()
             if key not in others and key not in _ASIDE}  # fmt: skip
    if draft.verb in {"finetune", "probe"} and isinstance(plain.get("model"), dict):
        # Of a pre-training's model, only its encoder is judged.
        plain["model"] = {k: each for k, each in plain["model"].items() if k != "decoder"}
    told = [draft.verb, plain, seed, draft.source, draft.after, draft.codes]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _origin(row: Row) -> str:
    """Say where a row's weights come from, if not from its own pre-training."""
    if row.from_ is not None:
        return f"from {row.from_}"
    own = "" if row.recipe is None else f"of {row.recipe}"
    if row.chain is None:
        return own
    steps = []
    for step in row.chain:
        start = None if step.from_ is None else f"from {step.from_}"
        steps.append(" ".join(filter(None, (step.verb, step.recipe, start))))
    return ", ".join(filter(None, (own, ", then ".join(steps))))
