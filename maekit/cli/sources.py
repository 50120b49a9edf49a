"""Which weights a verb that judges them takes: those asked for, else the recipe's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.cli.pretrain import RUNS
from maekit.engine.events import Note
from maekit.engine.run_folder import newest_finished
from maekit.errors import RecipeError

if TYPE_CHECKING:
    from maekit.engine.events import Emit


def finished_or(source: str | None, recipe: str, emit: Emit) -> str:
    """``--from``, or the newest finished pre-training of a recipe, which is said.

    Raises:
        RecipeError: neither is there.
    """
    if source is not None:
        return source
    found = newest_finished(RUNS, recipe, "pretrain")
    if found is None:
        msg = f"no finished pre-training of '{recipe}' in {RUNS / recipe}"
        hint = (
            "maekit pretrain it first, name weights (--from RUN, FILE, timm:NAME or hf:FOLDER), "
            "or judge none at all (--from scratch)"
        )
        raise RecipeError(msg, where="--from", hint=hint)
    emit(Note(f"weights: {found} (the newest finished pre-training of {recipe})"))
    return str(found)
