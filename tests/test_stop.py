"""Signals: the first asks, the second stops."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from maekit import registry
from maekit.errors import Interrupted
from maekit.stop import Leaving, StopSignal, interruptible, leaving_at_once


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


def test_a_signal_in_an_import_is_not_a_parts_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry.entry("maskers", "random")

    class Interrupting:
        def load(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(registry, "entry", lambda *_: replace(found, point=Interrupting()))
    with leaving_at_once():
        with pytest.raises(Leaving) as left:
            registry.find("maskers", "random")
        assert left.value.code == 75
        with StopSignal() as stop:  # where the exception was taken for an error and lost
            assert stop.requested == "SIGTERM"
    with StopSignal() as stop:
        assert stop.requested is None
