"""Decide what a run resumes from, and what may have changed since.

The keys that are free to change say where and how a run computes; all others change its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from maekit.errors import RecipeError
from maekit.recipe.dump import as_dict
from maekit.recipe.load import load
from maekit.recipe.schema import VERBS
from maekit.runs import verb_of

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.recipe.schema import Recipe

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
)
# The same, of the section of the verb that is resumed.
FREE_IN_SECTION = (
    "batch.per_device",
    "batch.accumulation",
    "compile",
    "activation_checkpointing",
    "checkpoint",
    "max_nonfinite",
    "online_probe",
    "pictures",
    "validate",
)
# Verbs whose numbers depend on how a batch is split: what is mixed, by which random
# draws, and batch statistics.
SPLIT_MATTERS = ("finetune", "probe")


def is_restarted() -> bool:
    """Return whether a scheduler restarted this job."""
    return any(os.environ.get(name, "0").strip() not in ("", "0") for name in RESTARTS)


def check_verb(run: Path, verb: str) -> None:
    """Raise RecipeError where a folder holds a run of another verb, saved or not."""
    other = verb_of(run)
    if other not in (None, verb):
        msg = f"this is a run of `maekit {other}`, not {verb}"
        raise RecipeError(msg, where=str(run), hint="give another --out")


def check_same(run: Path, recipe: Recipe, verb: str) -> None:
    """Refuse to resume a run as another experiment.

    Sections of other verbs may change: this one does not read them.

    Raises:
        RecipeError: a key that changes the numbers differs; each is named with both values.
    """
    written = run / "recipe.yaml"
    if not written.is_file():
        return
    before, now = as_dict(load(written).recipe), as_dict(recipe)
    free = {*FREE, *(f"{verb}.{key}" for key in FREE_IN_SECTION)}
    if verb in SPLIT_MATTERS:
        free -= {f"{verb}.batch.per_device", f"{verb}.batch.accumulation"}
    free |= {other for other in VERBS if other != verb}
    changed = [
        f"{key}: {old!r} before, {new!r} now"
        for key, old, new in _differences(before, now)
        if not any(key == one or key.startswith(f"{one}.") for one in free)
    ]
    if changed:
        msg = "this run was made with another recipe: " + "; ".join(changed)
        hint = "resume with the same recipe, or start a new run from its weights with --from"
        raise RecipeError(msg, where=str(written), hint=hint)


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now
