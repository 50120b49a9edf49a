"""The report: one HTML page with everything in it, the same bytes for the same runs.

This file computes what the page says; report.html.j2 lays it out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from maekit.progress import counted
from maekit.recipe.schema import VERBS
from maekit.version import __version__
from maekit.visualize.movies import evenly, step_pictures
from maekit.visualize.report.classes import Classes, embedded, read_classes
from maekit.visualize.report.curves import (
    BUCKETS,
    FEWEST_TO_SMOOTH,
    Chart,
    Curve,
    charts_of,
    packed,
    rows_of,
    smooth,
)
from maekit.visualize.report.numbers import (
    MISSING,
    Numbers,
    decibel,
    elapsed,
    held_out,
    held_out_gain,
    number,
    numbers_of,
    percent,
)
from maekit.visualize.report.paired import Pairing, paired
from maekit.visualize.report.run import Run, names_of, read_run

TABLE_ROWS = 50
BAD_FILES_SHOWN = 100
FROM = "weights from"  # in place of a key of the recipe
COLORS = 8  # classes c0 to c7 of style.css
MOST_PICTURES = 24  # of a run, evenly chosen, the first and the last included
_JOINTS = re.compile(r"(?<=[/_])(?=\w)|(?<=\.)(?=[^\W\d])")  # never within a decimal
_PART_FACTS = (
    "masker", "target", "dvae", "loss", "augment", "batch", "optimizer",
)  # fmt: skip
# Keys that make an experiment, in the order in which one reads them.
_FACTS = (
    "data.train", "data.size", "model.backbone", "model.decoder",
    *(f"{verb}.{key}" for verb in VERBS for key in _PART_FACTS),
)  # fmt: skip


class Rendered(NamedTuple):
    """A page, and what was read for it."""

    page: bytes
    runs: list[Run]
    pairing: Pairing


class SortedCell(NamedTuple):
    """What a cell of a sweep's table shows, and what it is sorted by; None comes last."""

    text: str
    key: float | None


@dataclass(frozen=True)
class SweepSection:
    """What the page of a sweep shows above its runs.

    Attributes:
        title: of the sweep.
        scale: what was run, in words.
        columns: headings of its table.
        rows: cells, the row's name first.
        base: the place of the row that others are compared with.
        legend: how numbers are to be read.
        sentences: what they say.
        plot: the address of its picture, with everything in it; None where there is none.
        left_out: why runs that were made are not shown below; empty where all are.
    """

    title: str
    scale: str
    columns: Sequence[str]
    rows: Sequence[Sequence[SortedCell]]
    base: int
    legend: str
    sentences: Sequence[str]
    plot: str | None
    left_out: str = ""


def render(
    paths: Sequence[Path], *, names: Sequence[str] | None = None, sweep: SweepSection | None = None
) -> Rendered:
    """Write the page about these runs.

    Args:
        paths: their folders.
        names: what they are called; unset: the ends of their paths.
        sweep: the table that they are rows of.

    Raises:
        RecipeError: one of them is not a run folder.
    """
    with counted("reading runs", len(paths), "runs") as count:
        runs: list[Run] = []
        for path in paths:
            count(len(runs))
            runs.append(read_run(path))
    names = names_of(list(paths)) if names is None else names
    charts, pairing = charts_of(runs), paired(runs)
    shown = [
        PageRun(run, name, color_of(place))
        for place, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    recipe_rows = side_by_side(
        [({FROM: run.source} if run.source else {}) | flat(run.recipe) for run in runs]
    )
    style, script = _asset("style.css"), _asset("report.js")
    page = _template().render(
        version=__version__,
        policy=Markup(_policy(style, script)),  # noqa: S704 - digests in single quotes
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704
        curves=_json([packed(chart) for chart in charts]),
        names=names,
        runs=shown,
        sweep=sweep,
        sections=(["Table"] if sweep else []) + _sections(shown, figures=bool(charts)),
        compared=_compared(shown),
        figures=[_figure(chart, names) for chart in charts],
        curve_hints=_curve_hints(charts),
        pairing=pairing,
        picture_steps=sorted({each.step for run in shown for each in run.pictures.shown}),
        unequal_keys=[recipe_rows[place] for place in differing(recipe_rows)],
        environment=side_by_side([flat(_one_line_command(run.environment)) for run in runs]),
    )
    # File names that were not UTF-8 carry lone surrogates; they are shown escaped.
    return Rendered(page.encode("utf-8", "backslashreplace"), runs, pairing)


class Compared(NamedTuple):
    """The numbers of several runs: headings, and each run's cells."""

    columns: list[str]
    rows: list[list[str]]


def _compared(runs: Sequence[PageRun]) -> Compared:
    """Put the runs' numbers side by side; what none of them has gets no column."""
    titled = {
        "Verdict": [each.run.verdict.state for each in runs],
        "Steps": [f"{each.numbers.step:,}" if each.run.steps else MISSING for each in runs],
        "Loss": [number(each.numbers.loss_last) for each in runs],
        "Held out": [held_out(each.numbers) for each in runs],
        "Gain over the best fill": [decibel(each.numbers.gain_db) for each in runs],
        "Samples/s": [number(each.numbers.samples_per_second) for each in runs],
        "Waiting for data": [percent(each.numbers.data_wait) for each in runs],
        "Time": [elapsed(each.numbers.seconds) for each in runs],
        "Bad files": [f"{each.numbers.bad_files:,}" for each in runs],
    }
    some = {title: cells for title, cells in titled.items() if set(cells) != {MISSING}}
    return Compared(list(some), [list(row) for row in zip(*some.values(), strict=True)])


def _sections(runs: Sequence[PageRun], *, figures: bool) -> list[str]:
    """Name the sections that have something to show, in their order."""
    drawn = any(each.pictures.shown or each.pictures.notes for each in runs)
    # Where a run trains, no step is news; a probe of cached features has none.
    trains = any(each.run.verb != "probe" for each in runs)
    return [
        "Summary",
        *(["Reconstructions"] if drawn else []),
        *(["Classes"] if any(each.classes for each in runs) else []),
        *(["Curves"] if figures or trains else []),
        "Recipe",
        *(["Bad files"] if any(each.run.bad_files for each in runs) else []),
        "Environment",
        "Log",
    ]


@dataclass(frozen=True)
class PageRun:
    """A run as the page shows it."""

    run: Run
    name: str
    color: str

    @cached_property
    def numbers(self) -> Numbers:
        """Its numbers."""
        return numbers_of(self.run)

    @cached_property
    def pictures(self) -> Pictures:
        """Its reconstructions."""
        return read_pictures(self.run.path / "pictures")

    @property
    def moving(self) -> bool:
        """Whether its samples are clips; what a recipe says, where there is one that is whole."""
        value: Any = self.run.recipe
        for key in ("data", "train", "frames"):
            value = value.get(key) if isinstance(value, dict) else None
        return isinstance(value, int) and value > 1

    @property
    def tiles(self) -> list[tuple[str, str, str]]:
        """Its numbers with a title above each and a remark below."""
        found = self.numbers
        start, speed = "not logged", "not logged"
        if found.loss_first is not None:
            start = f"from {number(found.loss_first)}"
        if found.samples_per_second is not None:
            speed = f"samples/s, {percent(found.data_wait)} waiting for data"
        steps = f"{found.step:,} steps" if self.run.steps else ""
        trained = [
            ("Loss", number(found.loss_last), start),
            ("Speed", number(found.samples_per_second), speed),
        ]
        if self.run.verb == "probe" and not self.run.steps:  # of cached features
            trained = []
        return [
            *trained[:1],
            ("Held out", held_out(found), held_out_gain(found)),
            *trained[1:],
            ("Time", elapsed(found.seconds), steps),
            ("Bad files", f"{found.bad_files:,}", "listed below" if found.bad_files else "none"),
        ]

    @property
    def doubts(self) -> list[str]:
        """What should be looked at again: skipped updates, and what result.json warns of."""
        skipped = sum(step.get("skipped") == "nonfinite" for step in self.run.steps)
        samples = _texts(self.run.result.get("nonfinite_samples"))
        named = f"; samples: {', '.join(samples)}" if samples else ""
        found = [f"updates skipped as not finite: {skipped:,}{named}"] if skipped else []
        return found + _texts(self.run.result.get("doubts"))

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Where its weights came from, and the keys of its recipe that make the experiment."""
        source = [(FROM, self.run.source)] if self.run.source else []
        return source + recipe_facts(self.run.recipe, self.run.verb)

    @cached_property
    def classes(self) -> Classes | None:
        """What it left about the labels that it predicts."""
        return read_classes(self.run.path, self.run.result)

    @property
    def bad_files(self) -> list[list[str]]:
        """File, reason, set and step of the first bad files."""
        keys = ("file", "reason", "set", "step")
        return [
            [str(row.get(key, MISSING)) for key in keys]
            for row in self.run.bad_files[:BAD_FILES_SHOWN]
        ]


def _texts(value: object) -> list[str]:
    """Return a list of texts as it is in result.json; empty where it is damaged."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def color_of(index: int) -> str:
    """Return the style sheet's class for the index-th run or curve."""
    return f"c{index % COLORS}"


def _template() -> Template:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "breakable": breakable,
        "number": number,
        "percent": percent,
        "thousands": "{:,}".format,
    }
    environment.globals |= {"MISSING": MISSING, "differing": differing}
    return environment.from_string(_asset("report.html.j2"))


def _asset(name: str) -> str:
    return (files("maekit.visualize.report") / name).read_text(encoding="utf-8")


def breakable(text: str) -> Markup:
    """Let paths and keys be broken behind ``/``, ``.`` and ``_``, not within words."""
    return Markup("<wbr>").join(_JOINTS.split(text))


def _policy(style: str, script: str) -> str:
    """Forbid the page to fetch anything, or to run any style or script but its own two."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(value: Any) -> Markup:  # noqa: ANN401 - any JSON value
    """Write JSON that cannot end the element that it is in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - escaped for a script element


@dataclass(frozen=True)
class Figure:
    """A chart as the page shows it.

    Attributes:
        legend: a label and classes of the style sheet for each curve.
        lost: a sentence for each curve with values that are not finite.
        columns, rows: the chart as a table.
        every: the number of steps, of which the table may show fewer.
    """

    chart: Chart
    legend: list[tuple[str, str]]
    lost: list[str]
    columns: list[str]
    rows: list[list[str]]
    every: int


def _figure(chart: Chart, names: Sequence[str]) -> Figure:
    labels = [_label(chart, curve, names) for curve in chart.curves]
    colors = [_color(curve, place, names) for place, curve in enumerate(chart.curves)]
    lost = [
        f"{label}: {len(curve.lost):,} of {len(curve.steps):,} values are not finite, the first "
        f"at step {curve.lost[0]:,}"
        for curve, label in zip(chart.curves, labels, strict=True)
        if len(curve.lost)
    ]
    return Figure(
        chart,
        [
            (label, f"{color} {curve.style}")
            for label, color, curve in zip(labels, colors, chart.curves, strict=True)
        ],
        lost,
        ["Step", *labels],
        [[f"{step:,}", *map(number, values)] for step, values in rows_of(chart, TABLE_ROWS)],
        max(len(curve.steps) for curve in chart.curves),
    )


def _label(chart: Chart, curve: Curve, names: Sequence[str]) -> str:
    if len(names) == 1:
        return curve.label or chart.title.partition(",")[0].lower()
    return f"{names[curve.run]} {curve.label}".strip()


def _color(curve: Curve, place: int, names: Sequence[str]) -> str:
    """Return one color a run; of a single run one a curve, and gray for baselines."""
    if len(names) > 1:
        return color_of(curve.run)
    return "muted" if curve.style in ("dashed", "dotted") else color_of(place)


def _curve_hints(charts: Sequence[Chart]) -> str:
    """Say how the curves were thinned and smoothed."""
    longest = max(
        (curve for chart in charts for curve in chart.curves),
        key=lambda curve: len(curve.steps),
        default=None,
    )
    if longest is None:
        return ""
    count, sentences = len(longest.steps), []
    if count > 2 * BUCKETS:
        sentences.append(
            f"Of {count:,} logged steps each curve shows the lowest and the highest value in each "
            f"of {BUCKETS} intervals, the first and the last."
        )
    if count >= FEWEST_TO_SMOOTH:
        window = smooth(longest.values)[2]
        sentences.append(
            f"A smoothed line is the mean over {window:,} steps around each step (2 % of them)."
        )
    sentences.append("The speed leaves out pauses for validation, pictures and checkpoints.")
    return " ".join(sentences)


@dataclass(frozen=True)
class Picture:
    """A picture of one step, as a ``data:`` address."""

    step: int
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Pictures:
    """What is shown of a run's pictures.

    Attributes:
        found: how many there are on disk.
        recoded: whether some were made smaller by JPEG.
        broken: names of those that could not be read.
    """

    shown: list[Picture]
    found: int
    recoded: bool
    broken: list[str]

    @property
    def notes(self) -> list[str]:
        """Sentences about pictures that are left out or changed."""
        notes = []
        if self.found > MOST_PICTURES:
            notes.append(f"{MOST_PICTURES} of {self.found:,} pictures are shown.")
        if self.recoded:
            notes.append("Large pictures are embedded as JPEG; the originals are in pictures/.")
        if self.broken:
            notes.append(f"Could not be read: {', '.join(self.broken)}.")
        return notes


def read_pictures(folder: Path) -> Pictures:
    """Read what is shown of ``pictures/``; the folder need not exist."""
    found = step_pictures(folder)
    shown: list[Picture] = []
    broken: list[str] = []
    recoded = False
    for step, path in evenly(found, MOST_PICTURES):
        picture = embedded(path)
        if picture is None:
            broken.append(path.name)
            continue
        recoded |= picture.recoded
        shown.append(Picture(step, picture.address, picture.width, picture.height))
    return Pictures(shown, len(found), recoded, broken)


def recipe_facts(recipe: Any, verb: str | None) -> list[tuple[str, str]]:  # noqa: ANN401 - plain
    """List the keys that make an experiment, without the sections of other verbs.

    A discrete VAE's run does not use the model section.
    """
    others = {each for each in VERBS if verb not in (None, each)}
    if verb == "tokenizer":
        others.add("model")
    rows = []
    for path in _FACTS:
        if path.partition(".")[0] in others:
            continue
        value = recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            name = [as_yaml(value["name"])] if "name" in value else []
            rest = [f"{key}: {inner}" for key, inner in flat(value).items()
                    if key != "name" and inner != "null"]  # fmt: skip
            rows.append((path, ", ".join(name + rest)))
        elif value is not None:
            rows.append((path, as_yaml(value)))
    return rows


def _one_line_command(environment: dict[str, Any]) -> dict[str, Any]:
    """Write the command as one line instead of a list."""
    command = environment.get("command")
    if not isinstance(command, list):
        return environment
    return environment | {"command": " ".join(map(str, command))}


def flat(value: Any, path: str = "") -> dict[str, str]:  # noqa: ANN401 - any plain value
    """Write nested mappings as ``{"data.size": "64"}``; lists and scalars are leaves."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{path}.{key}" if path else str(key))
        return found
    return {path: as_yaml(value)} if path else {}


def as_yaml(value: Any) -> str:  # noqa: ANN401 - any plain value
    """Write a leaf as YAML would."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(as_yaml(each) for each in value)}]"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    """Write all digits, so that unequal values look unequal; 1e-08 as 1e-8, 2.0 as 2."""
    mantissa, _, exponent = repr(value).partition("e")
    mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def side_by_side(columns: Sequence[dict[str, str]]) -> list[list[str]]:
    """Make rows of a key and its value in each column; keys of one section stay together."""
    ranks: dict[str, int] = {}  # of sections and keys, in the order in which they first appear
    for key in (key for column in columns for key in column):
        for prefix in _prefixes(key):
            ranks.setdefault(prefix, len(ranks))
    keys = {key for column in columns for key in column}
    ordered = sorted(keys, key=lambda key: [ranks[prefix] for prefix in _prefixes(key)])
    return [[key, *(column.get(key, MISSING) for column in columns)] for key in ordered]


def _prefixes(key: str) -> list[str]:
    """Split ``a.b.c`` into ``a``, ``a.b``, ``a.b.c``."""
    return list(accumulate(key.split("."), "{}.{}".format))


def differing(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the indices of rows whose values are not all the same."""
    return [index for index, (_, *values) in enumerate(rows) if len(set(values)) > 1]
