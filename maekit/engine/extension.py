"""Go on with a run beyond its budget: ``--resume --extend pretrain.epochs=1600``.

What the learning rate did until then stays as it was; ``extended.json`` in the run's folder says
where each extension began, so that any later resume goes on in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import TypeAdapter, ValidationError

from maekit.atomic import write_text
from maekit.engine.events import Note
from maekit.errors import RecipeError
from maekit.recipe.load import load
from maekit.recipe.sections import TrainingSection

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.engine.job import Job
    from maekit.engine.schedule import Schedule
    from maekit.recipe.schema import Recipe

How = Literal["planned", "restart"]
Budget = dict[str, Any]  # epochs, steps, samples: the value of one of them
EXTENDED = "extended.json"
EXTENDABLE = ("pretrain", "finetune", "tokenizer")
BUDGETS = TrainingSection.alternatives
WHERE = "--extend"


@dataclass(frozen=True)
class Extension:
    """One extension of a run.

    Attributes:
        at: updates that were made before it.
        how: what the learning rate does from there on.
        steps: the budget until then, in updates.
        warmup: its warm-up.
    """

    at: int
    how: How
    steps: int
    warmup: int

    def applied(self, before: Schedule | None, whole: Schedule) -> Schedule:
        """Return the schedule from here on, until the next extension.

        Args:
            before: of the steps until ``at``; None: that of the first budget.
            whole: as the recipe has it, with the budget from here on.
        """
        first = before or replace(whole, steps=self.steps, warmup=self.warmup)
        if self.how == "planned":
            return replace(whole, since=self.at, before=first)
        left = whole.steps - self.at
        warmup = max(0, min(whole.warmup, left))
        return replace(whole, since=self.at, begins=self.at, warmup=warmup, before=first)


_LIST = TypeAdapter(list[Extension])


@dataclass(frozen=True)
class Request:
    """What ``--extend`` asks for.

    Attributes:
        key: of the recipe, as ``pretrain.epochs``.
        word: the whole override.
        how: what the learning rate does.
    """

    key: str
    word: str
    how: How

    @classmethod
    def of(cls, verb: str, word: str | None, how: str | None, *, resume: bool) -> Self | None:
        """Understand the options of a command; None where nothing is to be extended.

        Raises:
            RecipeError: it is no budget of the verb, or the run is not to be resumed.
        """
        if word is None:
            if how is None:
                return None
            msg = "says how a run is extended, and --extend is not given"
            raise RecipeError(msg, where="--extend-as", hint=f"add --extend {verb}.epochs=1600")
        keys = [f"{verb}.{name}" for name in BUDGETS]
        key, equals, value = word.partition("=")
        if verb not in EXTENDABLE:
            msg = f"`maekit {verb}` cannot be extended"
            raise RecipeError(msg, where=WHERE, hint=f"{', '.join(EXTENDABLE)} can")
        if not resume:
            msg = "a run is extended where it is resumed"
            raise RecipeError(msg, where=WHERE, hint="add --resume, and --out RUN")
        if key not in keys or not equals or not value:
            msg = f"'{word}' is no longer budget of this verb"
            raise RecipeError(msg, where=WHERE, hint=f"one of {', '.join(keys)}, as {keys[0]}=1600")
        if how not in (None, "planned", "restart"):
            raise RecipeError(f"'{how}'?", where="--extend-as", hint="planned or restart")
        return cls(key, word, "restart" if how == "restart" else "planned")

    def words(self, overrides: Sequence[str]) -> list[str]:
        """Return a command line's overrides with this budget in the place of any other."""
        section = self.key.rpartition(".")[0]
        others = tuple(f"{section}.{name}=" for name in BUDGETS)
        return [*(word for word in overrides if not word.startswith(others)), self.word]


def free_keys(verb: str) -> tuple[str, ...]:
    """Return the keys in which an extended run may differ from what it was."""
    return tuple(f"{verb}.{name}" for name in BUDGETS)


def option_words(recipe: Recipe, verb: str, how: How) -> list[str]:
    """Return the options that extend a run to a recipe's budget."""
    section = getattr(recipe, verb)
    budget = {name: getattr(section, name) for name in BUDGETS}
    words = [f"{verb}.{name}={value}" for name, value in budget.items() if value is not None]
    return [word for each in words for word in (WHERE, each)] + ["--extend-as", how]


def budget_before(run: Path, recipe: Recipe, verb: str) -> Budget | None:
    """Return the budget of a run where it is another than a recipe's; else None.

    A command that a scheduler starts again asks for the same extension again.
    """
    before, now = (
        {name: getattr(getattr(each, verb), name) for name in BUDGETS}
        for each in (load(run / "recipe.yaml").recipe, recipe)
    )
    return None if before == now else before


def read_extensions(run: Path) -> list[Extension]:
    """Return how a run was extended until now.

    Raises:
        RecipeError: the file that says so cannot be understood.
    """
    path = run / EXTENDED
    if not path.is_file():
        return []
    try:
        return _LIST.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        msg = "what the learning rate did before cannot be read"
        raise RecipeError(msg, where=str(path), hint="put the file back") from error


def apply_extensions(job: Job, extensions: Sequence[Extension]) -> None:
    """Let a job's learning rate do what it did before it was extended, and go on from there."""
    job.state.schedule = _joined(extensions, job.state.schedule)


def _joined(extensions: Sequence[Extension], whole: Schedule) -> Schedule:
    before: Schedule | None = None
    for place, each in enumerate(extensions):
        later = extensions[place + 1 :]
        # Until the next extension this one's budget was the plan.
        steps = later[0].steps if later else whole.steps
        warmup = later[0].warmup if later else whole.warmup
        before = each.applied(before, replace(whole, steps=steps, warmup=warmup))
    return before or whole


class Pending(NamedTuple):
    """An extension that is about to be made.

    Attributes:
        budget: the run's until now.
        at: the step that it is resumed at.
        how: what the learning rate does from there on.
    """

    budget: Budget
    at: int
    how: How


def extend(job: Job, pending: Pending, extensions: Sequence[Extension]) -> list[Extension]:
    """Extend a job whose state is not read yet, and say what the learning rate does.

    Args:
        job: with the new budget.
        pending: the extension.
        extensions: those before.

    Returns:
        All extensions, to be written.

    Raises:
        RecipeError: the new budget is no longer than the old one.
    """
    (budget, at, how), whole = pending, job.state.schedule
    steps = job.budget_of(job.section.model_copy(update=budget).with_budget())
    if whole.steps <= steps:
        msg = f"{whole.steps:,} updates are no more than the {steps:,} of before"
        raise RecipeError(msg, where=WHERE, hint="give a larger budget")
    kept = [each for each in extensions if each.at < at]
    replaced = extensions[len(kept)] if len(kept) < len(extensions) else None
    until = replaced or Extension(at, how, steps, min(job.warmup, steps))
    made = [*kept, replace(until, at=at, how=how)]
    new = _joined(made, whole)
    job.state.schedule = new
    job.emit(Note(_said(new, how, at, steps)))
    for line in job.extended(at):
        job.emit(Note(line))
    return made


def _said(schedule: Schedule, how: How, at: int, steps: int) -> str:
    before = schedule.before
    last = 0.0 if before is None or not at else before.lr(at - 1)
    first, end = schedule.lr(at), schedule.steps
    text = f"extended from {steps:,} to {end:,} steps at step {at:,}, as {how}: "
    if how == "planned":
        text += f"the learning rate goes on as if {end:,} steps had been planned from the start"
    else:
        warmup = f"{schedule.warmup:,} steps of warm-up and " if schedule.warmup else ""
        text += f"the learning rate begins anew, {warmup}one cosine over {end - at:,} steps"
    return f"{text}; {last:.3g} before, {first:.3g} now, {schedule.lr(end - 1):.3g} at the end"


def record_extensions(run: Path, extensions: Sequence[Extension], steps: int) -> None:
    """Write down how a run is extended; its result until then becomes ``result-STEPS.json``."""
    rows: Any = _LIST.dump_python(list(extensions), mode="json")
    write_text(run / EXTENDED, json.dumps(rows, indent=1) + "\n")
    result = run / "result.json"
    if result.is_file():
        result.replace(run / f"result-{steps}.json")
