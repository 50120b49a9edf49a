"""``maekit evaluate``: print how well a classifier or detector does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maekit.cli.output import print_json, print_table, say
from maekit.cli.quantities import counts
from maekit.cli.reporters import shown
from maekit.cli.result import MEASURES, print_comparison
from maekit.engine import distributed
from maekit.engine.precision import pick_device
from maekit.engine.resume import is_restarted
from maekit.engine.run import RunOptions
from maekit.errors import INTERRUPTED
from maekit.evaluate.evaluation import evaluate as judge
from maekit.evaluate.way import VERB, Request
from maekit.ranks import is_speaker
from maekit.weights.heads import read_classes


def evaluate(
    source: str,
    overrides: list[str] | None,
    data: str | None,
    recipe: str | None,
    views: str | None,
    classes: Path | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    lock: bool,
    compare_expected: bool,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Judge a classifier or detector; return the exit code."""
    names = None if classes is None else read_classes(classes)
    number = None if views is None else views_of(views)
    request = Request(source, recipe, overrides or (), data, number, names, classes)
    options = RunOptions(
        out,
        resume or is_restarted(),
        overwrite,
        source,
        compare_expected,
        signals=True,
        locks=lock,
    )
    where = pick_device(device)
    with (
        shown(VERB, quiet=quiet, verbose=verbose) as terminal,
        distributed.joined(where),
    ):
        result, folder = judge(request, where, options, terminal)
    if result["exit"] == INTERRUPTED:
        return INTERRUPTED
    if not is_speaker():
        return 0
    if json:
        print_json(result)
    else:
        print_table((result["protocol"], ""), list(_rows(result)))
        if compare_expected:
            print_comparison(result["expected"])
    if not quiet:
        say(f"scores:   {result['predictions']}\nresult:   {folder}", err=True)
    return 0


def views_of(text: str) -> tuple[int, int]:
    """Read ``--views``: clips and crops.

    Raises:
        RecipeError: it is something else.
    """
    hint, what = (
        "clips and crops of each sample, as 5x3; 1x1 is the center",
        "not a number of views",
    )
    clips, crops = counts(text, 2, where="--views", what=what, hint=hint)
    return clips, crops


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "samples", f"{result['samples']:,}"
    if "boxes" in result:
        yield "boxes", f"{result['boxes']:,} scored, {result['true']:,} true"
    for key in MEASURES:
        if key in result:
            yield key, _number(result[key])
    if result["settings"].get("views", "1x1") != "1x1":  # a detector has one
        for key in MEASURES:
            if key in result["single_view"]:
                yield f"one view: {key}", _number(result["single_view"][key])
    for key, value in result["floor"].items():
        yield f"floor: {key}", _number(value)
    calibration = result.get("calibration")  # older results have none
    if calibration is not None:
        yield "calibration error", _number(calibration["ece"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
