"""``maekit tokenizer``: what is its own of a training in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maekit.cli.training import Painter, Verb
from maekit.tokenizer.train import VERB, TokenizerTraining, assemble
from maekit.visualize.tokenizer import rebuilt


def _painter(job: TokenizerTraining) -> Painter | None:
    shown = job.shown
    pictures = job.section.pictures
    if shown is None or pictures is None:
        return None
    return Painter(pictures.every, lambda: rebuilt(job.model, shown, job.precision))


def _codes(job: TokenizerTraining) -> tuple[int, int]:
    """Rows and columns of codes of one picture."""
    height, width = job.recipe.data.height_width
    return height // job.model.sizes.stride, width // job.model.sizes.stride


def _sizes(job: TokenizerTraining) -> dict[str, int]:
    rows, columns = _codes(job)
    return {"tokens": rows * columns, "vocabulary": job.model.sizes.vocabulary}


def _size_row(job: TokenizerTraining) -> tuple[str, str]:
    rows, columns = _codes(job)
    return "codes", f"{rows}x{columns} a picture, of {job.model.sizes.vocabulary:,}"


def _next_steps(result: Mapping[str, Any], folder: Path) -> list[str]:
    target = f"pretrain.target={{name: dvae-token, weights: {folder}, "
    sizes = f"vocabulary: {result['vocabulary']}, stride: {result['stride']}}}"
    return [f'next:     maekit pretrain RECIPE "{target}{sizes}"']


TOKENIZER = Verb(VERB, assemble, _painter, _sizes, _size_row, _next_steps)
