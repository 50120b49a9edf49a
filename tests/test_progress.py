"""Counting of long works: told to whoever listens, and to nobody else."""

from __future__ import annotations

import pytest

from maekit import progress
from maekit.engine.reporters import Seldom, amount, describe
from maekit.progress import Progress, counted, listening


def test_a_listener_hears_the_start_now_and_then_and_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said: list[Progress] = []
    with listening(said.append), counted("drawing", 100, "pictures") as count:
        for done in range(100):  # two and a half seconds
            now[0] += 0.025
            count(done)
    assert said[0] == Progress("drawing", 0, 100, "pictures")
    assert said[-1].ended
    assert 20 <= len(said) <= 27
    assert [each.done for each in said[:-1]] == sorted(each.done for each in said[:-1])


def test_nobody_listens_within_or_after_another_context() -> None:
    outer: list[Progress] = []
    inner: list[Progress] = []
    with listening(outer.append):
        with listening(inner.append), counted("a"):
            pass
        with counted("b"):
            pass
    with counted("c"):
        pass
    assert {each.what for each in inner} == {"a"}
    assert {each.what for each in outer} == {"b"}


def test_the_end_is_told_of_a_work_that_failed() -> None:
    said: list[Progress] = []
    with pytest.raises(ValueError, match="no"), listening(said.append), counted("a", 2):
        raise ValueError("no")
    assert said[-1].ended


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Progress("a", 1200, 5000, "samples"), "1,200 of 5,000"),
        (Progress("a", 2_500_000, 10_000_000, "B"), "2.5 of 10.0 MB"),
        (Progress("a", 2_500_000, None, "B"), "2.5 MB"),
        (Progress("a", 7), "7"),
    ],
)
def test_amounts(event: Progress, text: str) -> None:
    assert amount(event) == text
    assert describe(event) == f"a: {text}"


def test_where_lines_stay_a_count_has_one_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("maekit.engine.reporters.time.monotonic", lambda: now[0])
    seldom, lines = Seldom(), 0
    for done in range(350):  # 35 seconds
        lines += seldom(Progress("a", done, 350))
        now[0] += 0.1
    assert lines == 3
    assert not seldom(Progress("a", 0, 350, ended=True))
