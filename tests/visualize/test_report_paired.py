"""Runs on the same samples: the difference and its error, against scipy and by hand; and what
stands in no pair is said to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import make_run

from maekit.engine.run_folder import PREDICTIONS
from maekit.visualize.report.page import render
from maekit.visualize.report.paired import Pairing, paired
from maekit.visualize.report.run import read_run

CLASSES = 4


def judged(folder: Path, right: np.ndarray, *, at: str = "/here", way: str = "knn") -> Path:
    """Write a probe whose predictions are right or wrong as told."""
    records = []
    for row, good in enumerate(right.tolist()):
        label = row % CLASSES
        scores = [0.1] * CLASSES
        scores[label if good else (label + 1) % CLASSES] = 0.7
        records.append({"row": row, "id": f"{at}/{row:03d}.png", "label": label, "scores": scores})
    return written(folder, records, way)


def written(folder: Path, records: list[dict[str, Any]], way: str = "knn") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"verb": "probe", "exit": 0, "protocol": way}))
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / PREDICTIONS).write_text("".join(lines))
    return folder


def pairing(*folders: Path) -> Pairing:
    return paired([read_run(folder) for folder in folders])


def reasons(*folders: Path) -> dict[str, str]:
    return {folders[each.run].name: each.reason for each in pairing(*folders).left_out}


def test_difference_and_error_are_those_of_a_paired_t_test(tmp_path: Path) -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    one, other = rng.random(80) < 0.8, rng.random(80) < 0.6
    found = pairing(judged(tmp_path / "one", one), judged(tmp_path / "other", other))
    (pair,) = found.pairs
    assert (pair.one, pair.other, pair.samples, found.left_out) == (1, 0, 80, ())
    assert pair.difference == pytest.approx(other.mean() - one.mean())
    told = stats.ttest_rel(other.astype(float), one.astype(float))
    # scipy divides by n - 1, McNemar by n.
    assert pair.difference / pair.error == pytest.approx(told.statistic * math.sqrt(80 / 79))


def test_equal_runs_differ_by_nothing(tmp_path: Path) -> None:
    right = np.arange(12) % 3 > 0
    (pair,) = pairing(judged(tmp_path / "a", right), judged(tmp_path / "b", right)).pairs
    assert (pair.difference, pair.error, pair.notes) == (0.0, 0.0, ())


def test_a_moved_set_is_the_same_set_and_that_is_said(tmp_path: Path) -> None:
    right = np.ones(8, bool)
    folders = [judged(tmp_path / "a", right), judged(tmp_path / "b", ~right, at="/there")]
    (pair,) = pairing(*folders).pairs
    assert (pair.difference, pair.notes) == (-1.0, ("files in /there, not /here",))


def test_a_folder_whose_name_is_no_utf8_is_shown_escaped(tmp_path: Path) -> None:
    right = np.ones(8, bool)
    folders = [judged(tmp_path / "a", right), judged(tmp_path / "b", right, at="/\udcff")]
    assert pairing(*folders).pairs[0].notes == (r"files in /\udcff, not /here",)


def test_another_way_of_judging_is_said(tmp_path: Path) -> None:
    right = np.ones(8, bool)
    tuned = judged(tmp_path / "a", right, way="finetune/all/1x1")
    (pair,) = pairing(tuned, judged(tmp_path / "b", right)).pairs
    assert pair.notes == ("judged by knn, not finetune/all/1x1",)


def test_other_settings_of_one_protocol_are_said(tmp_path: Path) -> None:
    folders = [judged(tmp_path / name, np.ones(8, bool)) for name in "ab"]
    told = {"verb": "probe", "exit": 0, "protocol": "knn"}
    for unlike, notes in (
        ({}, ()),
        ({"views": "2x3", "k": 5}, ("judged with other settings: k, views",)),
    ):
        for seed, folder in enumerate(folders):
            settings = {"views": "1x1", "seed": seed} | (unlike if seed else {})
            (folder / "result.json").write_text(json.dumps(told | {"settings": settings}))
        (pair,) = pairing(*folders).pairs
        assert pair.notes == notes


def test_the_order_of_lines_has_no_meaning(tmp_path: Path) -> None:
    right = np.arange(12) % 3 > 0
    folders = judged(tmp_path / "a", right), judged(tmp_path / "b", ~right)
    path = folders[1] / PREDICTIONS
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    (pair,) = pairing(*folders).pairs
    assert (pair.only_one, pair.only_other) == (4, 8)


def test_each_run_stands_beside_the_first_on_its_own_samples(tmp_path: Path) -> None:
    sizes = {"a": 8, "b": 9, "c": 9, "d": 8}
    found = pairing(*[judged(tmp_path / name, np.ones(size, bool)) for name, size in sizes.items()])
    assert [(pair.one, pair.other, pair.samples) for pair in found.pairs] == [(2, 1, 9), (3, 0, 8)]
    assert found.left_out == ()


def test_other_samples_are_not_compared_and_why_is_said(tmp_path: Path) -> None:
    short, long = judged(tmp_path / "a", np.ones(8, bool)), judged(tmp_path / "b", np.ones(9, bool))
    found = pairing(short, long)
    assert found.pairs == ()
    assert reasons(short, long) == {"a": "judged 8 samples, not 9", "b": "judged 9 samples, not 8"}
    records = [json.loads(line) for line in (short / PREDICTIONS).read_text().splitlines()]
    for place, changed in enumerate(({"id": "x.png"}, {"label": 3}, {"row": 80})):
        here = [*records[:1], records[1] | changed, *records[2:]]
        other = written(tmp_path / f"c{place}", here)
        assert pairing(short, other).pairs == ()
        assert "samples differ in name or class, first in row" in reasons(short, other)["a"]


def test_runs_without_predictions_are_said_to_be_left_out(tmp_path: Path) -> None:
    trained, crashed = make_run(tmp_path / "trained"), tmp_path / "crashed"
    crashed.mkdir()
    (crashed / "result.json").write_text(json.dumps({"verb": "finetune", "exit": 6}))
    one = judged(tmp_path / "one", np.ones(8, bool))
    assert reasons(trained, crashed, one) == {
        "trained": "maekit pretrain does not predict labels",
        "crashed": "no predictions.jsonl (crashed)",
        "one": "no other run has predictions that can be compared",
    }
    other = judged(tmp_path / "other", np.ones(8, bool))
    found = pairing(trained, crashed, one, other)
    assert [(pair.one, pair.other) for pair in found.pairs] == [(3, 2)]
    assert [each.run for each in found.left_out] == [0, 1]
    assert pairing(trained, make_run(tmp_path / "more")) == Pairing()
    assert pairing(one) == Pairing()


GOOD = {"row": 0, "id": "a.png", "label": 1, "scores": [0.25, 0.75]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "predictions.jsonl is empty"),
        (json.dumps(GOOD)[:-9], "line 1 of predictions.jsonl is cut short or not JSON"),
        (json.dumps(GOOD | {"label": [0, 1]}), "expected one class per sample"),
        (json.dumps(GOOD | {"label": 0.5}), "expected one class per sample"),
        (f"{json.dumps(GOOD)}\n" * 2, "predictions.jsonl has row 0 twice"),
        (f"{json.dumps(GOOD)}\n\n", "line 2 of predictions.jsonl is cut short or not JSON"),
        (json.dumps(GOOD | {"scores": [math.nan, 1]}), "line 1 of predictions.jsonl is cut short"),
        *(
            (json.dumps(changed), "line 1 of predictions.jsonl is not a class prediction")
            for changed in (
                [GOOD], GOOD | {"row": "0"}, GOOD | {"row": None}, GOOD | {"row": [0]},
                GOOD | {"label": True}, GOOD | {"label": 2}, GOOD | {"label": -1},
                GOOD | {"label": "1"}, GOOD | {"id": 1}, GOOD | {"scores": [1]},
                GOOD | {"scores": [None, 1]}, GOOD | {"scores": ["a", "b"]}, GOOD | {"scores": 1},
            )
        ),
    ],
)  # fmt: skip
def test_odd_predictions_are_named_and_not_compared(tmp_path: Path, text: str, reason: str) -> None:
    good, odd = written(tmp_path / "good", [GOOD]), written(tmp_path / "odd", [GOOD])
    assert len(pairing(good, odd).pairs) == 1
    (odd / PREDICTIONS).write_text(text)
    assert pairing(good, odd).pairs == ()
    assert reasons(good, odd)["odd"].startswith(reason)


def test_the_page_has_the_table_where_there_is_something_to_compare(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, pictures=False) for name in ("one", "two")]
    heading = "The same samples, judged by both"
    assert heading not in render(folders).page.decode()
    right = np.arange(16) % 4 > 0
    judged(folders[0], right)
    judged(folders[1], np.ones(16, bool), way="linear/cached")
    page = render(folders).page.decode()
    assert heading in page
    assert "judged by linear/cached, not knn" in page
    assert "25.0 %" in page
    assert "Not compared" not in page
    assert heading not in render(folders[:1]).page.decode()
    (folders[1] / PREDICTIONS).unlink()
    page = render(folders).page.decode()
    assert heading not in page
    assert "Not compared sample by sample" in page
    assert "no predictions.jsonl" in page.replace("<wbr>", "")
