"""Commands that look back at runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maekit.cli.options import Json, finish


def add_to(app: typer.Typer) -> None:
    """Declare them."""
    app.command()(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Default: RUN/report.html; of several runs ./report.html."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Put a run, or several side by side, on one HTML page that needs no network.

    Example: maekit report runs/quickstart/1
    """

    def body() -> int:
        from maekit.cli.report import report as work

        return work(runs, out, json=json)

    finish(body)
