"""Show events on the terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from maekit.engine.events import Emit, Event, Note, Saved, StepDone
from maekit.engine.reporters import SECONDS_PER_LINE, describe, is_last, numbers
from maekit.text import printable


class Terminal:
    """Show one live bar on a terminal, plain lines elsewhere, all on stderr."""

    def __init__(
        self, console: Console, *, title: str = "", quiet: bool = False, verbose: bool = False
    ) -> None:
        self.console = console
        self.title = title
        self.quiet = quiet
        self.verbose = verbose
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.last_line = 0.0
        self.closed = False

    def __call__(self, event: Event) -> None:
        """Print what a person wants to read now."""
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, Note) and event.warning:
            self._say(f"warning: {event.text}", "yellow")
        elif not self.quiet and (self.verbose or not isinstance(event, Saved)):
            line = describe(event)
            if line:
                self._say(line)

    def _step(self, event: StepDone) -> None:
        if self.quiet or event.throughput is None:
            return
        if self.console.is_terminal:
            bar, task = self._live(event.throughput.total_steps)
            bar.update(task, completed=event.step, numbers=numbers(event))
        elif time.monotonic() - self.last_line > SECONDS_PER_LINE or is_last(event):
            self.last_line = time.monotonic()
            total = event.throughput.total_steps
            self._say(f"step {event.step}/{total}  {numbers(event)}")

    def _say(self, text: str, style: str = "") -> None:
        if self.closed:
            return
        try:
            self.console.print(Text(printable(text, lines=False), style=style), soft_wrap=True)
        except (OSError, ValueError, SystemExit):  # rich leaves the process on a broken pipe
            self.closed = True  # nobody reads it any more: no reason to end a training

    def _live(self, total: int) -> tuple[Progress, TaskID]:
        if self.bar is None or self.task is None:
            self.bar = Progress(
                TextColumn(self.title),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=total, numbers="")
        return self.bar, self.task

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class LoggingBridge(logging.Handler):
    """Show what parts say through ``logging`` (samples are being drawn) as notes."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.INFO)
        self.listener = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Turn a record into a note."""
        self.listener(Note(record.getMessage(), warning=record.levelno >= logging.WARNING))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to maekit's own loggers while the context lasts."""
        logger = logging.getLogger("maekit")
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
