"""What ``--resume`` may go on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from maekit.errors import RecipeError
from maekit.recipe.dump import as_dict
from maekit.recipe.load import load

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
    "pretrain.batch.per_device",
    "pretrain.batch.accumulation",
    "pretrain.compile",
    "pretrain.activation_checkpointing",
    "pretrain.checkpoint",
    "pretrain.max_nonfinite",
    "pretrain.pictures",
    "pretrain.validate",
)


def runs_to_resume() -> bool:
    """Whether a scheduler restarted this job."""
    return any(os.environ.get(name, "0").strip() not in ("", "0") for name in RESTARTS)


def check_same(written: Path, recipe: Recipe) -> None:
    """A resumed run must be the same experiment.

    Raises:
        RecipeError: a key that changes the numbers differs; each is named with both values.
    """
    if not written.is_file():
        return
    before, now = as_dict(load(written).recipe), as_dict(recipe)
    changed = [
        f"{key}: {old!r} before, {new!r} now"
        for key, old, new in _differences(before, now)
        if not any(key == free or key.startswith(f"{free}.") for free in FREE)
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
