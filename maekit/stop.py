"""Signals: the first asks a run to save and stop, the second stops it now.

Whatever takes long calls ``check`` now and then, so that a run is left soon, wherever it is:
a batch scheduler that preempts a job waits for no more than half a minute.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from maekit.errors import INTERRUPTED, Interrupted

T = TypeVar("T")
# Ctrl-C; preemption; SLURM's --signal=USR1; a terminal or connection that was closed.
WATCHED = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class StopSignal:
    """Catch the stop signals while it is entered; ``requested`` names the one that came.

    Args:
        signals: False: none is caught, as by a library or outside of the main thread.
    """

    def __init__(self, *, signals: bool = True) -> None:
        self.requested: str | None = None
        self.raises = False  # whether the first signal ends what is being done, wherever it is
        self.deferred = False  # whether it only asks: several processes must leave together
        self._signals = signals
        self._before: dict[int, Any] = {}
        self._token: Token[StopSignal | None] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        if self._signals and _early:  # what it ended, a library took for an error of its own
            self.requested = _early.pop()
        if self._signals and threading.current_thread() is threading.main_thread():
            for number in watched():
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
        if self._token is not None:
            _current.reset(self._token)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
        if self.raises and not self.deferred:
            raise Interrupted("interrupted")


class Leaving(SystemExit):
    """A signal came before there was anything to save: the process leaves."""


_early: list[str] = []  # the signal that came then


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Leave with the exit code of an interruption, as long as there is nothing to save.

    It is for the time until a ``StopSignal`` is entered: importing torch takes seconds.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in watched():
            if number != signal.SIGINT:
                before[number] = signal.signal(number, _leave)
    try:
        yield
    finally:
        _early.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


_hooks_left_out = threading.Event()


def leave_hooks_out() -> None:
    """Have the command line end without the exit hooks of libraries: one of them would wait."""
    _hooks_left_out.set()


def without_hooks(code: object) -> None:
    """Leave at once with an exit code, if ``leave_hooks_out`` was called; else return."""
    if _hooks_left_out.is_set() and isinstance(code, int):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed by whoever read it
                stream.flush()
        os._exit(code)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    _early[:] = [signal.Signals(number).name]
    raise Leaving(INTERRUPTED)


_BETWEEN = 1024  # items of which there may be millions: some milliseconds

_current: ContextVar[StopSignal | None] = ContextVar("stop", default=None)


def check() -> None:
    """Leave what is being done, if a signal has come.

    Raises:
        Interrupted: it has.
    """
    stop = _current.get()
    if stop is not None and stop.requested and not stop.deferred:
        raise Interrupted("interrupted")


def hearing(items: Iterable[T]) -> Iterator[T]:
    """Yield items of which there may be millions, and leave them soon if a signal has come.

    Raises:
        Interrupted: it has.
    """
    for number, item in enumerate(items):
        if number % _BETWEEN == 0:
            check()
        yield item


@contextmanager
def by_itself() -> Iterator[None]:
    """Let a signal end what one of several processes does alone: the others are told afterwards."""
    stop = _current.get()
    if stop is None:
        yield
        return
    before, stop.deferred = stop.deferred, False
    try:
        yield
    finally:
        stop.deferred = before


@contextmanager
def interruptible() -> Iterator[None]:
    """Leave the body at the first signal: for others' code that takes long and asks nobody.

    Raises:
        Interrupted: a signal has come, or comes.
    """
    check()
    stop = _current.get() or StopSignal(signals=False)
    stop.raises = True
    try:
        yield
    finally:
        stop.raises = False


def watched() -> list[int]:
    """Return the numbers of the signals that stop a run; Windows has not all of them.

    ``nohup`` has a process ignore SIGHUP: then it stays so.
    """
    numbers = [getattr(signal, name) for name in WATCHED if hasattr(signal, name)]
    return [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]
