"""A run's numbers, and how the report writes numbers."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.engine.reporters import duration
from maekit.engine.run_folder import loss_summary

if TYPE_CHECKING:
    from maekit.visualize.report.run import Run

MISSING = "\N{EN DASH}"
_DIGITS = 4  # significant ones of a printed number
_LARGEST_PLAIN, _SMALLEST_PLAIN = 1e6, 1e-3
# Pictures made without a model, by the key of their held-out error.
_BASELINES = {"mean_fill_mse": "visible mean", "interpolated_fill_mse": "interpolated visible mean"}
_MEASURES = {"top1": "top-1", "map": "mAP", "r2": "R²"}  # of labels, by their keys in a result
_MEAN_COLORS = "mean color of each code's square"


@dataclass(frozen=True)
class Numbers:
    """What is worth comparing between runs; None where it is not known.

    Attributes:
        loss_first: mean over the first tenth of the steps.
        loss_last: mean over the last tenth of the steps.
        hidden_mse: mean squared error of [0, 1] pixels over hidden patches of held-out samples.
        psnr: dB, of held-out pictures that a discrete VAE rebuilt.
        judged: name and value of the measure of predicted labels on held-out samples.
        gain_db: dB by which ``hidden_mse`` or ``psnr`` is better than the best baseline's.
        best_fill: what that baseline is painted with.
        samples_per_second: median over the logged steps.
        data_wait: median share of the time spent waiting for data.
    """

    step: int
    loss_first: float | None
    loss_last: float | None
    hidden_mse: float | None
    psnr: float | None
    judged: tuple[str, float] | None
    gain_db: float | None
    best_fill: str | None
    samples_per_second: float | None
    data_wait: float | None
    seconds: float | None
    bad_files: int


def numbers_of(run: Run) -> Numbers:
    """Collect the numbers of a run, from its metrics where it left no result."""
    losses = loss_summary(run.steps)
    holdout = run.holdout
    baselines = {key: value for key in _BASELINES if (value := holdout.get(key)) is not None}
    best = min(baselines, key=lambda key: baselines[key], default=None)
    error = holdout.get("hidden_mse")
    gain = None
    if best is not None and error is not None and min(error, baselines[best]) > 0:
        ratio = baselines[best] / error
        gain = 10 * math.log10(ratio) if ratio > 0 else None
    psnr, plain = holdout.get("psnr"), holdout.get("mean_color_psnr")
    best_fill = None if best is None else _BASELINES[best]
    if psnr is not None and plain is not None:
        gain, best_fill = psnr - plain, _MEAN_COLORS
    return Numbers(
        step=run.step,
        loss_first=losses["loss_first"],
        loss_last=losses["loss_last"],
        hidden_mse=error,
        psnr=psnr,
        judged=_label_measure(run),
        gain_db=gain,
        best_fill=best_fill,
        samples_per_second=_median(run, "samples_per_second"),
        data_wait=_median(run, "data_wait"),
        seconds=run.result.get("seconds"),
        bad_files=len(run.bad_files),
    )


def _label_measure(run: Run) -> tuple[str, float] | None:
    """Return the result's measure, which uses all test views, else the last one on data.val."""
    tests = (record["test"] for record in reversed(run.measured) if "test" in record)
    for values in (run.result, *tests):
        for key, name in _MEASURES.items():
            if isinstance(values, dict) and isinstance(values.get(key), float):
                return name, values[key]
    return None


def _median(run: Run, key: str) -> float | None:
    values = [step[key] for step in run.steps if step.get(key) is not None]
    return statistics.median(values) if values else None


def held_out(numbers: Numbers) -> str:
    """Write the held-out measure: of labels, of a discrete VAE's pictures, or of hidden pixels."""
    if numbers.judged is not None:
        name, value = numbers.judged
        return f"{value:.4f} {name}"
    if numbers.psnr is not None:
        return f"{number(numbers.psnr)} dB PSNR"
    return number(numbers.hidden_mse)


def held_out_gain(numbers: Numbers) -> str:
    """Write what the held-out measure is compared with."""
    if numbers.judged is not None:
        return "labels of data.val"
    if numbers.hidden_mse is None and numbers.psnr is None:
        return "not measured"
    if numbers.gain_db is None:
        return "mean squared, hidden patches"
    return f"{decibel(numbers.gain_db)} over the best fill, the {numbers.best_fill}"


def number(value: float | None) -> str:
    """Write four significant digits; whole numbers whole, with thousands marked."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == int(value) and abs(value) < _LARGEST_PLAIN * 1000:
        return f"{int(value):,}"
    if not _SMALLEST_PLAIN <= abs(value) < _LARGEST_PLAIN:
        mantissa, exponent = f"{value:.{_DIGITS - 2}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, decimals)}f}"


def percent(value: float | None) -> str:
    """Write a fraction in percent."""
    if value is None:
        return MISSING
    return f"{100 * value:.1f} %".replace("-", "\N{MINUS SIGN}")


def decibel(value: float | None) -> str:
    """Write a difference in dB with its sign."""
    return MISSING if value is None else f"{value:+.2f} dB".replace("-", "\N{MINUS SIGN}")


def elapsed(seconds: float | None) -> str:
    """Write how long something took."""
    return MISSING if seconds is None else duration(seconds)
