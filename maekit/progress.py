"""How far a long work is: who does it counts, who shows it listens.

Like ``stop.check``, counting needs no argument handed down: a listener is set around the work, and
without one nothing happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_SECONDS = 0.1  # between two reports


@dataclass(frozen=True)
class Progress:
    """How far a work is.

    Attributes:
        what: the work, for people.
        done: how much of it.
        total: of how much; None where nobody knows.
        unit: what is counted; ``B`` are bytes.
        ended: whether it is over, finished or not.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    ended: bool = False


_listener: ContextVar[Callable[[Progress], object] | None] = ContextVar("progress", default=None)


@contextmanager
def listening(listener: Callable[[Progress], object]) -> Iterator[None]:
    """Have a listener told of all that is counted while the context lasts."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def counted(what: str, total: int | None = None, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Count a work while the context lasts; the listener is told ten times a second at most."""
    listener = _listener.get()
    last = -_SECONDS

    def count(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if listener is not None and now - last >= _SECONDS:
            last = now
            listener(Progress(what, done, total, unit))

    count(0)
    try:
        yield count
    finally:
        if listener is not None:
            listener(Progress(what, 0, total, unit, ended=True))
