"""The parts of the page below the summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from maekit.recipe.schema import VERBS
from maekit.visualize.report.compare import differing, flat, shown, side_by_side
from maekit.visualize.report.curves import BUCKETS, FEWEST_TO_SMOOTH, Chart, Curve, rows_of, smooth
from maekit.visualize.report.markup import MISSING, Html, join, number, table, tag
from maekit.visualize.report.pictures import MOST, Pictures, read_pictures
from maekit.visualize.report.summary import color_of

if TYPE_CHECKING:
    from maekit.visualize.report.record import Run

TABLE_ROWS = 50
BAD_FILES_SHOWN = 100
_HOW_TO_READ = (
    "Beside each line stands its last value; point at a chart, or use its arrow keys, for others."
)
SECTION_FACTS = (
    "masker", "target", "dvae", "loss", "augment", "batch", "optimizer",
)  # fmt: skip
# What makes an experiment, in the order in which one reads it.
FACTS = (
    "data.train", "data.size", "model.backbone", "model.decoder",
    *(f"{verb}.{key}" for verb in VERBS for key in SECTION_FACTS),
)  # fmt: skip


def curves(charts: Sequence[Chart], names: Sequence[str]) -> Html:
    """A figure for each chart; the script draws into them."""
    if not charts:
        return tag("p", "No step was logged.", class_="empty")
    tools = tag(
        "p",
        tag("label", Html('<input type="checkbox" id="smooth"> '), "Smooth the lines"),
        tag("span", _HOW_TO_READ, class_="hint"),
        class_="tools",
    )
    notes = [
        tag("noscript", tag("p", "The curves are drawn by JavaScript; the tables need none.")),
        tag("p", *_how_drawn(charts), class_="hint"),
    ]
    figures = [_figure(index, chart, names) for index, chart in enumerate(charts)]
    return join([tools, tag("div", *figures, class_="charts"), *notes])


def _how_drawn(charts: Sequence[Chart]) -> list[str]:
    longest = max((curve for chart in charts for curve in chart.curves), key=lambda c: len(c.steps))
    count = len(longest.steps)
    words = []
    if count > 2 * BUCKETS:
        words.append(
            f"Of {count:,} logged steps each curve shows the lowest and the highest value in each "
            f"of {BUCKETS} intervals, the first and the last. "
        )
    if count >= FEWEST_TO_SMOOTH:
        window = smooth(longest.values)[2]
        words.append(
            f"A smoothed line is the mean over {window:,} steps around each step (2 % of them). "
        )
    words.append("The speed leaves out pauses for validation, pictures and checkpoints.")
    return words


def _figure(index: int, chart: Chart, names: Sequence[str]) -> Html:
    title = tag("span", chart.title, class_="title")
    unit = tag("span", chart.unit, class_="unit")
    scale = tag("label", Html('<input type="checkbox" class="log"> '), "log scale")
    caption = tag("figcaption", title, unit, scale if chart.log else Html())
    labels = [_label(chart, curve, names) for curve in chart.curves]
    legend = [
        tag(
            "li",
            tag("span", class_="key", aria_hidden="true"),
            tag("span", label),
            tag("span", class_="value"),
            class_=f"{_color(chart, place, names)} {chart.curves[place].style}",
        )
        for place, label in enumerate(labels)
    ]
    plot = tag(
        "div",
        class_="plot",
        tabindex="0",
        role="img",
        aria_label=f"{chart.title} over steps; arrow keys read values, the table below has them",
    )
    return tag(
        "figure",
        caption,
        plot,
        tag("ul", *legend, class_="legend"),
        tag("p", class_="spoken", role="status"),
        *(tag("p", text, class_="lost") for text in _lost(chart, labels)),
        _data(chart, labels),
        class_="chart",
        data_chart=str(index),
    )


def _label(chart: Chart, curve: Curve, names: Sequence[str]) -> str:
    if len(names) == 1:
        return curve.label or chart.title.partition(",")[0].lower()
    return f"{names[curve.run]} {curve.label}".strip()


def _color(chart: Chart, place: int, names: Sequence[str]) -> str:
    """One color a run; of a single run, one a curve, and gray for what is no model."""
    curve = chart.curves[place]
    if len(names) > 1:
        return color_of(curve.run)
    return "muted" if curve.style in ("dashed", "dotted") else color_of(place)


def _lost(chart: Chart, labels: Sequence[str]) -> list[str]:
    return [
        f"{label}: {len(curve.lost):,} of {len(curve.steps):,} values are not finite, the first "
        f"at step {curve.lost[0]:,}"
        for curve, label in zip(chart.curves, labels, strict=True)
        if len(curve.lost)
    ]


def _data(chart: Chart, labels: Sequence[str]) -> Html:
    rows = [
        (f"{step:,}", *(number(value) for value in values))
        for step, values in rows_of(chart, TABLE_ROWS)
    ]
    every = max(len(curve.steps) for curve in chart.curves)
    of = f", {len(rows)} of {every:,} steps" if len(rows) < every else ""
    grid = table(("Step", *labels), rows, label=f"{chart.title}, data", numbers=True)
    return tag("details", tag("summary", f"Data{of}"), grid)


def reconstructions(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """The same held-out samples at every step at which they were drawn, behind one slider."""
    pictures = [read_pictures(run.path / "pictures") for run in runs]
    steps = sorted({picture.step for each in pictures for picture in each.shown})
    notes = join(
        tag("p", f"{name}: {text}" if len(runs) > 1 else text, class_="hint")
        for each, name in zip(pictures, names, strict=True)
        for text in _about(each)
    )
    if not steps:
        return join([tag("p", "No pictures were drawn.", class_="empty"), notes])
    slider = tag(
        "div",
        tag("label", "Step ", tag("output", f"{steps[-1]:,}", id="picture-step"), for_="slider"),
        Html(
            f'<input type="range" id="slider" min="0" max="{len(steps) - 1}" step="1" '
            f'value="{len(steps) - 1}" aria-valuetext="step {steps[-1]}" '
            f'data-steps="{json.dumps(steps, separators=(",", ":"))}">'
        ),
        tag("button", "Play", type="button", id="play"),
        class_="slider",
        hidden=len(steps) == 1,
    )
    figures = [
        _pictures_of(each, name, several=len(runs) > 1)
        for each, name in zip(pictures, names, strict=True)
        if each.shown
    ]
    return join([slider, tag("div", *figures, class_="pictures"), notes])


def _pictures_of(pictures: Pictures, name: str, *, several: bool) -> Html:
    last = pictures.shown[-1]
    images = join(
        Html(
            tag(
                "img",
                src=picture.address,
                width=str(picture.width),
                height=str(picture.height),
                alt=f"Reconstructions of held-out samples by {name} at step {picture.step:,}",
                data_step=str(picture.step),
                hidden=picture is not last,
            ).removesuffix("</img>")
        )
        for picture in pictures.shown
    )
    frame = tag(
        "div", images, class_="scroll", role="region", aria_label=f"Pictures of {name}",
        tabindex="0",
    )  # fmt: skip
    step = tag("span", f"{last.step:,}", class_="step")
    caption = tag("figcaption", f"{name}, step ", step) if several else Html()
    return tag("figure", caption, frame, class_="reconstruction")


def _about(pictures: Pictures) -> list[str]:
    words = []
    if pictures.found > MOST:
        words.append(f"{MOST} of {pictures.found:,} pictures are shown.")
    if pictures.recoded:
        words.append("Large pictures are embedded as JPEG; the originals are in pictures/.")
    if pictures.broken:
        words.append(f"Could not be read: {', '.join(pictures.broken)}.")
    return words


def recipe(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """What was asked for; of several runs first what differs."""
    columns = [flat(run.recipe) for run in runs]
    if len(runs) == 1:
        first = _facts(runs[0].recipe, runs[0].verb)
    else:
        rows = side_by_side(columns, MISSING)
        rows = [rows[index] for index in differing(rows)]
        first = (
            table(("Key", *names), rows, label="Recipe keys that differ")
            if rows
            else tag("p", "The recipes are the same.", class_="empty")
        )
    whole = [
        tag("details", tag("summary", _titled("recipe.yaml", name, runs)), _verbatim(text))
        for text, name in zip((run.recipe_text for run in runs), names, strict=True)
        if text
    ]
    return join([first, *(whole or [tag("p", "No recipe was written.", class_="empty")])])


def _facts(recipe: Any, verb: str | None) -> Html:  # noqa: ANN401 (any plain value)
    """The recipe without the sections of verbs other than the run's, and a dVAE's has no model."""
    others = {each for each in VERBS if verb not in (None, each)}
    if verb == "tokenizer":
        others.add("model")
    rows = []
    for path in FACTS:
        if path.partition(".")[0] in others:
            continue
        value = recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            name = [shown(value["name"])] if "name" in value else []
            rest = [f"{key}: {inner}" for key, inner in flat(value).items()
                    if key != "name" and inner != "null"]  # fmt: skip
            rows.append((path, ", ".join(name + rest)))
        elif value is not None:
            rows.append((path, shown(value)))
    return table(("Key", "Value"), rows, label="The recipe in short") if rows else Html()


def bad_files(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """Files that could not be read, and why."""
    parts: list[Html] = []
    for run, name in zip(runs, names, strict=True):
        if not run.bad_files:
            continue
        columns = ("File", "Reason", "Set", "Step")
        rows = [
            [str(row.get(key, MISSING)) for key in ("file", "reason", "set", "step")]
            for row in run.bad_files[:BAD_FILES_SHOWN]
        ]
        if len(runs) > 1:
            parts.append(tag("h3", name))
        parts.append(table(columns, rows, label=f"Bad files of {name}"))
        more = len(run.bad_files) - len(rows)
        if more:
            parts.append(tag("p", f"And {more:,} more in bad_files.jsonl.", class_="hint"))
    return join(parts) if parts else tag("p", "None.", class_="empty")


def environment(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """Versions and machines, of several runs with what differs pointed out."""
    rows = side_by_side([flat(_with_command(run.environment)) for run in runs], MISSING)
    if not rows:
        return tag("p", "No env.json was written.", class_="empty")
    columns = ("", *names) if len(runs) > 1 else ("", "Value")
    return table(columns, rows, label="Environment", marked=differing(rows))


def _with_command(found: dict[str, Any]) -> dict[str, Any]:
    """The command as one line instead of a list."""
    command = found.get("command")
    return found | {"command": " ".join(map(str, command))} if isinstance(command, list) else found


def log(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """The last lines of each log; open where a run did not end well."""
    parts = [
        tag(
            "details",
            tag("summary", _titled(f"Last {len(run.log)} lines of log.txt", name, runs)),
            _verbatim("\n".join(run.log)),
            open=run.verdict.state in ("crashed", "killed"),
        )
        for run, name in zip(runs, names, strict=True)
        if run.log
    ]
    return join(parts) if parts else tag("p", "No log was written.", class_="empty")


def _titled(title: str, name: str, runs: Sequence[Run]) -> str:
    return title if len(runs) == 1 else f"{title}, {name}"


def _verbatim(text: str) -> Html:
    return tag("pre", text, tabindex="0")
