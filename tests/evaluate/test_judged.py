"""What judged predictions show: worked numbers, and those of scikit-learn."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numerics import close
from PIL import Image
from small_recipes import draw_sides

from maekit.datasets.images import Images
from maekit.engine.events import Event, Note, Saved
from maekit.errors import Interrupted
from maekit.evaluate.judged import Judged
from maekit.evaluate.labels import LabelTable, Task
from maekit.evaluate.predictions import Predictions
from maekit.evaluate.views import view_reader
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import Views
from maekit.visualize.confusion import confusion_picture, contact_sheet

if TYPE_CHECKING:
    from maekit.weights.header import HeadKind

NONE = LabelTable(np.zeros(0, np.int64), 3)


def judged(kind: HeadKind, labels: object, scores: object) -> Judged:
    """Make a judgment of rows 0, 1, ..., whose files are called 0.png and so on."""
    true, said = np.array(labels), np.array(scores, np.float64)
    count = len(said)
    table = LabelTable(true, 3) if kind == "multiclass" else LabelTable(
        np.arange(count), said.shape[1], true.astype(np.float32)
    )  # fmt: skip
    names = tuple(f"{row}.png" for row in range(count))
    task = Task(kind, ("cat", "dog", "owl")[: said.shape[1]], NONE, table, "top1")
    return Judged(task, Predictions(np.arange(count), names, true, said, said))


CLASSES = judged(
    "multiclass",
    [0, 0, 0, 1, 1, 1],
    [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.85, 0.05], [0.3, 0.6, 0.1], [0.5, 0.2, 0.3],
     [0.1, 0.45, 0.45]],
)  # fmt: skip


def test_classes_confusions_and_mistakes_by_hand() -> None:
    assert CLASSES.confusion.tolist() == [[1, 2, 0], [1, 2, 0], [0, 0, 0]]
    cat, dog, owl = CLASSES.classes()
    third, half = 1 / 3, 1 / 2
    rates = {"recall": pytest.approx(third), "precision": half, "f1": pytest.approx(0.4)}
    assert cat == {"class": "cat", "samples": 3, **rates, "taken_for": "dog", "times": 2}
    assert (dog["recall"], dog["precision"]) == (pytest.approx(2 / 3), half)
    assert (owl["samples"], owl["recall"], owl["precision"], owl["f1"]) == (0, None, None, None)
    assert CLASSES.confused() == [
        {"class": "cat", "taken_for": "dog", "times": 2},
        {"class": "dog", "taken_for": "cat", "times": 1},
    ]
    # By how much likelier the wrong class is: 0.75, 0.5, 0.3; equal scores go to the first.
    assert CLASSES.mistakes() == [2, 1, 4]
    assert CLASSES.described(2) == "cat, said dog 0.85"
    # Bins of tenths: 0.4 (right), 0.5 (wrong), 0.6 (right), 0.7 (wrong), 0.8 (wrong), 0.9 (right).
    found = CLASSES.calibration()
    assert found is not None
    assert [each["count"] for each in found["bins"]] == [1] * 6
    close([found["ece"]], [(0.55 + 0.5 + 0.4 + 0.7 + 0.85 + 0.1) / 6], terms=6)


def test_labels_and_values() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    has, scores = rng.random((50, 3)) < 0.4, rng.random((50, 3))
    found = judged("multilabel", has.astype(float), scores)
    for place, each in enumerate(found.classes()):
        theirs = average_precision_score(has[:, place], scores[:, place])
        close([each["average_precision"]], [theirs], terms=50)
        assert each["samples"] == has[:, place].sum()
        both = (has & (scores > 0.5))[:, place].sum()
        close([each["recall"]], [both / has[:, place].sum()], terms=2)
    calibration = found.calibration()
    assert calibration is not None
    assert sum(each["count"] for each in calibration["bins"]) == 150
    assert found.confused() is None
    worst = found.mistakes(1)[0]
    assert worst == np.square(scores - has).mean(axis=1).argmax()
    values = judged("regression", [[1.0], [2.0], [3.0]], [[1.5], [2.0], [5.0]])
    assert values.calibration() is None
    assert values.mistakes(2) == [2, 0]
    assert values.described(2) == "3, said 5"
    assert values.classes()[0]["mae"] == pytest.approx(2.5 / 3)


def test_files_of_a_folder_and_a_failing_disk(tmp_path: Path) -> None:
    draw_sides(tmp_path / "set", 6, seed=0)
    dataset = Images(Images.Options(path=tmp_path / "set"))
    reader = view_reader(dataset, DataSpec(name="images"), Views(), size=(16, 24), channels=3)
    said: list[Event] = []
    CLASSES.write(tmp_path, reader, said.append)
    with (tmp_path / "confusion.csv").open() as file:
        assert list(csv.reader(file))[1:] == [
            ["cat", "1", "2", "0"], ["dog", "1", "2", "0"], ["owl", "0", "0", "0"],
        ]  # fmt: skip
    with (tmp_path / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["class"], rows[0]["recall"], rows[2]["recall"]) == ("cat", "0.333333", "")
    sheet = Image.open(tmp_path / "mistakes.png")
    assert sheet.width > 3 * 160  # three mistakes side by side
    assert [Path(each.path).name for each in said if isinstance(each, Saved)] == [
        "confusion.png", "mistakes.png",
    ]  # fmt: skip
    CLASSES.write(tmp_path / "absent", reader, said.append)
    assert isinstance(said[2], Note)
    assert said[2].warning


@pytest.mark.parametrize("count", [2, 40, 41, 1000])
def test_any_number_of_classes_is_drawn(count: int) -> None:
    counts = np.diag(np.arange(1, count + 1))
    counts[0, 1] = 3  # of 4
    names = ["n" * (number % 60 + 1) for number in range(count)]
    picture = np.asarray(confusion_picture(counts, names)).astype(int)
    assert max(picture.shape) < 2000
    if count > 40:  # without names: a square of squares
        cell = 900 // count or 1
        assert picture.shape == (cell * count, cell * count, 3)
        shade = picture[::cell, ::cell].sum(axis=2)
        assert shade[1, 1] < shade[0, 1] < shade[0, 0] < shade[0, 2] == 765


def of_many(classes: int, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """Judge four samples of so many classes, where no array may be of classes x classes."""
    names = tuple(f"c{number}" for number in range(classes))
    labels, scores = np.array([0, 7, 7, classes - 1]), np.zeros((4, classes))
    scores[[0, 1, 2, 3], [0, 9, 9, 3]] = 1
    task = Task("multiclass", names, NONE, LabelTable(labels, classes), "top1")

    def refused(self: Judged) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(Judged, "confusion", property(refused))
    ids = ("a", "b", "c", "d")
    return Judged(task, Predictions(np.arange(4), ids, labels, scores, scores))


def test_of_many_classes_only_what_occurs_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_sides(tmp_path / "set", 4, seed=0)
    dataset = Images(Images.Options(path=tmp_path / "set"))
    reader = view_reader(dataset, DataSpec(name="images"), Views(), size=(16, 24), channels=3)
    found, said = of_many(21_000, monkeypatch), list[Event]()
    assert found.confused() == [
        {"class": "c7", "taken_for": "c9", "times": 2},
        {"class": "c20999", "taken_for": "c3", "times": 1},
    ]
    classes = found.classes()
    assert (classes[7]["samples"], classes[7]["taken_for"], classes[7]["times"]) == (2, "c9", 2)
    assert (classes[0]["recall"], classes[9]["precision"], classes[9]["recall"]) == (1, 0, None)
    found.write(tmp_path, reader, said.append)
    note, sheet = said
    assert isinstance(note, Note)
    assert isinstance(sheet, Saved)
    assert (sheet.name, sheet.path) == ("mistakes", str(tmp_path / "mistakes.png"))
    assert (note.text[:14], note.warning) == ("21,000 classes", False)
    assert len((tmp_path / "classes.csv").read_text().splitlines()) == 21_001
    assert (tmp_path / "mistakes.png").is_file()
    assert not (tmp_path / "confusion.csv").exists()
    # Of a thousand there is a matrix; that it has no room fails nothing.
    of_many(1000, monkeypatch).write(tmp_path, reader, said.append)
    assert isinstance(said[2], Note)
    assert (said[2].warning, "MemoryError" in said[2].text) == (True, True)


def test_a_stop_while_drawing_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: Judged) -> list[dict[str, object]]:
        raise Interrupted("now")

    monkeypatch.setattr(Judged, "classes", stopped)
    with pytest.raises(Interrupted):
        CLASSES.write(tmp_path, None, lambda _: None)  # type: ignore[arg-type]


def test_a_sheet_has_each_sample_once() -> None:
    shades = [np.full((8, 8, 3), value / 10) for value in range(7)]
    sheet = np.asarray(contact_sheet(shades, ["a caption"] * 6 + ["a much longer caption " * 3]))
    for value in range(7):
        shade = round(value / 10 * 255)
        assert (sheet == shade).all(axis=2).sum() >= 160 * 160
