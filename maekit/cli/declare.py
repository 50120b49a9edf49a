"""How a command is declared: what it runs, which is imported when it is called."""

from __future__ import annotations

import functools
import sys
from contextlib import nullcontext
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS: ContextVar[list[str]] = ContextVar("words")  # of the command line, for further ranks
# Devices that a dry run is asked for.
PLANNED: ContextVar[int] = ContextVar("planned", default=1)
# What each command runs, for the test that their parameters are the same.
TARGETS: dict[Callable[..., None], tuple[str, dict[str, object]]] = {}


def runs(
    target: str, *, resumable: bool = False, **fixed: object
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a declaration run ``module:function`` of ``maekit.cli``, and leave with its exit code.

    Args:
        target: is called with the command's options, by name.
        resumable: a scheduler may start it again: signals leave with the code that says so.
        fixed: further arguments.
    """

    def declare(declaration: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(declaration)
        def command(**options: Any) -> None:  # noqa: ANN401 - any option
            from maekit.cli.errors import run
            from maekit.stop import leaving_at_once

            def body() -> int:
                if "devices" in options:
                    from maekit.ranks import devices_of, follow_parent, start

                    follow_parent()
                    requested = options.pop("devices")
                    rehearsed = options.get("dry_run") and requested not in (None, "all")
                    # A dry run plans for devices that need not be here.
                    number = devices_of(requested, "cpu" if rehearsed else options.get("device"))
                    PLANNED.set(number if rehearsed else 1)
                    if number > 1 and not rehearsed:
                        return start([sys.executable, "-m", "maekit", *WORDS.get()], number)
                module, _, name = target.partition(":")
                function = getattr(import_module(f"maekit.cli.{module}"), name)
                code: int = function(**options, **fixed)
                return code

            with leaving_at_once() if resumable else nullcontext():
                code = run(body, verbose=options.get("verbose", False))
            raise typer.Exit(code)

        TARGETS[command] = (target, fixed)
        return command

    return declare
