"""Frame mAP against four public evaluators, COCO's, and what must hold of any of them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.data.boxes import iou
from maekit.errors import DataError
from maekit.evaluate.detection.frame_map import DIALECTS, Dialect, frame_map
from maekit.evaluate.detection.rows import Frame, Rows, read_rows, write_rows

GOLDEN = json.loads(Path(__file__).with_name("ava_golden.json").read_text())["cases"]
THEIR_NAME = {"mmaction": "mmaction2"}
CASES = [
    pytest.param(case, dialect, id=f"{case['name']}-{dialect}")
    for case in GOLDEN
    for dialect in DIALECTS
    if THEIR_NAME.get(dialect, dialect) in case["expected"]
]


def rows_of(lines: list[list[object]], numbers: dict[Frame, int], *, scored: bool) -> Rows:
    parts = []
    for video, second, *box, label, last in lines:
        frame = Frame(str(video), float(str(second)))
        place = numbers.setdefault(frame, len(numbers))
        parts.append((place, box, int(str(label)), float(str(last)) if scored else 1.0))
    frames, boxes, labels, scores = zip(*parts, strict=True)
    return Rows(np.array(frames), np.array(boxes, np.float64), np.array(labels), np.array(scores))


@pytest.mark.parametrize(("case", "dialect"), CASES)
def test_public_evaluators_agree(case: dict, dialect: Dialect) -> None:
    """51 pairs: the 13 cases, of which one is unknown to the challenge's evaluator."""
    numbers: dict[Frame, int] = {}
    truth = rows_of(case["groundtruth"], numbers, scored=False)
    found = rows_of(case["detections"], numbers, scored=True)
    out = [numbers[Frame(video, float(second))] for video, second in case["excluded"]]
    made = frame_map(truth, found, classes=case["classes"], excluded=out, dialect=dialect)
    expected = case["expected"][THEIR_NAME.get(dialect, dialect)]
    assert made.mean == pytest.approx(expected["mAP"], abs=1e-9)
    for label in case["classes"]:
        # A class that is left out is missing there in one, and NaN in the others.
        theirs = expected["AP"].get(f"c{label}")
        ours = made.curves[label].average
        digits = 5e-5 if dialect == "mmaction" else 1e-9  # printed with four
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert ours == pytest.approx(theirs, abs=digits)


def drawn(seed: int, frames: int = 30, classes: int = 4) -> tuple[Rows, Rows]:
    """Draw boxes with some classes each, and detections around them, no two scores equal."""
    rng = np.random.default_rng(seed)
    true, made = [], []
    for frame in range(frames):
        for _ in range(rng.integers(0, 4)):
            corner, size = rng.uniform(0, 0.6, 2), rng.uniform(0.1, 0.4, 2)
            box = np.concatenate([corner, corner + size])
            labels = np.where(rng.random(classes) < 0.4, 1.0, np.nan)[None]
            true.append(Rows.of([frame], box[None], labels))
            moved = box + rng.normal(0, 0.04, 4)
            scores = np.nan_to_num(labels, nan=0) * 0.3 + rng.random((1, classes)) * 0.7
            made.append(Rows.of([frame], moved[None], scores))
    return Rows.joined(true), Rows.joined(made)


ALL = range(1, 5)
seeds = st.integers(0, 10_000)
dialects = st.sampled_from(DIALECTS)


@settings(max_examples=25, deadline=None)
@given(seeds, dialects)
def test_the_truth_as_detections_is_perfect(seed: int, dialect: Dialect) -> None:
    truth, _ = drawn(seed)
    if dialect == "activitynet":
        assert np.bincount(truth.frames).max() <= 50
    assert frame_map(truth, truth, classes=ALL, dialect=dialect).mean == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(seeds, dialects, st.floats(0.1, 0.9))
def test_persons_that_are_not_found_cost_their_share(
    seed: int, dialect: Dialect, share: float
) -> None:
    truth, _ = drawn(seed)
    kept = np.random.default_rng(seed).random(len(truth)) < share
    made = frame_map(truth, truth[kept], classes=ALL, dialect=dialect)
    for label, curve in made.curves.items():
        here = truth.classes == label
        found = int((here & kept).sum())
        if not found:
            assert curve.average == (None if dialect == "mmaction" else 0)
        else:
            assert curve.average == pytest.approx(found / here.sum())


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["alphaction", "activitynet", "mmaction"]))
def test_the_order_of_the_file_is_nothing_without_ties(seed: int, dialect: Dialect) -> None:
    truth, found = drawn(seed)
    mixed = np.random.default_rng(seed).permutation(len(found))
    again = np.random.default_rng(seed + 1).permutation(len(truth))
    one = frame_map(truth, found, classes=ALL, dialect=dialect).mean
    other = frame_map(truth[again], found[mixed], classes=ALL, dialect=dialect).mean
    assert one == pytest.approx(other)


@settings(max_examples=25, deadline=None)
@given(seeds, dialects)
def test_only_the_order_of_scores_counts(seed: int, dialect: Dialect) -> None:
    truth, found = drawn(seed)
    bent = Rows(found.frames, found.boxes, found.classes, found.scores**3 / 7)
    one = frame_map(truth, found, classes=ALL, dialect=dialect).mean
    assert one == pytest.approx(frame_map(truth, bent, classes=ALL, dialect=dialect).mean)
    assert one is not None
    assert 0 < one < 1


def test_equal_overlaps_take_the_first_box_and_a_taken_box_is_no_longer_there() -> None:
    truth = Rows.of([0, 0], np.array([[0, 0, 0.5, 1], [0, 0, 0.5, 1]]), np.ones((2, 1)))
    found = Rows.of([0, 0], np.array([[0, 0, 0.5, 1], [0, 0, 0.5, 1]]), np.array([[0.9], [0.8]]))
    # Both are held against the first one: half of what is true is found.
    assert frame_map(truth, found, classes=[1]).mean == 0.5


def test_nothing_true_and_nothing_found() -> None:
    nothing = Rows.joined([])
    truth, _ = drawn(0)
    assert frame_map(nothing, nothing, classes=ALL).mean is None
    for dialect in DIALECTS:
        expected = None if dialect == "mmaction" else 0
        assert frame_map(truth, nothing, classes=ALL, dialect=dialect).mean == expected


def test_overlap_of_boxes() -> None:
    first = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0], [0.2, 0.2, 0.4, 0.4]])
    second = np.array([[0, 0, 1, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0, 0], [0.3, 0.2, 0.5, 0.4]])
    assert iou(first, second) == pytest.approx([0.5, 0, 0, 1 / 3])


@pytest.mark.parametrize("seed", range(3))
def test_coco_s_evaluator_agrees_within_its_101_points(seed: int) -> None:
    """It takes the next best box where the best is taken, so boxes of a class lie apart here."""
    coco, evaluation = (
        pytest.importorskip("pycocotools.coco"),
        pytest.importorskip("pycocotools.cocoeval"),
    )
    rng = np.random.default_rng(seed)
    frames, classes = 150, 3
    cells = [(x, y) for x in (0.0, 0.5) for y in (0.0, 0.5)]
    true, made = [], []
    for frame in range(frames):
        for x, y in cells:
            if rng.random() < 0.4:
                continue
            box = np.array([[x + 0.05, y + 0.05, x + 0.4, y + 0.45]])
            labels = np.where(rng.random((1, classes)) < 0.5, 1.0, np.nan)
            moved = box + rng.normal(0, 0.05, (1, 4))
            true.append(Rows.of([frame], box, labels))
            scores = 0.5 * np.nan_to_num(labels, nan=0) + rng.random((1, classes))
            made.append(Rows.of([frame], moved, scores))
    truth, found = Rows.joined(true), Rows.joined(made)

    def annotations(rows: Rows, more: str) -> list[dict]:
        return [
            {
                "id": number + 1,
                "image_id": int(rows.frames[number]),
                "category_id": int(rows.classes[number]),
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "area": float((x2 - x1) * (y2 - y1)),
                "iscrowd": 0,
                more: float(rows.scores[number]),
            }
            for number, (x1, y1, x2, y2) in enumerate(rows.boxes)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = {
            "images": [{"id": frame} for frame in range(frames)],
            "annotations": annotations(truth, "unused"),
            "categories": [{"id": label} for label in range(1, classes + 1)],
        }
        dataset.createIndex()
        theirs = evaluation.COCOeval(dataset, dataset.loadRes(annotations(found, "score")), "bbox")
        theirs.params.iouThrs = np.array([0.5])
        theirs.evaluate()
        theirs.accumulate()
    for label in range(classes):
        their = float(theirs.eval["precision"][0, :, label, 0, -1].mean())
        ours = frame_map(truth, found, classes=[label + 1]).mean
        assert ours == pytest.approx(their, abs=0.01)
        assert 0.3 < their < 0.95


def test_the_result_file_reads_back(tmp_path: Path) -> None:
    _, found = drawn(5)
    frames = [Frame(f"-mov_ie,{number // 9}", 902 + number % 9) for number in range(30)]
    rows = found.rounded()
    write_rows(tmp_path / "predictions.csv", rows, frames)
    again = read_rows(tmp_path / "predictions.csv", {frame: n for n, frame in enumerate(frames)})
    for name in ("frames", "boxes", "classes", "scores"):
        assert (getattr(again, name) == getattr(rows, name)).all(), name
    first = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert first.startswith('"-mov_ie,')
    assert '",09' in first
    # A frame of two columns has no box; its number is kept.
    (tmp_path / "short.csv").write_text("abc,0903\nabc,904,0,0,1,1,7,0.5\n")
    numbers: dict[Frame, int] = {}
    assert read_rows(tmp_path / "short.csv", numbers).frames.tolist() == [1]
    assert numbers == {Frame("abc", 903): 0, Frame("abc", 904): 1}


@pytest.mark.parametrize("row", ["abc,0902,0,0,1", "abc,0902,0,0,1,x,3,.5", "abc,x", "a"])
def test_a_bad_row_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "bad.csv").write_text(f"abc,0902,0,0,1,1,3,.5\n{row}\n")
    with pytest.raises(DataError, match=r"bad\.csv:2: expected video,second,x1,y1,x2,y2"):
        read_rows(tmp_path / "bad.csv", {})
