"""Curves: what was logged, thinned so that ten thousand steps stay small and no extreme is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from maekit.visualize.report.run import Run

BUCKETS = 600  # about as many as a chart is pixels wide; each keeps its least and largest value
SMOOTH_POINTS = 300  # of a smoothed curve
SMOOTH_SHARE = 50  # a smoothing window is this part of a curve's steps
FEWEST_TO_SMOOTH = 20
_DIGITS = 6  # significant digits in the page

# Keys of metrics.jsonl: title, what the unit is, whether a logarithmic scale makes sense, what
# values are multiplied by, and what is written behind them.
STEP_CHARTS: dict[str, tuple[str, str, bool, float, str]] = {
    "loss": ("Loss", "", True, 1.0, ""),
    "lr": ("Learning rate", "", True, 1.0, ""),
    "grad_norm": ("Gradient norm", "before clipping", True, 1.0, ""),
    "samples_per_second": ("Speed", "samples per second", True, 1.0, ""),
    "data_wait": ("Waiting for data", "share of the time", False, 100.0, " %"),
    "memory": ("Peak memory", "", False, 1e-9, " GB"),
}
HOLDOUT_CHART = "holdout"
# The held-out loss has the unit of the training loss, and is drawn next to it.
HOLDOUT_CURVES = {
    "hidden_mse": ("model", "dots"),
    "mean_fill_mse": ("visible mean", "dashed"),
    "interpolated_fill_mse": ("interpolated visible mean", "dotted"),
}


@dataclass(frozen=True)
class Curve:
    """One line of a chart: ``steps [n]`` ascending, ``values [n]`` with NaN where not finite."""

    run: int
    label: str
    style: str  # line, dots, dashed, dotted
    steps: np.ndarray
    values: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """Steps whose value is not finite."""
        found: np.ndarray = self.steps[np.isnan(self.values)]
        return found


@dataclass(frozen=True)
class Chart:
    """Curves over steps that share an axis."""

    key: str
    title: str
    unit: str = ""
    log: bool = False
    factor: float = 1.0
    suffix: str = ""
    curves: list[Curve] = field(default_factory=list)


def charts_of(runs: Sequence[Run]) -> list[Chart]:
    """Make every chart for which at least one run logged something."""
    charts = [Chart(key, *words) for key, words in STEP_CHARTS.items()]
    unit = "mean squared, [0, 1] pixels of hidden patches"
    holdout = Chart(HOLDOUT_CHART, "Held-out error", unit, log=True)
    others: dict[str, Chart] = {}
    for index, run in enumerate(runs):
        for chart in charts:
            label = "training" if chart.key == "loss" else ""
            chart.curves.extend(_curve(index, label, "line", run.steps, chart.key, chart.factor))
        for name, key in _measures(run.measured):
            records = [{"step": each["step"], key: each[name].get(key)}
                       for each in run.measured if isinstance(each.get(name), dict)]  # fmt: skip
            if (name, key) == ("holdout", "loss"):
                charts[0].curves.extend(_curve(index, "held out", "dots", records, key))
            elif name == "holdout" and key in HOLDOUT_CURVES:
                holdout.curves.extend(_curve(index, *HOLDOUT_CURVES[key], records, key))
            else:
                title = f"{name}: {key}".replace("_", " ").capitalize()
                chart = others.setdefault(f"{name}-{key}", Chart(f"{name}-{key}", title, log=True))
                chart.curves.extend(_curve(index, "", "dots", records, key))
    ordered = [charts[0], holdout, *others.values(), *charts[1:]]
    return [chart for chart in ordered if chart.curves]


def thin(values: np.ndarray, buckets: int = BUCKETS) -> np.ndarray:
    """Choose indices to keep: first, last, and of each bucket the extremes and the first NaN.

    Args:
        values: ``[n]``.
        buckets: equal parts of the indices.

    Returns:
        Ascending indices ``[m]``, m <= 3 * buckets + 2; all of them where n <= 2 * buckets.
    """
    count = len(values)
    if count <= 2 * buckets:
        return np.arange(count)
    kept = {0, count - 1}
    edges = np.linspace(0, count, buckets + 1).astype(int)
    for start, end in pairwise(edges.tolist()):
        part = values[start:end]
        lost = np.isnan(part)
        if lost.any():
            kept.add(start + int(lost.argmax()))
        if not lost.all():
            kept |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
    return np.array(sorted(kept))


def smooth(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Take the mean over a window around each step, of the finite values in it.

    Args:
        values: ``[n]``.

    Returns:
        At most 300 ascending indices ``[m]``, the means there ``[m]`` (NaN where the window holds
        nothing finite), and the window's odd length, which the ends of the curve cut.
    """
    count = len(values)
    window = 2 * max(2, count // (2 * SMOOTH_SHARE)) + 1
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.where(finite, values, 0.0).cumsum()])
    counts = np.concatenate([[0], finite.cumsum()])
    places = np.unique(np.linspace(0, count - 1, min(count, SMOOTH_POINTS)).round().astype(int))
    low = np.maximum(places - window // 2, 0)
    high = np.minimum(places + window // 2 + 1, count)
    with np.errstate(invalid="ignore"):
        means = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return places, means, window


def packed(chart: Chart) -> dict[str, Any]:
    """Return a chart as the page's script reads it."""
    return {
        "key": chart.key,
        "log": chart.log,
        "suffix": chart.suffix,
        "curves": [_packed(curve) for curve in chart.curves],
    }


def _packed(curve: Curve) -> dict[str, Any]:
    kept = thin(curve.values)
    record: dict[str, Any] = {
        "run": curve.run,
        "style": curve.style,
        "steps": curve.steps[kept].tolist(),
        "values": [_short(value) for value in curve.values[kept]],
    }
    if curve.style == "line" and len(curve.values) >= FEWEST_TO_SMOOTH:
        places, means, _ = smooth(curve.values)
        record["smooth"] = {
            "steps": curve.steps[places].tolist(),
            "values": [_short(value) for value in means],
        }
    return record


def rows_of(chart: Chart, most: int) -> list[tuple[int, list[float | None]]]:
    """List a step and the value of each curve there, the last step included.

    Where a chart has too many steps for the table, it shows an even choice of them, with those at
    which its rarest curve has a value if that leaves room for others.
    """
    rarest = min((curve.steps for curve in chart.curves), key=len)
    every = np.unique(np.concatenate([curve.steps for curve in chart.curves]))
    kept = rarest if len(rarest) <= most // 2 else rarest[:0]
    steps = np.union1d(kept, _even(every, most - len(kept)))
    known = [dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
             for curve in chart.curves]  # fmt: skip
    return [(step, [values.get(step) for values in known]) for step in steps.tolist()]


def _even(steps: np.ndarray, most: int) -> np.ndarray:
    places = np.linspace(0, len(steps) - 1, min(len(steps), most)).round().astype(int)
    found: np.ndarray = steps[places]
    return found


def _measures(records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """List names and keys of what was measured, in the order of their first appearance."""
    found: dict[tuple[str, str], None] = {}
    for record in records:
        for name, values in record.items():
            if isinstance(values, dict):
                found |= dict.fromkeys((name, key) for key in values)
    return list(found)


def _curve(
    run: int,
    label: str,
    style: str,
    records: Sequence[dict[str, Any]],
    key: str,
    factor: float = 1.0,
) -> list[Curve]:
    """Make a list of one curve, or of none where a measure is null throughout."""
    pairs = [(int(each["step"]), factor * _float(each[key])) for each in records if key in each]
    if not pairs or (style != "line" and all(math.isnan(value) for _, value in pairs)):
        return []
    steps, values = (np.array(column) for column in zip(*pairs, strict=True))
    order = np.argsort(steps, kind="stable")
    return [Curve(run, label, style, steps[order], values[order])]


def _float(value: Any) -> float:  # noqa: ANN401 (any JSON value)
    number = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if number else math.nan


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
