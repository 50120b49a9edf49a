"""``maekit finetune``: what is its own of a training in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maekit.cli.training import Verb
from maekit.evaluate.finetune import Finetuning, assemble, chosen_source
from maekit.evaluate.supervision import VERB


def _sizes(job: Finetuning) -> dict[str, int]:
    trained = sum(parameter.numel() for parameter in job.state.trained())
    tokens = job.model.grid.tokens
    return {"tokens": tokens, "classes": len(job.task.outputs), "trained_parameters": trained}


def _size_row(job: Finetuning) -> tuple[str, str]:
    sizes = _sizes(job)
    text = f"{sizes['tokens']} in a grid of {job.model.grid}"
    return "tokens", f"{text}; {sizes['classes']} outputs, {sizes['trained_parameters']:,} trained"


def _next_steps(result: Mapping[str, Any], folder: Path) -> list[str]:  # noqa: ARG001
    return [
        f"scores:   {folder / 'predictions.jsonl'}",
        f"python:   import maekit; model, header = maekit.load_classifier({str(folder)!r})",
    ]


FINETUNE = Verb(
    VERB, assemble, lambda _: None, _sizes, _size_row, _next_steps, source=chosen_source
)
