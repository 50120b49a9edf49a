"""Who listens to the engine: the terminal, log.txt, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from maekit.engine.events import Event, Measured, Note, Saved, StepDone
from maekit.engine.run_folder import plain

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDS_PER_LINE = 10.0  # without a terminal


class Reporter(Protocol):
    """Gets every event, and is closed at the end."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Reporters:
    """Tells every reporter."""

    def __init__(self, *members: Reporter) -> None:
        self.members = list(members)

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        for member in self.members:
            member(event)

    def close(self) -> None:
        """Close all."""
        for member in self.members:
            member.close()


class Terminal:
    """One live bar on a terminal; plain lines elsewhere. Everything goes to stderr."""

    def __init__(
        self, console: Console, *, title: str = "", quiet: bool = False, verbose: bool = False
    ) -> None:
        self.console = console
        self.title = title
        self.quiet = quiet
        self.verbose = verbose
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.told = 0.0

    def __call__(self, event: Event) -> None:
        """Print what a person wants to read now."""
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, Note) and event.warning:
            self._say(Text(f"warning: {event.text}", style="yellow"))
        elif not self.quiet and (self.verbose or not isinstance(event, Saved)):
            line = describe(event)
            if line:
                self._say(Text(line))

    def _step(self, event: StepDone) -> None:
        if self.quiet or event.pace is None:
            return
        if self.console.is_terminal:
            bar, task = self._live(event.pace.total_steps)
            bar.update(task, completed=event.step, numbers=numbers(event))
        elif time.monotonic() - self.told > SECONDS_PER_LINE or _last(event):
            self.told = time.monotonic()
            total = event.pace.total_steps
            self._say(Text(f"step {event.step}/{total}  {numbers(event)}"))

    def _say(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)

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


def _last(event: StepDone) -> bool:
    return event.pace is not None and event.step >= event.pace.total_steps


def numbers(event: StepDone) -> str:
    """loss, lr, samples/s, data wait, gradient norm, memory, time left."""
    parts = [f"loss {event.loss:.4f}", f"lr {event.lr:.2e}", f"grad {event.grad_norm:.2f}"]
    if event.pace is not None:
        pace = event.pace
        parts += [
            f"{pace.samples_per_second:.0f} samples/s",
            f"wait {pace.data_wait:.0%}",
            f"{pace.memory / 1e9:.1f} GB",
            f"left {duration(pace.seconds_left)}",
        ]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """h:mm:ss, or m:ss."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe(event: Event) -> str:
    """One line for people; empty where nothing needs saying."""
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


class Heard(logging.Handler):
    """Tells what parts say through ``logging`` (samples are being drawn) as notes."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        super().__init__(logging.INFO)
        self.tell = emit

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one note."""
        self.tell(Note(record.getMessage(), warning=record.levelno >= logging.WARNING))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear maekit's own loggers while the context lasts."""
        logger = logging.getLogger("maekit")
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)


class LogFile:
    """log.txt: every line with its time; steps as often as their pace is told."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8", buffering=1)
        self.told = 0.0

    def __call__(self, event: Event) -> None:
        """Append a line."""
        if isinstance(event, StepDone):
            if time.monotonic() - self.told < SECONDS_PER_LINE and not _last(event):
                return
            self.told = time.monotonic()
        line = describe(event)
        if line:
            self.write(f"warning: {line}" if isinstance(event, Note) and event.warning else line)

    def write(self, text: str) -> None:
        """Append text as it is, with the time."""
        self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

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
            pace = record.pop("pace") or {}
            self._write(record | pace)
        elif isinstance(event, Measured):
            self._write({"step": event.step, event.name: event.values})

    def _write(self, record: dict[str, Any]) -> None:
        rounded = {key: _rounded(value) for key, value in record.items()}
        self.file.write(json.dumps(plain(rounded), allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _rounded(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """All that a float32 has, and no more."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


class TensorBoard:
    """Scalars and pictures for TensorBoard, where it is installed."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run logged after its checkpoint is made again.
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    @classmethod
    def if_installed(cls, folder: Path, step: int) -> list[Reporter]:
        """A list of one, or of none."""
        return [cls(folder, step)] if find_spec("tensorboard") else []

    def __call__(self, event: Event) -> None:
        """Add what can be drawn."""
        add: Callable[..., None] = self.writer.add_scalar
        if isinstance(event, StepDone):
            for name in ("loss", "lr", "grad_norm"):
                add(f"train/{name}", getattr(event, name), event.step)
            if event.pace is not None:
                add("pace/samples_per_second", event.pace.samples_per_second, event.step)
                add("pace/data_wait", event.pace.data_wait, event.step)
        elif isinstance(event, Measured):
            for name, value in event.values.items():
                if value is not None:
                    add(f"{event.name}/{name}", value, event.step)

    def picture(self, image: Image, step: int) -> None:
        """Add a picture."""
        import numpy as np

        self.writer.add_image(
            "reconstructions", np.asarray(image.convert("RGB")), step, dataformats="HWC"
        )

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()
