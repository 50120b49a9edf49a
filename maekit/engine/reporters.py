"""Write events into a run's folder: log.txt and metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from maekit.engine.events import Emit, Ended, Event, Measured, Note, Saved, StepDone
from maekit.engine.run_folder import plain
from maekit.errors import StorageError
from maekit.progress import Progress
from maekit.text import printable

SECONDS_PER_LINE = 10.0  # where every step would be too much


class Reporter(Protocol):
    """Listener that takes every event, and is closed at the end."""

    def __call__(self, event: Event) -> None:
        """Take an event."""
        ...

    def close(self) -> None:
        """Finish what is written."""
        ...


R = TypeVar("R", bound=Reporter)


class Reporters:
    """Listeners of a run: first the caller's, which stays open, then reporters."""

    def __init__(self, listener: Emit, *members: Reporter) -> None:
        self.listener = listener
        self.members = list(members)

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        self.listener(event)
        for member in self.members:
            member(event)

    def close(self) -> None:
        """Close all reporters."""
        for member in self.members:
            member.close()


class Dispensable(Generic[R]):
    """A reporter that no training depends on: a failure is reported once, then it is not used.

    Args:
        make: opens the reporter.
        name: of what it writes.
        warn: called with a note of the failure.
    """

    def __init__(self, make: Callable[[], R], name: str, warn: Emit) -> None:
        self._name, self._warn = name, warn
        self._reporter: R | None = None
        self._try(lambda: setattr(self, "_reporter", make()))

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        self.use(lambda reporter: reporter(event))

    def use(self, action: Callable[[R], object]) -> None:
        """Do something with the reporter, as long as it works."""
        reporter = self._reporter
        if reporter is not None:
            self._try(lambda: action(reporter))

    def close(self) -> None:
        """Close it, once: what fails to be closed may have waited long already."""
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            self._try(reporter.close)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a full disk, a library that fails, anything
            failed, self._reporter = self._reporter, None
            if failed is not None:
                with suppress(Exception):
                    failed.close()
            text = f"{self._name} is not written any more: {type(error).__name__}: {error}"
            self._warn(Note(text, warning=True))


def is_last(event: StepDone) -> bool:
    """Return whether this is the last update of the run."""
    return event.throughput is not None and event.step >= event.throughput.total_steps


def numbers(event: StepDone) -> str:
    """Format loss, lr, samples/s, data wait, gradient norm, memory, time left."""
    shown = named_numbers(event)
    order = ("loss", "lr", "grad", "samples/s", "wait", "memory", "skipped", "left")
    return "  ".join(shown[name] for name in order if name in shown)


def named_numbers(event: StepDone) -> dict[str, str]:
    """Format each number of a step, by its name."""
    shown = {
        "loss": f"loss {event.loss:.4f}",
        "lr": f"lr {event.lr:.2e}",
        "grad": f"grad {event.grad_norm:.2f}",
    }
    pace = event.throughput
    if pace is not None:
        shown |= {
            "samples/s": f"{pace.samples_per_second:.0f} samples/s",
            "wait": f"wait {pace.data_wait:.0%}",
            "memory": f"{pace.memory / 1e9:.1f} GB",
            "left": f"left {duration(pace.seconds_left)}",
        }
        if pace.skipped_steps:
            shown["skipped"] = f"skipped {pace.skipped_steps}"
    return shown


def duration(seconds: float) -> str:
    """Write hours and minutes, minutes and seconds, or seconds."""
    minutes, left = divmod(round(seconds), 60)
    hours, rest = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {rest:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"


def amount(event: Progress) -> str:
    """Write how much of how much is done."""
    if event.unit == "B":
        whole = "" if event.total is None else f" of {event.total / 1e6:,.1f}"
        return f"{event.done / 1e6:,.1f}{whole} MB"
    if event.total is None:
        return f"{event.done:,}" if event.done else ""
    return f"{event.done:,} of {event.total:,}"


def describe(event: Event) -> str:
    """Describe an event in one line; empty where nothing needs saying."""
    match event:
        case Note():
            return event.text
        case Measured():
            values = "  ".join(
                f"{key} {'-' if value is None else format(value, '.5f')}"
                for key, value in event.values.items()
            )
            return f"step {event.step}  {event.name}: {values}"
        case Saved():
            return f"step {event.step}  {event.kind}: {event.path}"
        case StepDone():
            return f"step {event.step}  {numbers(event)}"
        case Ended():
            return ""  # whoever began the run says so
        case Progress():
            return "" if event.ended else f"{event.what}: {amount(event)}"


class Seldom:
    """Choose which events get a line where lines stay: steps and counts only now and then."""

    def __init__(self) -> None:
        self._step, self._count = -math.inf, 0.0

    def __call__(self, event: Event) -> bool:
        """Return whether an event is to have its line."""
        now = time.monotonic()
        if isinstance(event, Progress):
            if event.done == 0 or event.ended:  # what takes less than one line's time gets none
                self._count = now
            due = now - self._count >= SECONDS_PER_LINE
            self._count = now if due else self._count
            return due
        if isinstance(event, StepDone):
            due = now - self._step >= SECONDS_PER_LINE or is_last(event)
            self._step = now if due else self._step
            return due
        return True


class LogFile:
    """log.txt: every line with its time; steps once in a while."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self.seldom = Seldom()

    def __call__(self, event: Event) -> None:
        """Append a line."""
        line = describe(event) if self.seldom(event) else ""
        if line:
            self.write(f"warning: {line}" if isinstance(event, Note) and event.warning else line)

    def write(self, text: str) -> None:
        """Append text with the time."""
        self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {printable(text)}\n")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class JsonLines:
    """metrics.jsonl: one line per step, and one per measurement."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, event: Event) -> None:
        """Append a line."""
        if isinstance(event, StepDone):
            record = asdict(event)
            pace = record.pop("throughput") or {}
            rare = {"skipped": None, "skipped_steps": 0}  # only where there is something to say
            self._write({k: v for k, v in (record | pace).items() if v != rare.get(k, math.nan)})
        elif isinstance(event, Measured):
            self._write({"step": event.step, event.name: event.values})

    def _write(self, record: dict[str, Any]) -> None:
        rounded = {key: _rounded(value) for key, value in record.items()}
        try:
            self.file.write(json.dumps(plain(rounded), allow_nan=False) + "\n")
        except OSError as error:
            msg = f"metrics cannot be written: {error.strerror or error}"
            hint = "free some space, then --resume"
            raise StorageError(msg, where=self.file.name, hint=hint) from error

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _rounded(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Round a float to the digits that a float32 has."""
    return float(f"{value:.9g}") if isinstance(value, float) else value
