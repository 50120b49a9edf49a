"""What maekit itself costs: metrics, pictures and checkpoints, and the time of a single step.

By the clock; what is written at the end counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sides import Group

# Everything that is done beside training, off.
BARE = (
    "pretrain.pictures=null", "~data.val", "pretrain.checkpoint.steps=1000000",
)  # fmt: skip
PLAIN_STEP = """
import torch
layer = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(2, 8)).sum().backward()
optimizer.step()
"""


def _pretrain(folder: Path, recipe: str, *words: str) -> float:
    """Train in a process of its own; return the seconds of its training, start-up left aside."""
    command = [sys.executable, "-m", "maekit", "pretrain", recipe, "--out", str(folder), "-q"]
    subprocess.run([*command, "--overwrite", "--json", *words], check=True, capture_output=True)
    seconds: float = json.loads((folder / "result.json").read_text())["seconds"]
    return seconds


def _one_step(folder: Path, recipe: str, *words: str) -> None:
    """Make a step in a process of its own, which is measured as a whole."""
    _pretrain(folder, recipe, "pretrain.steps=1", "pretrain.warmup.steps=0", *words)


def groups(folder: Path, *, steps: int = 60) -> Iterator[Group]:
    """Yield what is done beside the steps of a run, and what comes before its first one."""
    recipe = "quickstart"
    budget = f"pretrain.steps={steps}"
    yield Group(
        f"{recipe}, training for {steps} steps: as shipped, and without anything beside training",
        "s",
        {
            "maekit": lambda _: _pretrain(folder / "whole", recipe, budget),
            "maekit, only training": lambda _: _pretrain(folder / "bare", recipe, budget, *BARE),
        },
        scale=1,
        clock=time.perf_counter,
        most=5,
    )
    bare = [sys.executable, "-c", PLAIN_STEP]
    environment = dict(os.environ)
    yield Group(
        "a process that makes one step",
        "s",
        {
            "maekit": lambda _: _one_step(folder / "one", recipe, *BARE),
            "python -c 'import torch; one AdamW step'": lambda _: subprocess.run(
                bare, check=True, env=environment
            ),
        },
        scale=1,
        clock=time.perf_counter,
        most=5,
    )
