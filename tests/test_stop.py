"""Signals: the first asks, the second stops."""

from __future__ import annotations

import os
import signal

import pytest

from maekit.errors import Interrupted
from maekit.stop import StopSignal, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_asks_and_the_second_stops(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested == signal.Signals(number).name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_the_first_signal_leaves_what_asks_nobody() -> None:
    with StopSignal() as stop:
        with pytest.raises(Interrupted), interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        with pytest.raises(Interrupted), interruptible():
            pytest.fail("it had come before")
    with interruptible():
        pass
