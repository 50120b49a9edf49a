"""Show events on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from rich.console import Console
from rich.text import Text

from maekit import progress
from maekit.cli.bar import Bar
from maekit.cli.output import fitted
from maekit.engine.events import Emit, Event, Note, Saved, StepDone
from maekit.engine.reporters import Seldom, describe, numbers
from maekit.progress import Progress
from maekit.ranks import is_speaker
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
        self.bar = Bar(console)
        self.seldom = Seldom()
        self.closed = False

    def __call__(self, event: Event) -> None:
        """Print what a person wants to read now."""
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, Progress):
            self._count(event)
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
            self._draw(lambda: self.bar.step(self.title, event))
        elif self.seldom(event):
            total = event.throughput.total_steps
            self._say(f"step {event.step}/{total}  {numbers(event)}")

    def _count(self, event: Progress) -> None:
        if self.quiet:
            return
        if self.console.is_terminal:
            self._draw(lambda: self.bar.count(event))
        elif self.seldom(event):
            self._say(describe(event))

    def _say(self, text: str, style: str = "") -> None:
        line = printable(text, lines=False)
        if self.console.is_terminal:
            line = fitted(line, self.console.width)
        self._draw(lambda: self.console.print(Text(line, style=style), soft_wrap=True))

    def _draw(self, action: Callable[[], None]) -> None:
        if self.closed:
            return
        try:
            action()
        except (OSError, ValueError, SystemExit):  # rich leaves the process on a broken pipe
            self.closed = True  # nobody reads it any more: no reason to end a training

    def close(self) -> None:
        """Leave the last line of a training as it stands."""
        self._draw(self.bar.close)


@contextmanager
def shown(title: str = "", *, quiet: bool = False, verbose: bool = False) -> Iterator[Terminal]:
    """Show on stderr what a command emits, and what parts say and count, while the context lasts.

    Of several ranks the first speaks for all.
    """
    console = Console(stderr=True, highlight=False, quiet=not is_speaker())
    with (
        closing(Terminal(console, title=title, quiet=quiet, verbose=verbose)) as terminal,
        LoggingBridge(terminal).listening(),
    ):
        yield terminal


class LoggingBridge(logging.Handler):
    """Show what parts say through ``logging`` as notes, and what they count."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.INFO)
        self.listener = emit
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Turn a record into a note; the same warning is given once (weights are looked at twice).

        So a damaged checkpoint is named once.
        """
        text, warning = record.getMessage(), record.levelno >= logging.WARNING
        if warning and text in self._warned:
            return
        if warning:
            self._warned.add(text)
        self.listener(Note(text, warning=warning))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to maekit's own loggers and counts while the context lasts."""
        logger = logging.getLogger("maekit")
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        try:
            with progress.listening(self.listener):
                yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
