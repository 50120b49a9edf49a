"""The first five seconds: how the runs stand, and their numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.engine.training import summary as loss_summary
from maekit.visualize.report.markup import (
    MISSING,
    Html,
    duration,
    join,
    number,
    percent,
    table,
    tag,
)

if TYPE_CHECKING:
    from maekit.visualize.report.record import Run

FILLS = {"mean_fill_mse": "visible mean", "interpolated_fill_mse": "interpolated visible mean"}

MEASURES = {"top1": "top-1", "map": "mAP", "r2": "R²"}  # of labels, by their names in a result
MEAN_COLORS = "mean color of each code's square"


@dataclass(frozen=True)
class Numbers:
    """What is worth comparing; None where it is not known.

    Attributes:
        loss_first: mean over the first tenth of the steps.
        loss_last: over the last tenth.
        hidden_mse: of [0, 1] pixels over hidden patches of the held-out samples.
        psnr: in decibel, of held-out pictures that a discrete VAE rebuilt.
        judged: how well labels of held-out samples are told: the measure's name and value.
        gain_db: of ``hidden_mse`` or ``psnr`` over the best picture without a model.
        best_fill: what that picture is painted with.
        samples_per_second: median over what was logged.
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
    """The numbers of a run, from its metrics where it left no result."""
    losses = loss_summary(run.steps)
    holdout = run.holdout
    fills = {key: value for key in FILLS if (value := holdout.get(key)) is not None}
    best = min(fills, key=lambda key: fills[key], default=None)
    error = holdout.get("hidden_mse")
    gain = None
    if best is not None and error is not None and min(error, fills[best]) > 0:
        gain = 10 * math.log10(fills[best] / error)
    psnr, plain = holdout.get("psnr"), holdout.get("mean_color_psnr")
    filled = None if best is None else FILLS[best]
    if psnr is not None and plain is not None:
        gain, filled = psnr - plain, MEAN_COLORS
    return Numbers(
        step=run.step,
        loss_first=losses["loss_first"],
        loss_last=losses["loss_last"],
        hidden_mse=error,
        psnr=psnr,
        judged=_judged(run),
        gain_db=gain,
        best_fill=filled,
        samples_per_second=_median(run, "samples_per_second"),
        data_wait=_median(run, "data_wait"),
        seconds=run.result.get("seconds"),
        bad_files=len(run.bad_files),
    )


def banner(run: Run, name: str, color: str | None = None) -> Html:
    """The verdict in a line, with the error where there is one."""
    verdict = run.verdict
    dot = tag("span", class_=f"dot {verdict.state}", aria_hidden="true")
    line = tag("p", dot, tag("strong", verdict.text), class_="verdict")
    key = tag("span", class_=f"swatch {color}", aria_hidden="true") if color else Html()
    heading = tag("p", key, name, class_="name") if color else Html()
    detail = tag("pre", verdict.detail, class_="error") if verdict.state == "crashed" else (
        tag("p", verdict.detail, class_="detail"))  # fmt: skip
    when = tag("p", run.when, class_="detail") if run.when else Html()
    notes = join(tag("p", f"Note: {note}", class_="detail") for note in run.notes)
    shown = detail if verdict.detail else Html()
    return tag("div", heading, line, shown, when, notes, class_=f"banner {verdict.state}")


def tiles(run: Run) -> Html:
    """One run's numbers, large."""
    found = numbers_of(run)
    entries = [
        ("Loss", number(found.loss_last), _start_in_words(found)),
        ("Held out", held_out(found), _gain_in_words(found)),
        ("Speed", number(found.samples_per_second), _wait_in_words(found)),
        ("Time", duration(found.seconds), f"{found.step:,} steps"),
        ("Bad files", f"{found.bad_files:,}", "listed below" if found.bad_files else "none"),
    ]
    return tag(
        "dl",
        *(
            tag("div", tag("dt", title), tag("dd", value), tag("dd", under, class_="under"))
            for title, value, under in entries
        ),
        class_="tiles",
    )


def comparison(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """Several runs' numbers, one row each."""
    columns = ("Run", "Verdict", "Steps", "Loss", "Held out", "Gain over the best fill",
               "Samples/s", "Waiting for data", "Time", "Bad files")  # fmt: skip
    rows = []
    for index, (run, name) in enumerate(zip(runs, names, strict=True)):
        found = numbers_of(run)
        key = tag("span", class_=f"swatch {color_of(index)}", aria_hidden="true")
        rows.append(
            (
                join([key, name]),
                run.verdict.state,
                f"{found.step:,}",
                number(found.loss_last),
                held_out(found),
                _decibel(found.gain_db),
                number(found.samples_per_second),
                percent(found.data_wait),
                duration(found.seconds),
                f"{found.bad_files:,}",
            )
        )
    return table(columns, rows, label="Numbers of the runs", numbers=True)


COLORS = 8


def color_of(index: int) -> str:
    """The style sheet's class for the index-th run or curve."""
    return f"c{index % COLORS}"


def held_out(found: Numbers) -> str:
    """The error of hidden pixels, how near a discrete VAE's pictures come, or what is right."""
    if found.judged is not None:
        name, value = found.judged
        return f"{value:.4f} {name}"
    return number(found.hidden_mse) if found.psnr is None else f"{number(found.psnr)} dB PSNR"


def _gain_in_words(found: Numbers) -> str:
    if found.judged is not None:
        return "labels of data.val"
    if found.hidden_mse is None and found.psnr is None:
        return "not measured"
    if found.gain_db is None:
        return "mean squared, hidden patches"
    return f"{_decibel(found.gain_db)} over the best fill, the {found.best_fill}"


def _judged(run: Run) -> tuple[str, float] | None:
    """From the result, where every view counts, else the last time that data.val was judged."""
    judged = (record["test"] for record in reversed(run.measured) if "test" in record)
    for values in (run.result, *judged):
        for key, name in MEASURES.items():
            if isinstance(values, dict) and isinstance(values.get(key), float):
                return name, values[key]
    return None


def _decibel(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.2f} dB".replace("-", "\N{MINUS SIGN}")


def _start_in_words(found: Numbers) -> str:
    return "not logged" if found.loss_first is None else f"from {number(found.loss_first)}"


def _wait_in_words(found: Numbers) -> str:
    if found.samples_per_second is None:
        return "not logged"
    return f"samples/s, {percent(found.data_wait)} waiting for data"


def _median(run: Run, key: str) -> float | None:
    values = [step[key] for step in run.steps if step.get(key) is not None]
    return statistics.median(values) if values else None
