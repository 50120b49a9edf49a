"""Records of runs, damaged: the page opens, and says what is damaged."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from fuzz import damaged, odd_record

from maekit.visualize.report.page import render

STEP = {"loss": 0.5, "lr": 1e-3, "grad_norm": 1.0, "samples_per_second": 9.0, "data_wait": 0.1,
        "memory": 1e9, "seconds_left": 3.0, "total_steps": 30}  # fmt: skip
HOLDOUT = {"loss": 0.4, "hidden_mse": 0.02, "mean_fill_mse": 0.04, "interpolated_fill_mse": 0.03}
RESULT = {"verb": "finetune", "exit": 0, "steps": 30, "seconds": 12.5, "error": None, "top1": 0.5,
          "protocol": "x", "settings": {"seed": 0}, "recipe": "r"}  # fmt: skip
PREDICTION = {"row": 0, "id": "a/1.jpg", "label": 0, "scores": [0.25, 0.75]}


def case(rng: random.Random, folder: Path) -> None:
    """Write two runs, damage one, and make the page of one or both."""
    runs = [folder / "a", folder / "b"]
    for run in runs:
        _write(run, rng if run == runs[0] else None)
    page = render(runs[: rng.randint(1, 2)]).page
    if not page.startswith(b"<!"):
        raise AssertionError("no page")


def _write(run: Path, rng: random.Random | None) -> None:
    run.mkdir()
    metrics: list[Any] = [{"step": step, **STEP} for step in range(1, 31)]
    metrics += [{"step": 30, "holdout": HOLDOUT}, {"step": 30, "test": {"top1": 0.5}}]
    files: dict[str, Any] = {
        "metrics.jsonl": metrics,
        "result.json": RESULT,
        "env.json": {"verb": "finetune", "command": ["maekit", "x"], "versions": {"torch": "2"}},
        "bad_files.jsonl": [{"file": "x", "reason": "y", "set": "data.train", "step": 3}],
        "predictions.jsonl": [PREDICTION, PREDICTION | {"row": 1}],
    }
    texts = {"recipe.yaml": "name: r\ndata: {size: 32}\n", "log.txt": "2026-01-01 00:00:00 a\n"}
    chosen = rng.sample([*files, *texts, "lock", "pictures"], 2) if rng else []
    for name, content in files.items():
        if rng and name in chosen:
            for _ in range(3):
                content = odd_record(rng, content)  # noqa: PLW2901
        rows = content if name.endswith("jsonl") and isinstance(content, list) else [content]
        texts[name] = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "pictures").mkdir()
    for name, text in texts.items():
        data = text.encode("utf-8", "surrogatepass")
        if rng and name in chosen and rng.random() < 0.4:
            data = damaged(rng, data)
        (run / name).write_bytes(data)
    if rng and rng.random() < 0.1:
        _replace(run / rng.choice([*texts, "lock", "pictures/step-00000003.png"]), rng)


def _replace(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    match rng.randrange(3):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case _:
            path.symlink_to(path.name)
