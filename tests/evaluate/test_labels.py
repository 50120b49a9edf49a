"""What is said of labels before anything is trained on them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import Clips, clip_source

from maekit.datasets.images import Images
from maekit.engine.events import Event, Note
from maekit.errors import DataError
from maekit.evaluate.labels import announce_labels, chance_level, check_labels, warn_of_accuracy


def data(labels: list[int | None], classes: tuple[str, ...] | None) -> Clips:
    sources = [clip_source(1, 8, 8, f"{n}.png", label) for n, label in enumerate(labels)]
    return Clips(sources, classes)


def test_labels_of_val_are_numbered_as_those_of_train() -> None:
    train = data([0, 1, 2, 2], ("ape", "bee", "cat"))
    val = data([0, 1, 1], ("bee", "cat"))  # its folders lack one class
    found = check_labels(train, val)
    assert found.classes == ("ape", "bee", "cat")
    assert found.train.tolist() == [0, 1, 2, 2]
    assert found.val.tolist() == [1, 2, 2]


def test_known_labels_are_taken_without_opening_files() -> None:
    train, val = data([0, 1], ("a", "b")), data([1], ("a", "b"))
    train.labels = np.array([1, 0])  # type: ignore[attr-defined]
    assert check_labels(train, val).train.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (([0, 0], ("a", "b")), ([0], ("a", "b")), "all 2 samples are of one class: a"),
        (([0, 1], ("a", "b")), ([0, 1], ("a", "z")), "1 classes that data.train does not have: z"),
        # The class is listed, but has no sample to train on.
        (([0, 1], ("a", "b", "c")), ([2], ("a", "b", "c")), "data.train does not have: c"),
        (([0, 1], None), ([0], ("a", "b")), "data.train.path: the set has no labels"),
        (([0, 1], ("a", "b")), ([0], None), "data.val.path: the set has no labels"),
        (([0, 5], ("a", "b")), ([0], ("a", "b")), "1.png: label 5 is outside the 2 classes"),
        (([0, None], ("a", "b")), ([0], ("a", "b")), "1.png: has no label"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(
    train: tuple[list[int | None], tuple[str, ...] | None],
    val: tuple[list[int | None], tuple[str, ...] | None],
    words: str,
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        check_labels(data(*train), data(*val))
    assert caught.value.exit_code == 6


def test_counts_and_five_examples_are_told() -> None:
    train = data([0] * 6 + [1] * 4, ("a", "b", "never"))
    said: list[Event] = []
    announce_labels(train, check_labels(train, data([0, 1], ("a", "b"))), said.append)
    rows = [note.text for note in said if isinstance(note, Note)]
    assert rows[0] == ("2 classes, 10 samples to train on (4 to 6 a class), 2 to judge (1 a class)")
    assert rows[1:6] == ["  0.png: a", "  2.png: a", "  4.png: a", "  7.png: b", "  9.png: b"]
    assert rows[6] == "1 classes have no sample to train on: never"


def test_chance_is_warned_of() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    said: list[Event] = []
    assert chance_level(labels) == 0.5

    def right(share: int) -> np.ndarray:
        """Return scores of which so many of each class's 50 are right."""
        half = np.arange(50) < share
        return np.eye(2)[np.concatenate([~half, half]).astype(int)]

    assert warn_of_accuracy(right(28), labels, said.append)
    assert isinstance(said[0], Note)
    assert said[0].warning
    assert "no better than chance" in said[0].text
    assert not warn_of_accuracy(right(33), labels, said.append)
    assert len(said) == 1


def test_unlabeled_sets_say_what_took_their_labels(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "cover.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    stray = Images(Images.Options(path=tmp_path))
    (tmp_path / "list.csv").write_text("file_name,breed\ncat/1.png,cat\ndog/1.png,dog\n")
    table = Images(Images.Options(path=tmp_path / "list.csv"))
    for dataset, words in (
        (stray, "beside them: cover.png"),
        (table, "no labels; not known: breed"),
    ):
        with pytest.raises(DataError, match="the set has no labels") as error:
            check_labels(dataset, dataset)
        assert words in str(error.value)
