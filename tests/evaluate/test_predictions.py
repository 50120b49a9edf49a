"""Scores are averaged per row, and rows are rows whatever their files are called."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from numerics import close
from toys import Clips, clip_source

from maekit.data.batch import PADDED
from maekit.errors import DataError, NonFiniteError
from maekit.evaluate.predictions import Predictions, Reading, predict, top_k
from maekit.evaluate.views import view_reader
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Views

CPU = torch.device("cpu")


def logits(pixels: torch.Tensor) -> torch.Tensor:
    """Three scores that depend on frame and place of a view."""
    frame, column = pixels[:, 0, 0, 0, 0] * 255, pixels[:, 2, 0, 0, 0] * 255
    return torch.stack([frame / 5, column / 7, frame * column / 90], dim=1)


def judge(dataset: Clips, views: Views, **more: int) -> Predictions:
    spec = DataSpec(name="videos", frames=2)
    reader = view_reader(dataset, spec, views, size=(10, 10), channels=3)
    labels = np.array([source.info.label for source in dataset.sources], np.int64)
    settings = {"batch": 7, "workers": 0, "timeout": 1.0} | more
    return predict(reader, labels, logits, Reading(CPU, **settings))  # type: ignore[arg-type]


def test_scores_are_the_mean_of_the_softmax_of_each_view() -> None:
    dataset = Clips([clip_source(22, 10, 30, label=1), clip_source(12, 10, 20, label=2)])
    found = judge(dataset, Views(clips=3, crops=2))
    for row, source in enumerate(dataset.sources):
        expected = np.zeros(3)
        for clip in range(3):
            for crop in range(2):
                frame = clip * (source.info.frames - 2) // 2
                column = crop * (source.info.width - 10)
                raw = np.exp([frame / 5, column / 7, frame * column / 90])
                expected += raw / raw.sum() / 6
        np.testing.assert_allclose(found.scores[row], expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 40, 1000])
def test_means_made_while_reading_are_those_of_all_scores_at_once(batch: int) -> None:
    """Bit for bit, of rows that fill several batches."""
    dataset = Clips([clip_source(20 + n, 10, 20 + 2 * n, label=n % 3) for n in range(7)])
    test = Views(clips=5, crops=3)
    reader = view_reader(
        dataset, DataSpec(name="videos", frames=2), test, size=(10, 10), channels=3
    )
    seen: list[torch.Tensor] = []

    def noting(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(logits(pixels))
        return seen[-1]

    labels = np.arange(7) % 3
    found = predict(reader, labels, noting, Reading(CPU, batch, 0, 1.0))
    # Softmax of the same batches: others need not give the same bits.
    scores = torch.cat([each.softmax(-1) for each in seen]).reshape(7, 16, 3).numpy()
    wide = scores.astype(np.float64)
    np.testing.assert_array_equal(found.scores, wide[:, :15].mean(axis=1))
    np.testing.assert_array_equal(found.single, wide[:, 15])
    kept = Predictions.from_views(np.arange(7), dataset, found.labels, scores, reader.center_index)
    np.testing.assert_array_equal(found.scores, kept.scores)
    np.testing.assert_array_equal(found.single, kept.single)


def test_the_single_view_is_the_one_that_is_judged_alone() -> None:
    dataset = Clips([clip_source(30, 10, 10 + n) for n in range(4)])
    many, one = judge(dataset, Views(clips=4, crops=3)), judge(dataset, Views())
    close(many.single, one.single, terms=3)
    np.testing.assert_array_equal(one.single, one.scores)


def test_memory_does_not_grow_with_the_views() -> None:
    """K400's 5 x 3 views would be 0.5 GB of scores, and twice that again as float64."""
    dataset = Clips([clip_source(4, 10, 60) for _ in range(100)])
    reader = view_reader(
        dataset, DataSpec(name="videos"), Views(crops=30), size=(10, 10), channels=3
    )
    classes = 400

    def wide(pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, 2, 0, 0, :1].expand(-1, classes)

    tracemalloc.start()
    predict(reader, np.zeros(100, int), wide, Reading(CPU, 31, 0, 1.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept, all_views = 2 * 8 * 100 * classes, 31 * 8 * 100 * classes
    assert 2 * kept < all_views / 4  # else there were nothing to see
    assert peak < 2 * kept + 1_000_000


def test_softmax_comes_before_the_mean() -> None:
    """Otherwise one confident view would outvote several (and this test would not fail)."""
    found = judge(Clips([clip_source(22, 10, 30)]), Views(clips=5, crops=3))
    assert not np.allclose(found.scores, found.single)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-6)


def test_files_of_one_name_and_rows_of_one_file_stay_apart() -> None:
    sources = [clip_source(4, 10, 10, "a/v.mp4", 0), clip_source(22, 10, 30, "b/v.mp4", 1)]
    sources.append(clip_source(22, 10, 30, "b/v.mp4", 2))  # the same file, listed twice
    found = judge(Clips(sources), Views(clips=2, crops=2))
    assert found.rows.tolist() == [0, 1, 2]
    assert found.ids == ("a/v.mp4", "b/v.mp4", "b/v.mp4")
    assert found.labels.tolist() == [0, 1, 2]
    assert not np.allclose(found.scores[0], found.scores[1])
    close(found.scores[1], found.scores[2], terms=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_sample_is_fatal_and_named(workers: int) -> None:
    dataset = Clips([clip_source(4, 10, 10, f"{n}.mp4") for n in range(5)], broken=frozenset({3}))
    with pytest.raises(DataError, match=r"3\.mp4.*is cut short"):
        judge(dataset, Views(), workers=workers, timeout=120)


def test_batches_do_not_matter() -> None:
    dataset = Clips([clip_source(4 + n, 10, 10 + n) for n in range(9)])
    one, other = (judge(dataset, Views(clips=2), batch=batch) for batch in (1, 64))
    close(one.scores, other.scores, terms=3)


def test_top_k_counts_ties_once() -> None:
    scores = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.0, 0.0, 0.0]])
    labels = np.array([0, 1, 0, 2])
    assert top_k(scores, labels, 1) == 0.25  # of two equal scores the lower class is first
    assert top_k(scores, labels, 2) == 0.5
    assert top_k(scores, labels, 3) == 1.0
    assert top_k(scores, labels, 5) == 1.0


def test_a_label_is_never_among_scores_that_are_not_numbers() -> None:
    scores = np.full((2, 3), np.nan)
    scores[1, 0] = 1.0
    for k in (1, 2):
        assert top_k(scores, np.array([0, 0]), k) == 0
    assert top_k(scores, np.array([0, 0]), 3) == 0.5


def test_top_1_is_that_of_argmax() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((50, 4)), rng.integers(0, 4, 50)
    assert top_k(scores, labels, 1) == (scores.argmax(axis=1) == labels).mean()


def predictions() -> Predictions:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    rows, labels = np.arange(3), np.array([0, 1, 1])
    return Predictions(rows, ("x", "y", "\udcff"), labels, scores, scores)


def test_classes_without_a_sample_have_no_accuracy() -> None:
    assert predictions().per_class(("cat", "dog", "bird")) == {"cat": 1.0, "dog": 0.5, "bird": None}


def test_predictions_are_written_by_row(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    predictions().write(path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[1] == {"row": 1, "id": "y", "label": 1, "scores": [0.2, 0.8]}
    assert [record["id"] for record in records] == ["x", "y", "\udcff"]


@pytest.mark.parametrize("lost", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_an_error_not_right(lost: float) -> None:
    """Nothing is above NaN: each such row would count as right."""

    def diverged(pixels: torch.Tensor) -> torch.Tensor:
        wide = pixels[:, 2:, 0, 0, -1] * 255 > 15
        return logits(pixels).where(~wide, lost)

    dataset = Clips(
        [clip_source(4, 10, 10, name="fine.mp4"), clip_source(4, 10, 30, name="lost.mp4")]
    )
    reader = view_reader(dataset, DataSpec(name="videos"), Views(), size=(10, 10), channels=3)
    with pytest.raises(NonFiniteError, match=r"lost\.mp4.*not finite"):
        predict(reader, np.zeros(2, int), diverged, Reading(CPU, 2, 0, 1.0))


def test_what_of_the_samples_is_not_shown_is_counted() -> None:
    dataset = Clips([clip_source(frames, 10, 10) for frames in (1, 9, 1)])  # clips are of two
    assert judge(dataset, Views(clips=3)).left_out == {PADDED: 2}
    assert judge(Clips([clip_source(9, 10, 10)]), Views()).left_out == {}
