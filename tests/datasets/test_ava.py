"""AVA's own lists, those of its public codes, and one's own: read whole, or refused by line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered_films import at_rate, film, number_of
from pydantic import ValidationError

from maekit.contracts import Dataset, Source, View
from maekit.data.grids import by_size, whole_size
from maekit.data.identity import Identity, differences, identify
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.data.split import Subset, split_off
from maekit.datasets.ava import Ava
from maekit.errors import DataError, Interrupted
from maekit.progress import Progress, listening
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment
from maekit.stop import StopSignal

ROWS = """\
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1
-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,12,0
1j20qq1JyX4,0902,0.000,0.100,1.020,0.900,12,3
-5KQ66BBWC4,0903,0.332,0.194,0.481,0.891,80,1
-5KQ66BBWC4,0904,0.500,0.194,0.500,0.891,80,1
-5KQ66BBWC4,0905,0.1,0.1,0.5,0.5,3,1
"""
PBTXT = """\
label {
  name: "bend/bow (at the waist)"
  label_id: 1
  label_type: PERSON_MOVEMENT
}
item {
  name: "stand"
  id: 12
}
item {
  name: "watch (a person)"
  id: 80
}
"""
PERSONS = """\
-5KQ66BBWC4,0902,0.078,0.152,0.284,0.812,,0.95
-5KQ66BBWC4,0902,0.500,0.500,0.900,0.900,,0.85
-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,,0.60
-5KQ66BBWC4,0906,0.226,0.032,0.366,0.497,,0.99
nobody_____,0902,0.226,0.032,0.366,0.497,,0.99
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "movies").mkdir()
    film(tmp_path / "movies" / "-5KQ66BBWC4.mp4", at_rate(25, 4))
    files = {"boxes.csv": ROWS, "actions.pbtxt": PBTXT, "persons.csv": PERSONS}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def ava(folder: Path, **options: Any) -> Ava:
    lists = {
        key: folder / str(value)
        for key, value in options.items()
        if key in {"path", "actions", "excluded", "included", "persons", "person_images"}
    }
    base = {"path": folder / "boxes.csv", "videos": folder / "movies", "layout": "cuts"}
    return Ava(Ava.Options(**base | options | lists))


def test_rows_of_one_person_are_one_box_and_the_metric_knows_all_of_them(folder: Path) -> None:
    found = ava(folder, actions="actions.pbtxt")
    assert [label.frame for label in found.labels] == [
        "-5KQ66BBWC4,0902",
        "-5KQ66BBWC4,0903",
        "-5KQ66BBWC4,0905",
        "1j20qq1JyX4,0902",
    ]
    first = found.labels[0]
    assert first.labels == (frozenset({79, 8}), frozenset({11}))
    assert first.persons == (1, 0)
    np.testing.assert_array_equal(first.corners[0], [0.077, 0.151, 0.283, 0.811])
    np.testing.assert_array_equal(found.labels[3].corners[0], [0, 0.1, 1, 0.9])  # cut at the edge
    assert found.left_out == {"boxes without extent in the picture": 1}
    assert len(found.classes) == 80
    assert (found.classes[11], found.classes[1]) == ("stand", "action 2")
    assert found.judged == (0, 11, 79)
    assert found.notes == (
        f"1 of 2 movies of {folder}/boxes.csv are not in {folder}/movies (1j20qq1JyX4)",
    )
    assert found.sources("movie").count("-5KQ66BBWC4") == 3


def test_a_movie_that_is_missing_broken_or_too_short_says_which_row_asks_for_it(
    folder: Path,
) -> None:
    found = ava(folder)
    with pytest.raises(DataError, match=r"no movie 1j20qq1JyX4 .*boxes.csv:4 asks for it"):
        found.open(3)
    with pytest.raises(DataError, match=r"second 905 is not in .* 900 to 904.*boxes.csv:7 asks"):
        found.open(2)
    (folder / "movies" / "1j20qq1JyX4.webm").write_bytes(b"no film" * 99)
    with pytest.raises(DataError, match=r"boxes.csv:4 asks for it"):
        ava(folder).open(3)
    reader = SampleReader(
        found,
        spec=DataSpec(name="ava", frames=4, stride=8, sampling="centered", rate=25),
        augment=NoAugment(name="none"),
        views=(View("clip", (16, 80)),),
        channels=3,
        seed=0,
        purpose="test",
        held_out=True,
    )
    good, bad = reader.read(Key(0, 0)), reader.read(Key(0, 3))
    assert [number_of(f) for f in good.views[0][0].transpose(1, 2, 3, 0)] == [37, 45, 53, 61]
    assert good.boxes[0].labels == found.labels[0].labels
    assert bad.bad is not None
    assert bad.bad.file == "1j20qq1JyX4,0902"
    assert "boxes.csv:4" in bad.bad.reason


def test_seconds_are_excluded_and_included(folder: Path) -> None:
    (folder / "excluded.csv").write_text("-5KQ66BBWC4,0903\n")
    (folder / "included.txt").write_text("0902\n0903\n904\n")
    found = ava(folder, excluded="excluded.csv", included="included.txt")
    assert [label.second for label in found.labels] == [902, 902]
    assert [label.frame for label in found.excluded] == ["-5KQ66BBWC4,0903"]
    assert found.left_out["rows at seconds that are not included"] == 1
    (folder / "included.txt").write_text("0902\nnever\n")
    with pytest.raises(DataError, match=re.escape("included.txt:2: a second is no number")):
        ava(folder, included="included.txt")
    (folder / "excluded.csv").write_text("-5KQ66BBWC4\n")
    with pytest.raises(DataError, match=re.escape("excluded.csv:1: has 1 columns")):
        ava(folder, excluded="excluded.csv")


def test_detected_persons_are_asked_for_and_labeled_by_overlap(folder: Path) -> None:
    found = ava(folder, persons="persons.csv")
    first = found.labels[0]
    assert first.truth == (True, True, False, False)
    assert first.asked == (False, False, True, True)
    assert first.scores == (1, 1, 0.95, 0.85)
    assert first.labels[2:] == (frozenset({79, 8}), frozenset())
    # A second without annotations is judged, too: what is found there is wrong.
    assert [label.second for label in found.labels] == [902, 903, 905, 906, 902]
    assert found.labels[3].truth == (False,)
    assert found.left_out["detected persons below min_score"] == 1
    assert found.left_out["detected persons in movies that path does not name"] == 1
    both = ava(folder, persons="persons.csv", ask="both", min_score=0.9)
    assert both.labels[0].asked == (True, True, True)
    (folder / "few.csv").write_text("-5KQ66BBWC4,0902,0.1,0.1,0.3,0.3,,0.2\n")
    assert ava(folder, persons="few.csv", or_best=True).labels[0].scores == (1, 1, 0.2)


def test_slowfasts_rows_of_one_box_are_one_person_with_its_own_labels(folder: Path) -> None:
    rows = "-5KQ66BBWC4,0902,0.08,0.15,0.28,0.81,{},0.99\n"
    (folder / "sf.csv").write_text(rows.format(12) + rows.format(80) + rows.format(""))
    label = ava(folder, persons="sf.csv").labels[0]
    assert (label.truth.count(False), label.labels[-1]) == (1, frozenset({11, 79}))


def test_alphactions_persons_are_pixels_of_its_own_pictures(folder: Path) -> None:
    image = {"id": 902, "movie": "-5KQ66BBWC4", "timestamp": 902, "width": 480, "height": 360}
    (folder / "images.json").write_text(json.dumps({"images": [image]}))
    persons = [{"image_id": 902, "bbox": [48, 36, 240, 180], "score": 0.9}]
    (folder / "persons.json").write_text(json.dumps(persons))
    label = ava(folder, persons="persons.json", person_images="images.json").labels[0]
    np.testing.assert_allclose(label.corners[-1], [0.1, 0.1, 0.6, 0.6])
    with pytest.raises(DataError, match="person_images: ava_val_v2"):
        ava(folder, persons="persons.json")
    for wrong, said in (
        (persons, "images.json: lists no images"),
        ({"images": [{"id": 902}]}, "images.json: image 1 has no id, movie"),
        ({"images": [{**image, "movie": None}]}, "images.json: image 1 has no"),
    ):
        (folder / "images.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=said):
            ava(folder, persons="persons.json", person_images="images.json")
    (folder / "images.json").write_text(json.dumps({"images": [image]}))
    (folder / "persons.json").write_text(json.dumps([{**persons[0], "image_id": 7}]))
    with pytest.raises(DataError, match="entry 1: is no person of AlphAction's"):
        ava(folder, persons="persons.json", person_images="images.json")


@pytest.mark.parametrize("name", ["a.pkl", "b.PICKLE", "c.npy"])
def test_pickled_persons_are_refused_with_the_way_out(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"(?s)is a pickle.*ava_\*_predicted_boxes.csv"):
        ava(folder, persons=name)


OWN = "video,second,x1,y1,x2,y2,label,person\n"


def test_ones_own_list_has_a_header_names_and_any_order(folder: Path) -> None:
    own = (
        "person,label,y2,x2,y1,x1,second,video,mood\nann,walk,.5,.4,.1,.2,1.5,-5KQ66BBWC4.mp4,ok\n"
    )
    own += "ann,jump up,.5,.4,.1,.2,1.5,-5KQ66BBWC4.mp4,ok\nbob,,1,1,0,0,1.5,-5KQ66BBWC4.mp4,\n"
    (folder / "own.csv").write_text(own)
    found = ava(folder, path="own.csv", layout="movies")
    assert found.classes == ("jump up", "walk")
    assert found.labels[0].frame == "-5KQ66BBWC4.mp4,0001.500"
    assert found.labels[0].labels == (frozenset({0, 1}), frozenset())
    assert found.labels[0].persons == (0, 1)
    np.testing.assert_array_equal(found.labels[0].corners[0], [0.2, 0.1, 0.4, 0.5])
    source = found.open(0)
    assert [number_of(frame) for frame in source.read(source.at([-1, 0, 1], 0.02))] == [12, 37, 62]
    (folder / "names.txt").write_text("walk\njump up\nsleep\n")
    listed = ava(folder, path="own.csv", layout="movies", actions="names.txt")
    assert listed.classes == ("walk", "jump up", "sleep")
    assert listed.judged is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,0902,0.1,0.2,0.3,0.4,80\na,0902,0.1,0.2\n", "bad.csv:2: has 4 columns"),
        ("a,0902,0.1,0.2,0.3,0.4,80,1,9\n", "bad.csv:1: has 9 columns"),
        ("a,902,0.1,0.2,0.3,x,80,1\n", "bad.csv:1: y2 is no number: 'x'"),
        ("a,902,0.1,0.2,nan,0.4,80,1\n", "bad.csv:1: x2 is no number"),
        ("a,902,10,20,200,400,80,1\n", "bad.csv:1: x1 is 10, and corners are fractions"),
        ("a,-2,0.1,0.2,0.3,0.4,80,1\n", "bad.csv:1: the second is negative"),
        (",902,0.1,0.2,0.3,0.4,80,1\n", "bad.csv:1: names no video"),
        ("a,902,0.1,0.2,0.3,0.4,0,1\n", "bad.csv:1: the label 0 is none of"),
        ("a,902,0.1,0.2,0.3,0.4,4,1\na,902,0.1,0.2,0.3,0.5,81,1\n", "bad.csv:2: the label 81"),
        ("video,x1,y1,x2,y2,label\n", "bad.csv:1: has no column second"),
        (OWN + "a,soon,0,0,1,1,walk,\n", "bad.csv:2: the second is no number: 'soon'"),
        ("", "bad.csv: holds no row"),
        ("a,902,0.1,0.2,0.1,0.4,4,1\n", "bad.csv: holds no box that counts"),
        ("-5KQ66BBWC4,902\n", "bad.csv: holds no box that counts"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(said)):
        ava(folder, path="bad.csv", classes=80)


def test_lists_and_folders_that_are_not_there_are_said(folder: Path) -> None:
    with pytest.raises(DataError, match="no annotations at"):
        ava(folder, path="nowhere.csv")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"2 of 2 movies .* are not in"):
        ava(folder, videos=folder / "empty")
    for options, said in (
        ({"iou": 0.5}, "iou is of detected persons"),
        ({"ask": "both"}, "needs persons"),
        ({"persons": "persons.csv", "ask": "truth"}, "persons means nothing"),
        ({"frame_rate": 25}, "frame_rate is of folders"),
        ({"layout": "seconds", "start": 3}, "say by their names"),
    ):
        with pytest.raises(ValidationError, match=said):
            ava(folder, **options)
    (folder / "twice.pbtxt").write_text(PBTXT + PBTXT)
    with pytest.raises(DataError, match=re.escape("twice.pbtxt:14: the id 1 is there twice")):
        ava(folder, actions="twice.pbtxt")


@pytest.mark.parametrize("by", ["sample", "movie"])
def test_a_split_keeps_what_is_judged_and_excluded(folder: Path, by: str) -> None:
    rows = [f"m{movie},{900 + second},0,0,1,1,{1 + second % 2},{second}"
            for movie in range(4) for second in range(5)]  # fmt: skip
    (folder / "many.csv").write_text("\n".join(rows))
    (folder / "left.csv").write_text("".join(f"m{movie},902\n" for movie in range(4)))
    for movie in range(4):
        (folder / "movies" / f"m{movie}.mp4").touch()
    whole = ava(folder, path="many.csv", actions="actions.pbtxt", excluded="left.csv")
    train, val, _ = split_off(whole, 0.25, by)
    assert (len(train), len(val)) == (12, 4)
    assert train.judged == val.judged == whole.judged == (0, 11, 79)
    movies = {label.movie for label in val.labels}
    frames = [label.frame for label in val.labels]
    assert frames == [val.name(index) for index in range(len(val))]
    left = [label.movie for part in (train, val) for label in part.excluded]
    assert sorted(left) == ["m0", "m1", "m2", "m3"]
    if by == "movie":
        assert {label.movie for label in val.excluded} == movies
        assert not movies & {label.movie for label in train.labels}


def test_samples_are_grouped_by_the_size_that_shows_them_whole(folder: Path) -> None:
    assert whole_size(1080, 1920, 256) == (256, 455)
    assert whole_size(1080, 1920, 256, 16) == (256, 448)
    assert whole_size(480, 360, 256, 16) == (336, 256)
    film(folder / "movies" / "1j20qq1JyX4.mp4", at_rate(25, 3))
    # The film is 80 x 16; the second that it does not have is with the others.
    assert by_size(ava(folder), range(4), 32, 16) == {(32, 160): [0, 1, 2, 3]}


@pytest.mark.parametrize("layout", ["movies", "seconds", "split"])
def test_another_movie_in_the_place_of_one_is_noticed(tmp_path: Path, layout: str) -> None:
    """Names of moments are no files: a resumed run looks at those that they lie in."""
    videos = tmp_path / "videos"
    place = videos / ("a/2.mp4" if layout == "seconds" else "a.mp4")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"1" * 99)
    (tmp_path / "boxes.csv").write_text("a,2,0,0,1,1,1,1\nb,2,0,0,1,1,1,1\n")

    def now() -> Identity:
        options = {"path": tmp_path / "boxes.csv", "videos": videos}
        found: Dataset = Ava(
            Ava.Options(**options, layout="seconds" if layout == "seconds" else "movies")  # type: ignore[arg-type]
        )
        return identify(Subset(found, np.arange(2)) if layout == "split" else found)

    before = now()
    assert differences(before, now()) == []
    place.write_bytes(b"2" * 100)
    (said,) = differences(before, now())
    assert said == "1 of 2 files looked at have another size: a,0002: 99 bytes before, 100 now"


def test_sizes_are_looked_up_once_a_movie_and_counted(folder: Path) -> None:
    found, opened = ava(folder), list[int]()
    told: list[Progress] = []
    source = found.open

    def opening(index: int) -> Source:
        opened.append(index)
        return source(index)

    found.open = opening  # type: ignore[method-assign]
    with listening(told.append):
        by_size(found, [0, 1, 3], 32, 16)
    assert opened == [0, 3]
    assert {(each.what, each.total) for each in told} == {("looking at sizes", 3)}
    with StopSignal(signals=False) as stop:
        stop.requested = "SIGTERM"
        with pytest.raises(Interrupted):
            by_size(found, [0, 1, 3], 32, 16)
