"""Movies with boxes that maekit draws: in AVA's formats, where no single frame tells the action."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maekit.data.boxes import iou
from maekit.datasets.ava import Ava
from maekit.datasets.drawing.actions import ACTIONS, POSES, draw_doing, draw_movie
from maekit.datasets.sample_actions import SampleActions


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("actions")


def build(cache: Path, **options: object) -> SampleActions:
    return SampleActions(
        SampleActions.Options(**{"cache": cache, "count": 4, "size": 64} | options)
    )


def test_boxes_lie_on_what_moves_and_every_figure_has_one_pose(cache: Path) -> None:
    dataset = build(cache)
    assert len(dataset) == 16
    assert tuple(dataset.classes or ()) == ACTIONS
    infos = [dataset.open(index).info for index in range(0, 16, 4)]
    assert {(info.fps, info.frames) for info in infos} == {(25, 250), (30, 300)}
    assert {dataset.open(index).info.height for index in range(0, 16, 4)} == {48, 36}
    assert {label.second for label in dataset.excluded} == {5}
    for index in range(len(dataset)):
        label = dataset.labels[index]
        assert label.second in {2, 3, 7, 8}
        assert len(label) in {2, 3}
        assert all(len({ACTIONS[n] for n in each} & {*POSES}) == 1 for each in label.labels)
    assert set(dataset.sources("movie")) == {label.movie for label in dataset.labels}


def test_what_moves_lies_in_the_boxes_of_what_does_not_rest() -> None:
    movie = draw_movie(60, 25, (72, 96), np.random.default_rng(3))
    still = movie.frames[:30].astype(float).std(axis=0).mean(axis=-1)
    whole = np.zeros(still.shape, bool)
    for figure, actions in enumerate(movie.acts[0]):
        x1, y1 = movie.boxes[:30, figure, :2].min(0) * (96, 72)
        x2, y2 = movie.boxes[:30, figure, 2:].max(0) * (96, 72)
        part = still[int(y1) : int(y2 + 1), int(x1) : int(x2 + 1)]
        assert (part.mean() > 1) == (actions != ("rest",))
        whole[int(y1) - 1 : int(y2) + 2, int(x1) - 1 : int(x2) + 2] = True
    assert still[~whole].max() == 0  # the backdrop stands still


def test_a_single_moment_does_not_tell_the_action() -> None:
    rng = np.random.default_rng(0)
    moments: dict[str, list[np.ndarray]] = {}
    for _ in range(4000):
        doing = draw_doing(25, rng)
        moments.setdefault(doing.actions[0], []).append(
            doing.places[rng.integers(len(doing.places))]
        )
    assert set(moments) == set(POSES)
    for places in moments.values():
        seen = np.array(places)
        # Of a sine at a random moment: mean 0, deviation 0.4 / sqrt(2), four errors of the mean.
        error = 4 * 0.4 / np.sqrt(2 * len(seen))
        assert np.abs(seen[:, :2].mean(0)).max() < error
        np.testing.assert_allclose(seen[:, :2].std(0), 0.4 / np.sqrt(2), atol=error)
        assert np.abs(np.exp(1j * seen[:, 2]).mean()) < 4 / np.sqrt(len(seen))


def test_the_lists_are_avas_and_detected_persons_are_near_the_truth(cache: Path) -> None:
    build(cache)
    (boxes,) = cache.rglob("ava_train_v2.2.csv")
    first = boxes.read_text().splitlines()[0].split(",")
    assert len(first[0]) == 11
    assert first[1] == "0002"
    read = Ava(Ava.Options(path=boxes, videos=boxes.parent / "movies"))
    assert len(read) == 20  # the excluded seconds, too
    detected = build(cache, persons="detected")
    shares = []
    for label in detected.labels:
        truth, found = (label.corners[np.array(label.truth) == kind] for kind in (True, False))
        assert label.asked == tuple(not kind for kind in label.truth)
        shares += iou(found[:, None], truth).max(axis=1).tolist() if len(found) else []
    assert np.median(shares) > 0.9


def test_the_same_seed_draws_the_same_and_splits_share_nothing(tmp_path: Path) -> None:
    def drawn(where: str, **options: object) -> dict[str, bytes]:
        build(tmp_path / where, count=2, **options)
        files = (tmp_path / where).rglob("*.*")
        return {path.name: path.read_bytes() for path in files if path.is_file()}

    first = drawn("one")
    assert first == drawn("two")
    names = {name for name in first if name.endswith(".mp4")}
    others = {name for name in drawn("three", split="val") if name.endswith(".mp4")}
    assert len(names) == len(others) == 2
    assert not names & others
