"""The line at the foot of the terminal, and notes above it, at the widths that people have."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from rich.console import Console

from maekit.cli import bar
from maekit.cli.bar import Line, count_line, step_line
from maekit.cli.reporters import Terminal
from maekit.engine.events import Note, StepDone, Throughput
from maekit.progress import Progress


def step(number: int = 12_345, *, skipped: int = 0) -> StepDone:
    pace = Throughput(95_000, 4321.0, 0.02, 140.8e9, 45_296.0, skipped)
    return StepDone(number, 1.0, 0.94641, 3.71e-4, 0.12, throughput=pace)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_step_time_left_and_loss_are_there_at_any_width(width: int) -> None:
    text = step_line("pretrain", step()).fitted(width)
    assert len(text) <= width
    for needed in ("pretrain", "12,345/95,000", "left 12 h 34 min", "loss 0.9464"):
        assert needed in text


def test_what_matters_less_goes_first() -> None:
    line = step_line("pretrain", step(skipped=3))
    order = ["samples/s", "wait", "lr ", "grad ", "GB"]
    shown = [[name in line.fitted(width) for name in order] for width in range(60, 160)]
    for at_one, at_wider in pairwise(shown):
        assert at_one == sorted(at_one, reverse=True)  # none before a more important one
        assert sum(at_one) <= sum(at_wider)
    assert not any(shown[0])
    assert all(shown[-1])
    assert "skipped 3" in line.fitted(60)


def test_the_bar_is_as_long_as_the_share() -> None:
    for share, full in ((0.0, 0), (0.5, 12), (1.0, 24), (1.7, 24)):
        text = Line("a", share, ["b"]).fitted(200)
        assert (text.count("━"), text.count("─")) == (full, 24 - full)
    assert Line("a", 0.5, ["b"]).fitted(200, ascii_only=True).isascii()
    assert Line("a", None, ["b"]).fitted(200) == "a  b"


def test_a_counted_work_says_its_pace_and_the_time_left() -> None:
    line = count_line(Progress("features", 250, 1000, "samples"), 5.0)
    text = line.fitted(80)
    assert line.share == 0.25
    assert "250 of 1,000" in text
    assert "left 15 s" in text
    assert "50.0 samples/s" in text
    fetching = count_line(Progress("fetching", 20_000_000, 80_000_000, "B"), 10.0).fitted(80)
    assert "20.0 of 80.0 MB" in fetching
    assert "2.0 MB/s" in fetching
    assert count_line(Progress("reading"), 61.0).fitted(80) == "reading  1 min 01 s"


def screen(width: int) -> tuple[Terminal, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    return Terminal(console, title="pretrain"), file


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_long_note_is_broken_between_words_but_a_command_is_not() -> None:
    terminal, file = screen(60)
    words = "each hidden patch painted with the mean of the visible ones or interpolated"
    terminal(Note(words))
    lines = file.getvalue().rstrip("\n").split("\n")
    assert len(lines) == 2
    assert " ".join(line.strip() for line in lines) == words
    assert max(map(len, lines)) <= 60
    command = "next: maekit pretrain quickstart data.train.path=some/folder/of/mine ~data.val"
    path = "/a/path/that/is/longer/than/a/line/and/that/somebody/wants/to/copy/x.png"
    for text in (command, path):
        terminal(Note(text))
        assert text in file.getvalue()


def test_a_count_stands_in_for_the_training_and_goes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    terminal, file = screen(80)
    terminal(step(10))
    terminal(Progress("judging", 0, 100))
    now[0] = 0.2
    terminal(Progress("judging", 10, 100))
    assert "judging" not in file.getvalue()  # it may be over in a moment
    now[0] = 2.0
    terminal(Progress("judging", 50, 100))
    assert "judging" in file.getvalue()
    file.truncate(0)
    terminal(Progress("judging", 0, 100, ended=True))
    assert "10/95,000" in file.getvalue()
    file.truncate(0)
    terminal.close()
    lines = [line.rpartition("\r")[2] for line in plain(file.getvalue()).split("\n")]
    assert sum("10/95,000" in line for line in lines) == 1  # once on the screen
    assert lines[-1] == ""
    terminal.close()  # again does nothing


def test_a_count_without_a_training_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    terminal, file = screen(80)
    terminal(Progress("features", 0, 100))
    now[0] = 1.0
    terminal(Progress("features", 50, 100))
    terminal(Progress("features", 0, 100, ended=True))
    assert file.getvalue().rstrip().endswith(("\x1b[2K", "\x1b[?25h"))  # the line was erased
