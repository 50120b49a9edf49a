"""Run folders as a training would leave them, written directly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RECIPE = """\
name: {name}
data:
  train: {{name: images, path: /pictures/train}}
  size: 64
model:
  backbone: {{name: image-vit, size: tiny, patch: 8}}
pretrain:
  masker: {{name: random, ratio: {ratio}}}
  steps: 40
"""
FILLS = {"mean_fill_mse": 0.04, "interpolated_fill_mse": 0.02}


def step_record(step: int, total: int, **changed: Any) -> dict[str, Any]:
    """Return a line of metrics.jsonl."""
    return {
        "step": step, "epoch": step / 10, "loss": 0.4 + 1 / step, "lr": 1e-3 * step / total,
        "grad_norm": 0.5 + 0.3 * math.sin(step), "total_steps": total,
        "samples_per_second": 300.0 + step % 7, "data_wait": 0.01, "memory": 9e8,
        "seconds_left": float(total - step),
    } | changed  # fmt: skip


def holdout_record(step: int, error: float) -> dict[str, Any]:
    return {"step": step, "holdout": {"loss": 2 * error, "hidden_mse": error, **FILLS}}


def write_metrics(folder: Path, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(text)


def write_result(folder: Path, **values: Any) -> None:
    (folder / "result.json").write_text(json.dumps({"verb": "pretrain"} | values))


def write_picture(folder: Path, step: int, size: tuple[int, int] = (60, 40)) -> None:
    """Write a picture whose color tells its step."""
    (folder / "pictures").mkdir(exist_ok=True)
    array = np.full((size[1], size[0], 3), (step % 250, 90, 160), np.uint8)
    Image.fromarray(array).save(folder / "pictures" / f"step-{step:08d}.png")


def make_run(
    folder: Path, *, steps: int = 40, every: int = 10, ratio: float = 0.75, pictures: bool = True
) -> Path:
    """Write a finished run with everything in it."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name, ratio=ratio))
    (folder / "env.json").write_text(json.dumps({"maekit": "0.1", "command": ["maekit", "x"]}))
    (folder / "log.txt").write_text("2026-01-02 03:04:05 run folder\n2026-01-02 03:05:05 done\n")
    (folder / "lock").write_text("host pid 1\n")
    records = [step_record(step, steps) for step in range(1, steps + 1)]
    records += [
        holdout_record(step, 0.01 + 0.05 / (1 + step)) for step in range(0, steps + 1, every)
    ]
    write_metrics(folder, sorted(records, key=lambda record: record["step"]))
    bad = {"file": "a <b>bad</b> file.png", "reason": "cut short", "set": "data.train", "step": 3}
    (folder / "bad_files.jsonl").write_text(json.dumps(bad) + "\n")
    write_result(folder, exit=0, steps=steps, seconds=65.0)
    if pictures:
        for step in range(0, steps + 1, every):
            write_picture(folder, step)
    return folder
