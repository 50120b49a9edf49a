"""Two runs on the same samples: the difference and its error, against scipy and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from report_runs import make_run
from scipy import stats

from maekit.visualise.report.page import render
from maekit.visualise.report.paired import PREDICTIONS, paired

CLASSES = 4


def judged(folder: Path, right: np.ndarray, *, at: str = "/here") -> Path:
    """A run whose predictions are right or wrong as told."""
    folder.mkdir(exist_ok=True)
    lines = []
    for row, good in enumerate(right.tolist()):
        label = row % CLASSES
        scores = [0.1] * CLASSES
        scores[label if good else (label + 1) % CLASSES] = 0.7
        record = {"row": row, "id": f"{at}/{row:03d}.png", "label": label, "scores": scores}
        lines.append(json.dumps(record) + "\n")
    (folder / PREDICTIONS).write_text("".join(lines))
    return folder


def test_difference_and_error_are_those_of_a_paired_t_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(80) < 0.8, rng.random(80) < 0.6
    pair = paired([judged(tmp_path / "one", one), judged(tmp_path / "other", other)])[0]
    assert (pair.one, pair.other, pair.samples) == (1, 0, 80)
    assert pair.difference == pytest.approx(other.mean() - one.mean())
    told = stats.ttest_rel(other.astype(float), one.astype(float))
    # scipy divides by n - 1, McNemar by n.
    assert pair.difference / pair.error == pytest.approx(told.statistic * math.sqrt(80 / 79))


def test_equal_runs_differ_by_nothing(tmp_path: Path) -> None:
    right = np.arange(12) % 3 > 0
    pair = paired([judged(tmp_path / "a", right), judged(tmp_path / "b", right)])[0]
    assert (pair.difference, pair.error) == (0.0, 0.0)


def test_a_moved_set_is_the_same_set(tmp_path: Path) -> None:
    right = np.ones(8, bool)
    folders = [judged(tmp_path / "a", right), judged(tmp_path / "b", ~right, at="/there")]
    assert paired(folders)[0].difference == -1.0


def test_other_samples_are_not_compared(tmp_path: Path) -> None:
    folders = [judged(tmp_path / "a", np.ones(8, bool)), judged(tmp_path / "b", np.ones(9, bool))]
    assert paired(folders) == []


def test_runs_without_classes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    amounts = tmp_path / "amounts"
    amounts.mkdir()
    record = {"row": 0, "id": "a.png", "label": [0.5], "scores": [0.4]}
    (amounts / PREDICTIONS).write_text(json.dumps(record))
    one = judged(tmp_path / "a", np.ones(8, bool))
    other = judged(tmp_path / "b", np.ones(8, bool))
    (pair,) = paired([tmp_path / "none", amounts, one, other])
    assert (pair.one, pair.other) == (3, 2)


def test_the_page_has_the_table_where_there_is_something_to_compare(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, pictures=False) for name in ("one", "two")]
    heading = "The same samples, judged by both"
    assert heading not in render(folders)[0].decode()
    right = np.arange(16) % 4 > 0
    judged(folders[0], right)
    judged(folders[1], np.ones(16, bool))
    page = render(folders)[0].decode()
    assert heading in page
    assert "25.0 %" in page
    assert heading not in render(folders[:1])[0].decode()
