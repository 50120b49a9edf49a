"""Samples of a run's own data sets, in place of files: ``--set val``."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import numpy as np

from maekit import demo
from maekit.data.order import evenly
from maekit.data.split import Subset
from maekit.engine.batches import open_sets
from maekit.engine.events import Note
from maekit.errors import RecipeError

if TYPE_CHECKING:
    from maekit.contracts import Dataset
    from maekit.engine.events import Emit
    from maekit.weights.locate import LocatedWeights

Which = Literal["train", "val"]


def run_samples(
    located: LocatedWeights,
    which: Which,
    words: Sequence[str],
    emit: Emit,
    most: int | None = None,
) -> Dataset:
    """Open data.train or data.val of the run that weights come from, as the run read it.

    Args:
        located: the weights.
        which: of its sets.
        words: names of samples, or patterns of names; none: all of them.
        emit: takes notes for people.
        most: how many are taken where no words choose, evenly spaced; None: all.

    Raises:
        RecipeError: the weights come from no run, it has no such set, or no sample is called so.
        DataError: the set cannot be opened.
    """
    recipe = located.recipe()
    where = f"--set {which}"
    if recipe is None or located.folder == demo.WEIGHTS.parent:  # whose data does not come along
        msg = f"{located.source} is no run, whose recipe would say what its data is"
        raise RecipeError(msg, where=where, hint="--from RUN, or name files instead")
    train, val = open_sets(recipe, emit)
    dataset = train if which == "train" else val
    if dataset is None:
        raise RecipeError("the run has no data.val", where=where, hint="--set train")
    if words:
        names = (dataset.name(index) for index in range(len(dataset)))
        rows = [index for index, name in enumerate(names) if _chosen(name, words)]
        if not rows:
            shown = ", ".join(dataset.name(index) for index in range(min(3, len(dataset))))
            msg = f"no sample of data.{which} is called {' or '.join(words)}"
            raise RecipeError(msg, where=where, hint=f"names are as {shown}; patterns in quotes")
    else:
        rows = list(range(len(dataset)) if most is None else evenly(len(dataset), most))
    name = (recipe.data.val or recipe.data.train).name if which == "val" else recipe.data.train.name
    emit(Note(f"data.{which} ({name}): {len(rows):,} of {len(dataset):,} samples"))
    return Subset(dataset, np.array(rows, dtype=np.int64))


def _chosen(name: str, words: Sequence[str]) -> bool:
    return any(name == word or fnmatchcase(name, word) for word in words)
