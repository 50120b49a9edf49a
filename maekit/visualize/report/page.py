"""The report: one page, everything in it, the same bytes for the same runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from maekit.version import __version__
from maekit.visualize.report.curves import charts_of, packed
from maekit.visualize.report.markup import Html, join, tag
from maekit.visualize.report.paired import Pairing, paired, paired_table
from maekit.visualize.report.record import Run, names_of, read_run
from maekit.visualize.report.sections import (
    bad_files,
    curves,
    environment,
    log,
    recipe,
    reconstructions,
)
from maekit.visualize.report.summary import banner, color_of, comparison, tiles

SCRIPTS = ("numbers.js", "charts.js", "pictures.js")


class Rendered(NamedTuple):
    """A page, and what was read for it."""

    page: bytes
    runs: list[Run]
    pairing: Pairing


def render(paths: Sequence[Path]) -> Rendered:
    """The page about these runs.

    Raises:
        RecipeError: one of them is no run folder.
    """
    runs = [read_run(path) for path in paths]
    names = names_of(list(paths))
    charts, pairing = charts_of(runs), paired(runs)
    sections = {
        "Summary": _summary(runs, names, pairing),
        "Curves": curves(charts, names),
        "Reconstructions": reconstructions(runs, names),
        "Recipe": recipe(runs, names),
        "Bad files": bad_files(runs, names),
        "Environment": environment(runs, names),
        "Log": log(runs, names),
    }
    style, script = _asset("style.css"), "".join(_asset(name) for name in SCRIPTS)
    page = Template(_asset("page.html")).substitute(
        version=__version__,
        policy=_policy(style, script),
        title=join([f"{', '.join(names)} · maekit report"]),
        style=style,
        header=tag("h1", "Run " if len(runs) == 1 else "Runs ", tag("span", ", ".join(names))),
        nav=join(tag("a", title, href=f"#{_anchor(title)}") for title in sections),
        main="\n".join(_section(title, content) for title, content in sections.items()),
        curves=_json([packed(chart) for chart in charts]),
        script=script,
    )
    # File names that were not UTF-8 carry lone surrogates; they are shown escaped.
    return Rendered(page.encode("utf-8", "backslashreplace"), runs, pairing)


def _summary(runs: Sequence[Run], names: Sequence[str], pairing: Pairing) -> Html:
    if len(runs) == 1:
        return join([banner(runs[0], names[0]), tiles(runs[0])])
    banners = [
        banner(run, name, color_of(index))
        for index, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    parts = [tag("div", *banners, class_="banners"), comparison(runs, names)]
    compared = pairing.pairs or pairing.left_out
    return join([*parts, paired_table(pairing, names)] if compared else parts)


def _section(title: str, content: Html) -> Html:
    return tag("section", tag("h2", title), content, id=_anchor(title))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _asset(name: str) -> str:
    return (files("maekit.visualize.report") / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is fetched from anywhere, and no style or script runs but the page's own two."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
