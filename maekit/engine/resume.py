"""Decide what a run resumes from, and what may have changed since.

The keys that are free to change say where and how a run computes; all others change its numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from maekit.atomic import write_bytes, write_text
from maekit.data.identity import Identity, differences, identify
from maekit.engine.events import Emit, Note
from maekit.engine.extension import EXTENDABLE, free_keys
from maekit.engine.run_folder import unfinished_runs
from maekit.errors import MaekitError, RecipeError
from maekit.installed import OURS
from maekit.recipe.dump import as_dict
from maekit.recipe.load import load
from maekit.recipe.schema import VERBS, parts
from maekit.registry import has_own, other_versions
from maekit.runs import verb_of
from maekit.weights.locate import SCRATCH, entry_of, local_path, with_entry

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.contracts import Dataset
    from maekit.recipe.schema import Recipe

DATA = "data.json"  # in a run's folder: what its data sets were
_IDENTITIES = TypeAdapter(dict[str, Identity])
STARTED = "started.json"  # in a run's folder: the weights that it started from
# How often a scheduler has started this job again: then it means to resume.
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
# What may change in the middle of a run: where and how it computes, never what.
FREE = (
    "data.workers",
    "data.timeout",
    "data.train.max_bad_fraction",
    "data.val.max_bad_fraction",
    "data.train.published",
    "data.val.published",
    "expected",
    "log",
    "plugins",  # another version is said
    "ablate.title",
    "ablate.measure",
    "ablate.seeds",
    "ablate.compare_to",
    "ablate.reference",
)
# The same, of the section of the verb that is resumed.
FREE_IN_SECTION = (
    "batch.per_device",
    "batch.accumulation",
    "compile",
    "activation_checkpointing",
    "checkpoint",
    "max_nonfinite",
    "sharding",
    "online_probe",
    "pictures",
    "validate",
)
# Verbs whose numbers depend on how a batch is split: what is mixed, by which random
# draws, and batch statistics.
SPLIT_MATTERS = ("finetune", "probe")
ABLATE = "ablate"


def is_restarted() -> bool:
    """Return whether a scheduler restarted this job."""
    return any(os.environ.get(name, "0").strip() not in ("", "0") for name in RESTARTS)


def check_verb(run: Path, verb: str) -> None:
    """Raise RecipeError where a folder holds a run of another verb, saved or not."""
    other = verb_of(run)
    if other not in (None, verb):
        msg = f"this is a run of `maekit {other}`, not {verb}"
        raise RecipeError(msg, where=str(run), hint="give another --out")


def record_source(run: Path, source: str | None) -> None:
    """Keep which weights a run starts from: they are as much a part of it as its recipe."""
    write_text(run / STARTED, json.dumps({"from": _plain_source(source)}) + "\n")


def check_source(run: Path, requested: str | None) -> None:
    """Refuse to resume a run that started from other weights than are requested now.

    Raises:
        RecipeError: ``--from`` names others.
    """
    if requested is None or not (run / STARTED).is_file():
        return
    before, now = _started_from(run), _plain_source(requested)
    if before != now:
        msg = f"this run started from {before or 'no weights'}, not from {now}"
        hint = "leave --from out to resume it, or give another --out"
        raise RecipeError(msg, where=str(run), hint=hint)


def recorded_source(run: Path) -> str | None:
    """Return the weights that an earlier start of a run began with, if there was one."""
    return _started_from(run) if (run / STARTED).is_file() else None


def _started_from(run: Path) -> str | None:
    try:
        found = json.loads((run / STARTED).read_text(encoding="utf-8"))
        return None if found["from"] is None else str(found["from"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        msg = f"cannot be read: {error}"
        raise RecipeError(msg, where=str(run / STARTED), hint="give another --out") from error


def _plain_source(source: str | None) -> str | None:
    """Return a source as any working directory names it."""
    path = None if source in (None, SCRATCH) else local_path(source)
    return source if path is None else with_entry(str(path.resolve()), entry_of(str(source)))


def check_data(
    run: Path, sets: Mapping[str, Dataset | None], *, resumed: bool, accept: bool, emit: Emit
) -> dict[str, Identity]:
    """Return what a run's data is, once it is compared with what it was.

    Args:
        run: the run's folder.
        sets: by their key in the recipe.
        resumed: the run continues from a checkpoint.
        accept: take it as it is now, though it differs.
        emit: called with a note of each accepted difference.

    Raises:
        RecipeError: it is not what it was when the run began; another number of training samples
            is never accepted.
    """
    now = {key: identify(each) for key, each in sets.items() if each is not None}
    path = run / DATA
    if resumed and not path.is_file():
        emit(Note(f"{path} is missing: whether the data has changed cannot be told", warning=True))
    elif resumed:
        try:
            before = _IDENTITIES.validate_json(path.read_bytes())
        except ValidationError as error:
            msg = f"cannot be understood: {error.errors()[0]['msg']}"
            hint = "put it back, or resume without it by --accept-data"
            if not accept:
                raise RecipeError(msg, where=str(path), hint=hint) from error
            before = {}
        for key in sorted(before.keys() & now.keys()):
            found = differences(before[key], now[key])
            # The order of an epoch and the schedule follow from the number of training samples.
            fixed = key == "data.train" and before[key].samples != now[key].samples
            if found and (fixed or not accept):
                msg = "the data is not what it was when this run began: " + "; ".join(found)
                otherwise = (
                    "start a new run with --from this one"
                    if fixed
                    else "resume with it as it is now by --accept-data"
                )
                raise RecipeError(msg, where=key, hint=f"put it back, or {otherwise}")
            for each in found:
                emit(Note(f"{key}, accepted: {each}", warning=True))
    return now


def record_data(run: Path, data: dict[str, Identity]) -> None:
    """Keep what a run's data is."""
    write_bytes(run / DATA, _IDENTITIES.dump_json(data, indent=1))


def newest_of(
    recipe: Recipe, verb: str, source: str | None, *, extended: bool = False
) -> Path | None:
    """Return the newest unfinished run of this very recipe and these weights, if there is one.

    A requeued job finds its own run by it, not that of another seed.

    Args:
        recipe: as it is resolved now.
        verb: the command.
        source: the weights that are asked for.
        extended: the run may be finished, and have had another budget.
    """
    found = _unfinished(recipe, verb, source, extended=extended)
    return next((run for run, refusal in found if refusal is None), None)


def passed_over(recipe: Recipe, verb: str, source: str | None) -> tuple[Path, MaekitError] | None:
    """Return the newest run of the recipe's name that could be resumed, and why it is not meant."""
    for run, refusal in _unfinished(recipe, verb, source):
        if refusal is not None and any(run.glob("checkpoints/*/state.json")):
            return run, refusal
    return None


def _unfinished(
    recipe: Recipe, verb: str, source: str | None, *, extended: bool = False
) -> Iterator[tuple[Path, MaekitError | None]]:
    """Yield unfinished runs, newest first, each with what is said if this recipe resumes it."""
    for run in unfinished_runs(recipe.name, verb, finished=extended):
        refusal: MaekitError | None = None
        try:
            check_same(run, recipe, verb, extended=extended)
            check_source(run, source)
        except MaekitError as error:
            refusal = error
        yield run, refusal


def check_same(run: Path, recipe: Recipe, verb: str, *, extended: bool = False) -> None:
    """Refuse to resume a run as another experiment.

    Sections of other verbs may change: this one does not read them.

    Args:
        run: the run's folder.
        recipe: as it is resolved now.
        verb: the command.
        extended: the budget may be another.

    Raises:
        RecipeError: a key that changes the numbers differs; each is named with both values.
    """
    written = run / "recipe.yaml"
    if not written.is_file():
        msg = "its recipe.yaml is missing: nothing says what this run is"
        raise RecipeError(msg, where=str(run), hint="put it back, or give another --out")
    old_recipe = load(written).recipe
    before, now = as_dict(old_recipe), as_dict(recipe)
    kinds = {".".join((*path, "name")): spec.kind for path, spec in parts(old_recipe)}
    read_too = VERBS if verb == ABLATE else (verb,)  # a sweep runs the others
    free = {*FREE, *(f"{each}.{key}" for each in read_too for key in FREE_IN_SECTION)}
    for each in read_too:
        if each in SPLIT_MATTERS:
            free -= {f"{each}.batch.per_device", f"{each}.batch.accumulation"}
    free |= set(free_keys(verb)) if extended else set()
    free |= {other for other in (*VERBS, ABLATE) if other not in (*read_too, verb)}
    changed = {
        key: (old, new)
        for key, old, new in _differences(before, now)
        if not any(key == one or key.startswith(f"{one}.") for one in free)
        and not (key in kinds and _same_part(kinds[key], old, new))
    }
    if changed:
        said = (f"{key}: {old!r} before, {new!r} now" for key, (old, new) in changed.items())
        msg = "this run was made with another recipe: " + "; ".join(said)
        hint = "resume with the same recipe, or start a new run from its weights with --from"
        if changed.keys() <= set(free_keys(verb)) and verb in EXTENDABLE:
            budgets = (f"{key}={new}" for key, (_, new) in changed.items() if new is not None)
            wanted = next(budgets, None)  # none where fine-tuning falls back on its own
            if wanted is not None:
                hint = f"--extend {wanted} goes on with it, if that is more; or {hint}"
        raise RecipeError(msg, where=str(written), hint=hint)


def _same_part(kind: str, before: object, now: object) -> bool:
    """Return whether two names may mean one part: once runs kept the bare one that was written.

    A bare name that maekit itself has always meant maekit's.
    """
    old, new = str(before), str(now)
    ours = f"{OURS}/"
    if old.removeprefix(ours) == new.removeprefix(ours):
        return True
    return old == new.rpartition("/")[2] and not has_own(kind, old)


def changed_parts(run: Path, recipe: Recipe) -> list[str]:
    """Say which parts of a run may not be those that it began with: they have another version.

    Args:
        run: the run's folder.
        recipe: as it is resolved now.
    """
    before = load(run / "recipe.yaml").recipe
    lines = [f"{line}: the run goes on with it" for line in other_versions(before.plugins)]
    now = dict(parts(recipe))
    for path, spec in parts(before):
        name = now[path].name if path in now else spec.name
        if "/" in name and "/" not in spec.name and not has_own(spec.kind, spec.name):
            key = ".".join(path)
            lines.append(f"{key}: the run does not say whose '{spec.name}' it is; {name} is taken")
    return lines


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now
