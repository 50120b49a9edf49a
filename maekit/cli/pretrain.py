"""``maekit pretrain``: what is its own of a training in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.cli.training import Painter, Verb
from maekit.engine.pretrain import Pretraining, assemble
from maekit.evaluate.online_probe import online_probe
from maekit.visualize.training import can_paint, reconstructions
from maekit.weights.source import check_there

if TYPE_CHECKING:
    from maekit.engine.events import Emit
    from maekit.recipe.schema import Recipe

# What to type after a first run on drawn samples: the same recipe over one's own files.
OWN_FILES = {"quickstart": "images", "quickstart_video": "videos"}


def _painter(job: Pretraining) -> Painter | None:
    shown = job.shown
    pictures = job.section.pictures
    if shown is None or pictures is None or not can_paint(job.model):
        return None
    return Painter(pictures.every, lambda: reconstructions(job.model, shown, job.precision))


def _sizes(job: Pretraining) -> dict[str, int]:
    hidden = job.reader.hidden.count if job.reader.hidden else 0
    tokens = job.model.grid.tokens
    return {"tokens": tokens, "visible": tokens - hidden}


def _size_row(job: Pretraining) -> tuple[str, str]:
    sizes = _sizes(job)
    return "tokens", f"{sizes['tokens']} in a grid of {job.model.grid}, {sizes['visible']} visible"


def _source(_recipe: Recipe, asked: str | None, _emit: Emit) -> str | None:
    """The weights asked for, once they are known to be there."""
    if asked is not None:
        check_there(asked)
    return asked


def _next_steps(result: Mapping[str, Any], folder: Path) -> list[str]:
    lines = []
    recipe = result["recipe"]
    if recipe in OWN_FILES:
        kind = OWN_FILES[recipe]
        words = f"data.train.name={kind} data.train.path=FOLDER ~data.val"
        lines.append(f"next:     maekit pretrain {recipe} {words}")
    lines.append(f"python:   import maekit; model = maekit.load({str(folder)!r})")
    return lines


PRETRAIN = Verb(
    "pretrain",
    assemble,
    _painter,
    _sizes,
    _size_row,
    _next_steps,
    source=_source,
    more=online_probe,
)
