"""What a recipe expects beside what was measured."""

from __future__ import annotations

import pytest

from maekit.cli.result import print_comparison
from maekit.engine.expected import compare
from maekit.recipe.schema import Expected


def expected(metric: str, value: float, band: float | tuple[float, float] | None) -> Expected:
    return Expected(metric=metric, value=value, band=band, source="a paper")


RESULT = {"top1": 0.5, "floor": {"random": 0.2}, "exit": 0, "best": None, "done": True}


@pytest.mark.parametrize(
    ("metric", "band", "value", "inside"),
    [
        ("probe.top1", 0.1, 0.5, True),
        ("probe.top1", 0.01, 0.5, False),
        ("probe.top1", (0.3, 0.5), 0.5, True),
        ("probe.top1", (0.51, 0.9), 0.5, False),
        ("probe.top1", None, 0.5, None),
        ("probe.floor.random", 0.5, 0.2, True),
        ("probe.top9", 0.1, None, None),
        ("probe.best.top1", 0.1, None, None),
        ("probe.floor", 0.1, None, None),
        ("probe.done", 0.1, None, None),
    ],
)
def test_bands(
    metric: str, band: float | tuple[float, float] | None, value: float | None, inside: bool | None
) -> None:
    (found,) = compare([expected(metric, 0.55, band)], "probe", RESULT)
    assert (found["metric"], found["value"], found["inside"]) == (metric, value, inside)


def test_a_number_of_another_protocol_is_not_compared() -> None:
    of = Expected(metric="probe.top1", value=0.5, band=0.1, source="a paper", protocol="knn")
    for protocol, value, inside in (("knn", 0.5, True), ("linear/paper", None, None)):
        (found,) = compare([of], "probe", RESULT | {"protocol": protocol})
        assert (found["protocol"], found["value"], found["inside"]) == ("knn", value, inside)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("linear/paper", "not compared: this run's protocol is linear/paper"),
        (None, "not compared: this run's protocol is unnamed"),
        ("knn", "inside"),
    ],
)
def test_another_protocol_is_told(
    capsys: pytest.CaptureFixture[str], found: str | None, told: str
) -> None:
    of = Expected(metric="probe.top1", value=0.5, band=0.1, source="a paper", protocol="knn")
    print_comparison(compare([of], "probe", RESULT | {"protocol": found}))
    assert told in capsys.readouterr().out


def test_other_verbs_are_left_out() -> None:
    both = [expected("finetune.top1", 0.5, 0.1), expected("probe.top1", 0.5, 0.1)]
    assert [each["metric"] for each in compare(both, "finetune", RESULT)] == ["finetune.top1"]


def test_each_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [("probe.top1", 0.1), ("probe.top1", 0.001), ("probe.top9", 0.1), ("probe.top1", None)]
    print_comparison(
        compare([expected(metric, 0.55, band) for metric, band in cases], "probe", RESULT)
    )
    lines = capsys.readouterr().out.splitlines()
    for line, words in zip(
        lines[1:], ("inside", "OUTSIDE", "not measured", "no band"), strict=True
    ):
        assert words in line
        assert "a paper" in line
    print_comparison([])
    assert "expects no number" in capsys.readouterr().out
