"""Time and memory of a step against visible tokens, frames, image size and batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.steps import BLANK, noise
from maekit.engine.bench import count_flops
from maekit.engine.build import build_model, header_of
from maekit.engine.loop import TrainState, update
from maekit.engine.optim import make_optimizer
from maekit.engine.peak import PeakMemory
from maekit.engine.precision import Precision
from maekit.engine.schedule import Schedule
from maekit.engine.step import PretrainStep
from maekit.recipe.load import load
from maekit.registry import resolve

IMAGES = ("mae_in1k_vit_b", "model.backbone.size=small")
VIDEOS = ("videomae_k400_s",)
DEVIATION = 0.25  # from what the operations say: more is to be explained


class Point(NamedTuple):
    """A setting, and what it takes."""

    axis: str
    value: float
    recipe: str
    words: tuple[str, ...]
    batch: int


def points() -> Iterator[Point]:
    """Yield the settings; the first of each axis is what the others are held against."""
    for ratio in (0.75, 0.9, 0.5, 0.25):
        words = (*IMAGES[1:], f"pretrain.masker.ratio={ratio}")
        yield Point("visible tokens", round(196 * (1 - ratio)), IMAGES[0], words, 4)
    for size in (224, 112, 160, 320):
        yield Point("image size", size, IMAGES[0], (*IMAGES[1:], f"data.size={size}"), 4)
    for batch in (4, 1, 2, 8):
        yield Point("batch", batch, IMAGES[0], IMAGES[1:], batch)
    for frames in (8, 4, 16):
        yield Point("frames", frames, VIDEOS[0], (f"data.train.frames={frames}",), 1)


def measure(point: Point, *, rounds: int) -> dict[str, Any]:
    """Return milliseconds, operations and peak memory of a step, on the CPU in float32."""
    recipe = resolve(load(point.recipe, point.words), "pretrain")
    pretrain: Any = recipe.pretrain
    model = build_model(header_of(recipe, BLANK)).train()
    step = PretrainStep(model, Precision("fp32", "cpu"))
    schedule = Schedule(steps=10**6, warmup=0, peak=1e-5, floor=0)
    optimizer = make_optimizer(model, pretrain.optimizer)
    state = TrainState(model, optimizer, schedule, point.batch, 1.0)
    batch = noise(model, pretrain.masker, point.batch)
    took = []
    for _ in range(rounds + 1):
        began = time.process_time()
        update(state, step, [batch])
        took.append(time.process_time() - began)
    optimizer.zero_grad(set_to_none=True)
    with PeakMemory() as memory:
        step.loss(step.weigh(batch)).backward()
    return {
        "axis": point.axis,
        "value": point.value,
        "batch": point.batch,
        "ms": statistics.median(took[1:]) * 1e3,
        "gflop": count_flops(step, batch) / 1e9,
        "peak_mb": memory.peak / 1e6,
    }


def table(*, rounds: int = 3) -> list[dict[str, Any]]:
    """Measure all points; ``beyond`` is time over what operations predict, from an axis's first."""
    rows = [measure(point, rounds=rounds) for point in points()]
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        start = first.setdefault(row["axis"], row)
        row["beyond"] = row["ms"] / start["ms"] / (row["gflop"] / start["gflop"]) - 1
    return rows


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Draw time, memory and what operations predict, an axis each."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(3.2 * len(axes), 5), layout="constrained")
    places = figure.subplots(2, len(axes), squeeze=False)
    for column, axis in enumerate(axes):
        own = sorted((row for row in rows if row["axis"] == axis), key=lambda row: row["value"])
        start = next(row for row in rows if row["axis"] == axis)
        values = [row["value"] for row in own]
        above, below = places[0][column], places[1][column]
        above.plot(values, [row["ms"] for row in own], "o-", label="measured")
        predicted = [start["ms"] * row["gflop"] / start["gflop"] for row in own]
        above.plot(values, predicted, "--", label="as the operations say")
        below.plot(values, [row["peak_mb"] for row in own], "o-")
        above.set_ylabel("ms a step")
        below.set_ylabel("MB at the peak")
        below.set_xlabel(axis)
        for place in (above, below):
            place.set_ylim(bottom=0)
        above.legend(fontsize="small")
    figure.savefig(path)
