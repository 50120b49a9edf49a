"""Signals: the first asks a run to save and stop, the second stops it now."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

WATCHED = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C; preemption; SLURM's --signal=USR1


class StopSignal:
    """Catches the stop signals while it is entered; ``requested`` names the one that came."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in WATCHED:
            number = getattr(signal, name, None)  # Windows has no SIGUSR1
            if number is not None:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
