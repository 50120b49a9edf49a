"""Fine-tuning on actions in boxes: what is learned, how it is judged, and what is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figures import ACTIONS, Figures, of_films, resolved
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import close
from small_recipes import Recipe
from torch.nn import functional as F  # noqa: N812
from toys import Clips, clip_source

from maekit.contracts import Boxes, Dataset, Source, SourceInfo
from maekit.data.batch import Batch
from maekit.data.boxes import EMPTY
from maekit.data.loader import Loader
from maekit.data.order import Key
from maekit.data.stand_in import standing_in
from maekit.engine.events import Event, Note
from maekit.engine.loop import update
from maekit.engine.run import Finished, RunOptions, run_in_folder
from maekit.engine.skipped import WORDS
from maekit.errors import DataError, RecipeError
from maekit.evaluate.detection.found import Found, KeyFrames, Whole, joined
from maekit.evaluate.detection.job import DetectionJob
from maekit.evaluate.detection.judged import JudgedBoxes
from maekit.evaluate.detection.rows import Frame, read_rows
from maekit.evaluate.detection.task import (
    DetectionTask,
    announce,
    announce_other_clips,
    targets,
)
from maekit.evaluate.labels import task_of
from maekit.recipe.detection import BoxPooling
from maekit.recipe.schema import DataSpec
from maekit.runs import read_result
from maekit.visualize.report.classes import read_classes
from maekit.weights.header import HeadKind


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Dataset]:
    made: dict[str, Dataset] = {"train": Figures(48), "val": Figures(24, seed=1)}
    monkeypatch.setattr("maekit.engine.job.open_sets", lambda *_: (made["train"], made["val"]))
    return made


def finetune(path: Path, *layers: Recipe, **options: Any) -> tuple[Finished, list[Event]]:
    heard: list[Event] = []
    done = run_in_folder(
        DetectionJob,
        resolved(*layers),
        torch.device("cpu"),
        RunOptions(out=path, source="scratch", **options),
        heard.append,
    )
    return done, heard


def notes(heard: list[Event]) -> str:
    return "\n".join(event.text for event in heard if isinstance(event, Note))


def test_boxes_are_learned_and_judged(tmp_path: Path, sets: dict[str, Dataset]) -> None:
    done, heard = finetune(tmp_path / "run")
    result = done.result
    assert result["map"] > 0.95
    # What each box has is not what its key frame has.
    assert result["floor"]["chance"] < 0.55
    assert result["floor"]["moved_on"] < 0.7
    assert result["floor"]["same_in_frame"] < result["map"] - 0.1
    assert (result["dialect"], result["person_boxes"]) == ("alphaction", "annotated")
    assert result["score_rule"] == "action x person"
    assert result["protocol"] == "finetune/all/alphaction/annotated"
    assert (result["boxes"], result["true"], result["unread"]) == (48, 48, 0)
    assert set(result["per_class"]) == set(ACTIONS)
    assert np.mean(list(result["per_class"].values())) == pytest.approx(result["map"])
    assert set(result["per_movie"]) == {f"movie{number}" for number in range(8)}
    assert sum(each["true"] for each in result["per_movie"].values()) == 48
    said = notes(heard)
    assert "3 actions (3 judged), 96 boxes in 48 key frames to train on, 48 annotated" in said
    assert "loss: the sum over a micro-batch's boxes, as officially: 2 a clip" in said
    # Anyone's evaluator gets the same from the file.
    frames = [Frame(each.movie, each.second) for each in sets["val"].labels]  # type: ignore[union-attr]
    rows = read_rows(tmp_path / "run/predictions.csv", {frame: n for n, frame in enumerate(frames)})
    assert len(rows) == 48 * 3
    corners = np.concatenate([each.corners for each in sets["val"].labels])  # type: ignore[union-attr]
    assert (rows.boxes[::3] == np.round(corners, 5)).all()  # not the widened ones
    truth = np.array([min(labels) for each in sets["val"].labels for labels in each.labels])  # type: ignore[union-attr]
    best = rows.scores.reshape(48, 3).argmax(1)
    assert (best == truth).mean() > 0.9
    assert json.loads((tmp_path / "run/result.json").read_text())["map"] == result["map"]
    # What the report shows of it, the best action first.
    table = (tmp_path / "run/classes.csv").read_text().splitlines()
    assert table[0] == "class,true,found,average_precision"
    averages = [float(line.split(",")[3]) for line in table[1:]]
    assert averages == sorted(averages, reverse=True)
    left = read_classes(tmp_path / "run", result)
    assert left is not None
    assert left.curves is not None
    assert left.key_frames is not None
    assert sorted(row[0] for row in left.rows) == sorted(ACTIONS)


def test_going_on_is_as_never_interrupted(tmp_path: Path, sets: dict[str, Dataset]) -> None:
    short: Recipe = {"finetune": {"steps": 6, "validate": {"every": 3}, "checkpoint": {"steps": 3}}}
    whole, _ = finetune(tmp_path / "whole", short)
    finetune(tmp_path / "half", short)
    folder = tmp_path / "half/checkpoints"
    for path in folder.iterdir():  # as if killed after its first checkpoint
        if path.name not in {"step-00000003", "last"}:
            if path.is_dir():
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()
            else:
                path.unlink()
    (folder / "last").write_text("step-00000003")
    for name in ("result.json", "weights.safetensors", "predictions.csv"):
        (tmp_path / "half" / name).unlink()
    again, _ = finetune(tmp_path / "half", short, resume=True)
    assert again.result["map"] == whole.result["map"]
    assert (tmp_path / "half/predictions.csv").read_text() == (
        tmp_path / "whole/predictions.csv"
    ).read_text()


def test_detected_persons_are_scored_and_true_ones_counted(
    tmp_path: Path, sets: dict[str, Dataset]
) -> None:
    sets["val"] = Figures(12, seed=1, detected=True)
    short: Recipe = {"finetune": {"steps": 2, "boxes": {"dialect": "activitynet"}}}
    done, _ = finetune(tmp_path / "a", short)
    assert done.result["protocol"] == "finetune/all/activitynet/detected"
    assert (done.result["boxes"], done.result["true"]) == (24, 24)
    alone, _ = finetune(tmp_path / "b", short, {"finetune": {"boxes": {"person_score": False}}})
    assert alone.result["score_rule"] == "action"
    one, other = (read_rows(tmp_path / name / "predictions.csv", {}) for name in "ab")
    assert (one.boxes == other.boxes).all()
    persons = np.tile(np.repeat([0.9, 0.95], 3), 12)
    # Each is rounded to five decimals.
    assert np.abs(one.scores - other.scores * persons).max() <= 0.5e-5 * (1 + 0.95)


def test_a_key_frame_that_cannot_be_read_still_counts(
    tmp_path: Path, sets: dict[str, Dataset]
) -> None:
    sets["val"] = Figures(12, seed=1, broken=frozenset({2, 3}))
    done, heard = finetune(tmp_path / "run", {"finetune": {"steps": 1}})
    assert (done.result["true"], done.result["boxes"], done.result["unread"]) == (24, 20, 2)
    assert "cannot be read: has no such second" in notes(heard)
    lines = (tmp_path / "run/bad_files.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["movie0,0904", "movie1,0902"]
    none = Figures(12, seed=1, broken=frozenset(range(12)))
    sets["val"] = none
    with pytest.raises(DataError, match="none of the 12 samples can be read"):
        finetune(tmp_path / "none", {"finetune": {"steps": 1}})
    assert read_result(tmp_path / "none")["exit"] == 6


def test_seconds_that_are_left_out_count_in_one_dialect(
    tmp_path: Path, sets: dict[str, Dataset]
) -> None:
    out = Boxes(np.array([[0, 0, 1, 1.0]]), (frozenset({0}),), movie="movie0", second=1000.0)
    sets["val"] = Figures(12, seed=1, excluded=(out,), judged=(0, 2))
    found = {}
    for dialect in ("alphaction", "mmaction"):
        layer = {"finetune": {"steps": 1, "boxes": {"dialect": dialect}}}
        found[dialect] = finetune(tmp_path / dialect, layer)[0].result
    assert found["mmaction"]["true"] == found["alphaction"]["true"] + 1
    assert list(found["alphaction"]["per_class"]) == ["red", "blue"]


@pytest.mark.parametrize(
    ("layer", "error", "said"),
    [
        ({"data": {"train": {"sampling": "dense"}}}, RecipeError, "sampling is dense"),
        ({"finetune": {"head": {"classes": 4}}}, DataError, "data.train has 3 classes"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, sets: dict[str, Dataset], layer: Recipe, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        finetune(tmp_path / "run", layer)


def test_sets_without_boxes_or_of_other_actions_are_refused(
    tmp_path: Path, sets: dict[str, Dataset]
) -> None:
    sets["val"] = Figures(6)
    sets["val"].classes = ("red", "green", "cyan")
    with pytest.raises(DataError, match=r"not data\.train's: cyan"):
        finetune(tmp_path / "a")
    sets["val"] = Clips([clip_source(9, 32, 32, f"clip{number}") for number in range(6)])
    with pytest.raises(DataError, match=r"no boxes, which head\.kind: detection learns from"):
        finetune(tmp_path / "b")


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_boxes_are_refused_where_classes_of_samples_are_learned(kind: HeadKind) -> None:
    with pytest.raises(DataError, match=r"the labels are boxes .*\n.*head\.kind=detection"):
        task_of(kind, Figures(4), Figures(2))


def test_what_is_asked_for_says_whose_boxes_are_judged() -> None:
    mixed = Figures(3, detected=True)
    both = [replace(each, asked=(True,) * len(each)) for each in mixed.labels]
    none = [replace(each, asked=(False,) * len(each)) for each in mixed.labels]
    cases = {
        "annotated+detected": (both, True),
        "none": (none, True),
        "detected": (mixed.labels, False),
        "annotated": (Figures(3).labels, False),
    }
    for word, (boxes, warns) in cases.items():
        heard: list[Event] = []
        task = DetectionTask(ACTIONS, Figures(9).labels, boxes, (0,))
        announce(task, Figures(9), heard.append)
        assert task.person_boxes == word
        warned = [each for each in heard if isinstance(each, Note) and each.warning]
        assert bool(warned) == warns


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ({}, {}, None),
        ({"stride": 4, "rate": 25}, {"stride": 4, "rate": 25}, None),
        ({"stride": 4}, {}, "stride 4 in data.train and 1 in data.val. Is it meant? else"),
        ({"rate": 25}, {}, "rate 25 in data.train and null in data.val"),
        ({"first": -32}, {"first": -31}, "else data.val.first=-32"),
        ({}, {"rate": 30}, "rate null in data.train and 30 in data.val"),
    ],
)
def test_clips_that_are_judged_otherwise_than_learned_are_said(
    train: dict[str, Any], val: dict[str, Any], said: str | None
) -> None:
    one, other = (
        DataSpec(name="ava", frames=16, sampling="centered", **each) for each in (train, val)
    )
    heard: list[Event] = []
    announce_other_clips(one, other, heard.append)
    assert (notes(heard) == "") == (said is None)
    assert said is None or said in notes(heard)


@pytest.mark.parametrize(
    ("whole", "said", "side"),
    [
        (Whole(256, (16, 16)), None, 256),
        (Whole(250, (16, 16)), "short is 250, which is no multiple of 16 pixels: .* is 256;", 256),
        (Whole(100, (8, 12)), "no multiple of 24 pixels: the short side is 96;", 96),
        (Whole(250, (16, 16), pad=True), None, 250),
        (Whole(224, (16, 16), fixed=(224, 168)), "stretched to 224 x 168 pixels", 224),
    ],
)
def test_what_is_shown_otherwise_than_asked_for_is_said(
    whole: Whole, said: str | None, side: int
) -> None:
    assert (whole.said is None) == (said is None)
    assert said is None or re.search(said, str(whole.said))
    ((height, _),) = whole.sizes(Figures(1), [0])
    assert height == side


@pytest.mark.parametrize(
    "words",
    [
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"rand_augment": "rand-m9"},
        {"pool": "cls"},
        {"views": {"crops": 3}},
        {"head": {"kind": "multilabel"}},
    ],
)
def test_settings_that_mean_nothing_with_boxes_are_refused(words: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"boxes|detection"):
        resolved({"finetune": words})


def test_what_a_run_costs_is_known_without_its_films() -> None:
    """Noise with boxes stands in for them, here and in the first step."""
    made = resolved(of_films("nowhere"), {"finetune": {"head": {"classes": 5}}})
    with standing_in(40):
        job = DetectionJob(made, torch.device("cpu"), lambda _: None, source="scratch")
    assert (len(job.train), len(job.task.outputs)) == (40, 5)
    keys = job.stream.keys(0)[:4]
    with Loader(job.reader, [keys], workers=0, timeout=1.0) as loader:
        (batch,) = loader
    assert [len(each) for each in batch.boxes] == [2] * 4
    done = update(job.state, job.step, [batch])
    assert math.isfinite(float(done.loss))
    assert job.judge().measures()["map"] is not None


# The loss.


def batch_of(job: DetectionJob, boxes: list[Boxes]) -> Batch:
    rng = np.random.default_rng(0)
    views = rng.integers(0, 256, (len(boxes), 3, 2, 32, 32), dtype=np.uint8)
    keys = tuple(Key(0, row) for row in range(len(boxes)))
    weight = np.ones(len(boxes), np.float32)
    return Batch((views,), None, None, weight, (None,) * len(boxes), keys, (), boxes=tuple(boxes))


def job(**boxes: object) -> DetectionJob:
    made = resolved(
        {"finetune": {"boxes": boxes, "head": {"init_std": 0.5}, "batch": {"per_device": 2}}}
    )
    return DetectionJob(made, torch.device("cpu"), lambda _: None, source="scratch")


def some(*labels: set[int]) -> Boxes:
    rng = np.random.default_rng(len(labels))
    first = rng.uniform(0, 0.5, (len(labels), 2))
    corners = np.concatenate([first, first + 0.4], axis=1)
    return Boxes(corners, tuple(map(frozenset, labels)))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_summed_over_boxes_and_averaged_over_devices(
    sets: dict[str, Dataset], reduction: str
) -> None:
    """The official: mean BCE x number of boxes of a GPU, averaged over GPUs."""
    one = job(loss=reduction)
    parts = [[some({0}), some({1, 2}, set(), {0})], [some({2}), EMPTY]]
    made = [batch_of(one, part) for part in parts]
    each = []
    for batch, part in zip(made, parts, strict=True):
        pixels = one.model.normalize(torch.from_numpy(batch.views[0]) / 255)
        cells = one.model.cells([boxes.corners for boxes in part], (32, 32))
        wanted = torch.from_numpy(targets(part, 3))
        each.append(F.binary_cross_entropy_with_logits(one.model(pixels, cells), wanted))
    # Four boxes on the first of two devices, one on the second.
    total = 4 * each[0] + 1 * each[1]
    expected = total / 2 if reduction == "sum" else total / 5
    done = update(one.state, one.step, made)
    close(done.loss, expected, terms=3)
    assert float(done.norm) > 0


def test_boxes_without_an_action_are_negatives_or_left_out(sets: dict[str, Dataset]) -> None:
    part = [some({0}, set()), some(set())]
    for negatives, count in ((True, 3), (False, 1)):
        one = job(negatives=negatives, loss="mean")
        weighed = one.step.weigh(batch_of(one, part))
        assert weighed.weight == count
        loss = float(one.step.loss(weighed).detach())
        assert math.isfinite(loss)
    nothing = batch_of(one, [some(set()), EMPTY])
    assert one.step.weigh(nothing).weight == 0
    done = update(one.state, one.step, [nothing])  # it is skipped, and is called what it is
    assert WORDS[int(done.outcome)] == "nothing to learn"
    assert one.state.step == 1


def test_the_whole_frame_in_place_of_each_box_sees_no_figure(sets: dict[str, Dataset]) -> None:
    one = job(region="frame", loss="mean")
    part = [some({0}), some({0}, {0})]
    with torch.no_grad():
        batch = batch_of(one, part)
        pixels = one.model.normalize(torch.from_numpy(batch.views[0]) / 255)
        cells = one.model.cells([np.array([[0, 0, 1, 1.0]])] * 2, (32, 32))
        logits = one.model(pixels, cells)[[0, 1, 1]]
        wanted = torch.from_numpy(targets(part, 3))
        expected = F.binary_cross_entropy_with_logits(logits, wanted) * 3
        close(one.step.loss(one.step.weigh(batch)), expected, terms=9)


def test_what_ranks_found_is_put_in_order() -> None:
    """Whichever rank read which key frames, the file is the same."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(6), 2)
    whole = Found(rows, rng.random((12, 4)), rng.random(12), rng.random((12, 3)))
    parts = [
        Found(rows[own], whole.corners[own], whole.persons[own], whole.actions[own])
        for own in (np.isin(rows, [1, 3, 5]), np.isin(rows, [0, 2, 4]))
    ]
    again = joined(parts)
    for name in ("rows", "corners", "persons", "actions"):
        assert (getattr(again, name) == getattr(whole, name)).all()


# What must hold of any key frames.


@dataclass
class Sized(Dataset):
    """Key frames of these sizes; None: it cannot be opened."""

    sizes: list[tuple[int, int] | None]

    def __post_init__(self) -> None:
        box = np.array([[0.1, 0.1, 0.9, 0.9]])
        self.labels = [
            Boxes(box, (frozenset(),), movie=f"m{row}", asked=(row % 5 != 4,))
            for row in range(len(self.sizes))
        ]

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, index: int) -> str:
        return f"m{index}"

    def open(self, index: int) -> Source:
        size = self.sizes[index]
        if size is None:
            raise DataError("is no film", where=self.name(index))
        return Source(SourceInfo(self.name(index), *size, 3), lambda ids: np.zeros((len(ids), 1)))


sides = st.integers(20, 90)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.none() | st.tuples(sides, sides), min_size=1, max_size=20),
    st.integers(1, 5),
    st.sampled_from([(32, (8, 8)), (40, (8, 8)), (48, (12, 16))]),
)
def test_each_key_frame_that_is_asked_for_is_in_one_batch_of_its_own_grid(
    sizes: list[tuple[int, int] | None], most: int, shown: tuple[int, tuple[int, int]]
) -> None:
    """So that nothing is padded, and the scores of a clip do not depend on who is beside it."""
    dataset, (short, patch) = Sized(sizes), shown
    data, spec = resolved().data, DataSpec(name="ava", sampling="centered")
    frames = KeyFrames(dataset, dataset.labels, Whole(short, patch), data, spec)  # type: ignore[arg-type]
    batches = frames.batches(most)
    asked = [row for row in range(len(sizes)) if row % 5 != 4]
    assert sorted(key.index for _, keys in batches for key in keys) == asked
    for (height, width), keys in batches:
        assert 1 <= len(keys) <= most
        assert (height % patch[0], width % patch[1]) == (0, 0)
        for key in keys:
            size = sizes[key.index]
            if size is not None:  # a side is stretched by at most half of what sides are whole of
                times = short / min(size)
                step = math.lcm(*patch) / 2 + math.ulp(512.0)
                assert abs(height - size[0] * times) <= step
                assert abs(width - size[1] * times) <= step


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_scores_that_do_not_look_at_their_box_are_at_their_floors(seed: int, count: int) -> None:
    """What a clip-level model says is what its floors are; the truth moved on is half right."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0, 0, 0.4, 0.9], [0.5, 0, 0.9, 0.9]])
    two = [rng.permutation(3)[:2] for _ in range(count)]
    labels = [
        Boxes(corners, tuple(frozenset({int(each)}) for each in pair), movie=f"m{row}")
        for row, pair in enumerate(two)
    ]
    task = DetectionTask(ACTIONS, (), labels, (0, 1, 2))
    rows = np.repeat(np.arange(count), 2)

    def judged(actions: np.ndarray) -> JudgedBoxes:
        found = Found(rows, np.tile(corners, (count, 1)), np.ones(2 * count), actions)
        return JudgedBoxes(task, found, BoxPooling())

    clip_level = judged(np.repeat(rng.random((count, 3), np.float32), 2, axis=0))
    floors = clip_level.floors()
    assert floors["moved_on"] == floors["same_in_frame"] == clip_level.all.mean
    oracle = judged(np.eye(3, dtype=np.float32)[np.concatenate(two)])
    assert oracle.all.mean == 1
    moved_on = oracle.floors()["moved_on"]
    assert moved_on is not None
    assert moved_on <= 0.5  # each row that says so is of the other figure
