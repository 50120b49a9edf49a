"""Curves: thinned without losing an extreme, smoothed by a mean that can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from report_runs import holdout_record, make_run, step_record, write_metrics

from maekit.visualize.report.curves import charts_of, packed, rows_of, smooth, thin
from maekit.visualize.report.run import read_run

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")))


@given(values=arrays(np.float64, st.integers(1, 400), elements=NUMBERS), buckets=st.integers(1, 30))
@settings(max_examples=60)
def test_thinning_keeps_both_ends_the_extremes_and_gaps(values: np.ndarray, buckets: int) -> None:
    kept = thin(values, buckets)
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(2 * buckets, 3 * buckets + 2)
    finite = values[np.isfinite(values)]
    if len(finite):
        shown = values[kept][np.isfinite(values[kept])]
        assert (shown.min(), shown.max()) == (finite.min(), finite.max())
    assert np.isnan(values[kept]).any() == np.isnan(values).any()


def test_every_bucket_keeps_its_own_extremes() -> None:
    values = np.zeros(1000)
    values[345], values[346], values[777] = 5, -5, 3
    assert {345, 346, 777} <= set(thin(values, 10).tolist())


@given(values=arrays(np.float64, st.integers(1, 900), elements=NUMBERS))
@settings(max_examples=30)
def test_smoothing_is_the_mean_of_the_finite_values_around(values: np.ndarray) -> None:
    places, means, window = smooth(values)
    assert window % 2 == 1
    assert len(places) <= 300
    assert (places[0], places[-1]) == (0, len(values) - 1)
    for place, mean in zip(places, means, strict=True):
        part = values[max(0, place - window // 2) : place + window // 2 + 1]
        part = part[np.isfinite(part)]
        if len(part):
            assert mean == pytest.approx(part.mean(), abs=1e-4)
        else:
            assert np.isnan(mean)


def test_what_is_logged_becomes_charts(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    probe = {"step": 8, "online_probe": {"top1": 0.5, "lost": None}}
    steps = [step_record(k, 8, loss=None if k == 3 else 1.0) for k in range(1, 9)]
    write_metrics(folder, [holdout_record(0, 0.1), *steps, probe, holdout_record(8, 0.05)])
    charts = {chart.key: chart for chart in charts_of([read_run(folder)])}
    assert list(charts) == [
        "loss", "holdout", "online_probe-top1", "lr", "grad_norm", "samples_per_second",
        "data_wait", "memory",
    ]  # fmt: skip
    training, held_out = charts["loss"].curves
    assert training.lost.tolist() == [3]
    assert held_out.values.tolist() == [0.2, 0.1]
    assert [curve.label for curve in charts["holdout"].curves] == [
        "model", "visible mean", "interpolated visible mean",
    ]  # fmt: skip
    assert charts["online_probe-top1"].title == "Online probe: top1"
    assert charts["data_wait"].curves[0].values[0] == pytest.approx(1.0)  # percent
    page = packed(charts["loss"])
    assert page["curves"][0]["values"][2] is None


def test_only_long_curves_of_steps_are_smoothed(tmp_path: Path) -> None:
    [loss, *_] = charts_of([read_run(make_run(tmp_path / "run", steps=40, every=1))])
    training, held_out = packed(loss)["curves"]
    assert "smooth" in training
    assert "smooth" not in held_out


def test_tables_show_an_even_choice_with_rare_steps_and_the_last(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / "run", steps=1000, every=300))]
    [loss, holdout, *_] = charts_of(runs)
    rows = rows_of(loss, 20)
    steps = [step for step, _ in rows]
    assert steps[0] == 0
    assert steps[-1] == 1000
    assert {0, 300, 600, 900} <= set(steps)
    assert 15 <= len(rows) <= 20
    values = dict(rows)
    assert values[300] == [0.4 + 1 / 300, pytest.approx(2 * (0.01 + 0.05 / 301))]
    assert values[0][0] is None
    assert [step for step, _ in rows_of(holdout, 20)] == [0, 300, 600, 900]


def test_a_run_without_steps_has_no_charts(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("")
    assert charts_of([read_run(folder)]) == []
