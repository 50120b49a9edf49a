"""One line at the foot of a terminal that says how far a work is, cut to the terminal's width.

What matters most is kept at any width: what runs, how much of how much, the time left, the loss;
the rest follows while there is room.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from maekit.engine.reporters import amount, duration, named_numbers
from maekit.text import printable

if TYPE_CHECKING:
    from maekit.engine.events import StepDone
    from maekit.progress import Progress

_SHORT, _LONG = 10, 24  # columns of the bar itself: before, and after all numbers have their place
_SHOWN_AFTER = 0.5  # seconds that a counted work takes before it has a bar
_NEEDED = ("left", "loss", "skipped")
_WELCOME = ("samples/s", "wait", "lr", "grad", "memory")


@dataclass(frozen=True)
class Line:
    """A work's line.

    Attributes:
        title: what runs.
        share: how much of it is done, from 0 to 1; None: nobody knows.
        needed: numbers that are shown at any width, in this order.
        welcome: further ones, that are shown while there is room.
    """

    title: str
    share: float | None
    needed: Sequence[str]
    welcome: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - 3  # with a ^C behind it, too, it is one line that can be erased
        yield Text(self.fitted(width, ascii_only=options.ascii_only), no_wrap=True, overflow="crop")

    def fitted(self, width: int, *, ascii_only: bool = False) -> str:
        """Write the line in ``width`` columns."""
        words = [self.title, *self.needed]
        free = width - cell_len("  ".join(words))
        bar = 0 if self.share is None else min(_SHORT, free - 2)
        bar = bar if bar >= 3 else 0
        free -= bar + 2 if bar else 0
        for each in self.welcome:
            if cell_len(each) + 2 > free:
                break
            words.append(each)
            free -= cell_len(each) + 2
        if bar and self.share is not None:
            bar = min(_LONG, bar + free)
            full = int(bar * min(1.0, self.share))
            signs = "#-" if ascii_only else "━─"
            words.insert(1, signs[0] * full + signs[1] * (bar - full))
        return "  ".join(words)


def step_line(title: str, event: StepDone) -> Line:
    """Say how far a training is; the event has its throughput."""
    shown = named_numbers(event)
    total = 0 if event.throughput is None else event.throughput.total_steps
    needed = [shown[name] for name in _NEEDED if name in shown]
    welcome = [shown[name] for name in _WELCOME if name in shown]
    share = event.step / max(1, total)
    return Line(title, share, [f"{event.step:,}/{total:,}", *needed], welcome)


def count_line(event: Progress, seconds: float) -> Line:
    """Say how far a counted work is, which began so many seconds ago."""
    what, total = printable(event.what, lines=False), event.total
    count = amount(event)
    if not total or not event.done:
        needed = [each for each in (count, duration(seconds)) if each]
        return Line(what, 0.0 if total else None, needed)
    left = seconds * (total - event.done) / event.done
    pace = event.done / max(seconds, 1e-9)
    speed = f"{pace / 1e6:,.1f} MB/s" if event.unit == "B" else f"{pace:,.1f} {event.unit}/s"
    welcome = [speed] if event.unit else []
    return Line(what, event.done / total, [count, f"left {duration(left)}"], welcome)


class Bar:
    """The line of the training, and over it that of whatever is counted meanwhile.

    It has no thread: workers may be started, and the process may be stopped, at any time.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._training: Line | None = None
        self._began = 0.0

    def step(self, title: str, event: StepDone) -> None:
        """Show a step of the training."""
        self._training = step_line(title, event)
        self._show(self._training)

    def count(self, event: Progress) -> None:
        """Show how far a counted work is, after a moment where its length is known."""
        now = time.monotonic()
        if event.done == 0 and not event.ended:
            self._began = now
        if event.ended:
            if self._training is None:
                self.close()
            else:
                self._show(self._training)
        elif now - self._began >= _SHOWN_AFTER or event.total is None:
            self._show(count_line(event, now - self._began))

    def _show(self, line: Line) -> None:
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(line, refresh=True)

    def close(self) -> None:
        """Take the line away; that of a training stays as its last."""
        live, self._live = self._live, None
        if live is None:
            return
        live.transient = self._training is None
        if self._training is not None:
            live.update(self._training, refresh=True)
        self._training = None
        live.stop()
