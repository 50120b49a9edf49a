"""Signals: the first asks, the second stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from maekit import registry
from maekit.data import index_file
from maekit.datasets.folders import Wanted, walk
from maekit.datasets.list_rows import read_list
from maekit.errors import Interrupted
from maekit.stop import Leaving, StopSignal, interruptible, leaving_at_once


def test_exit_hooks_of_libraries_can_be_left_out() -> None:
    """One that waits for a server would cost the exit code: schedulers kill after a while."""
    lines = (
        "import atexit, sys, maekit.__main__ as command",
        "from maekit.stop import leave_hooks_out",
        "atexit.register(print, 'hook')",
        "leave_hooks_out() if sys.argv.pop() == 'out' else None",
        "command.main()",
    )
    for words, code in (("--version", 0), ("--no-such", 2)):
        for last in ("in", "out"):
            command = [sys.executable, "-c", "\n".join(lines), words, last]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stderr
            assert ("hook" in done.stdout) == (last == "in")
            assert done.stdout.startswith("maekit") or done.stderr


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


MANY = 4000
Index = Callable[[Path], Iterator[object]]
SUFFIXES = frozenset({".png"})


def lines(folder: Path) -> Iterator[object]:
    (folder / "list").write_text("a.png 3\n" * MANY)
    return read_list(folder / "list", SUFFIXES)


def table(folder: Path) -> Iterator[object]:
    (folder / "list").write_text("path,label\n" + "a.png,3\n" * MANY)
    return read_list(folder / "list", SUFFIXES)


def objects(folder: Path) -> Iterator[object]:
    (folder / "list").write_text('{"path": "a.png"}\n' * MANY)
    return read_list(folder / "list", SUFFIXES)


def files(folder: Path) -> Iterator[object]:
    for number in range(MANY):
        os.mknod(folder / f"{number}.png")
    return walk(str(folder), Wanted(SUFFIXES, frozenset()))


def folders(folder: Path) -> Iterator[object]:
    for number in range(2000):
        (folder / str(number)).mkdir()
        os.mknod(folder / str(number) / "a.png")
    return walk(str(folder), Wanted(SUFFIXES, frozenset()))


@pytest.mark.parametrize("indexed", [lines, table, objects, files, folders])
def test_a_set_that_is_being_indexed_is_left(indexed: Index, tmp_path: Path) -> None:
    found = indexed(tmp_path)
    with StopSignal():
        next(found)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1100):
            try:
                next(found)
            except Interrupted:
                return
    pytest.fail("the signal was not heard")


def test_a_file_that_is_being_hashed_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "LARGE", 0)
    (tmp_path / "list").write_text("a.png\n")
    with StopSignal():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            index_file.key_of_file(tmp_path / "list")
