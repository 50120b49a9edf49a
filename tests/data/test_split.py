"""A share of a data set that is held out: which samples, of which classes, kept together."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maekit.contracts import Dataset, Source
from maekit.data.split import split_off
from maekit.datasets.images import Images
from maekit.datasets.videos import Videos
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Named(Dataset):
    """Samples that have a name and perhaps a class, and no pixels."""

    def __init__(self, names: Sequence[str], labels: Sequence[int] | None = None) -> None:
        self.names = list(names)
        if labels is not None:
            self.labels = np.array(labels, np.int32)
            self.classes = tuple(f"class {n}" for n in range(max(labels) + 1))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def open(self, index: int) -> Source:
        raise NotImplementedError


def held(dataset: Dataset, share: float = 0.2, by: str = "sample") -> set[str]:
    _, out, _ = split_off(dataset, share, by)
    return {out.name(index) for index in range(len(out))}


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=5),
    share=st.sampled_from([0.05, 0.1, 0.25, 0.5]),
)
def test_each_class_gives_its_share(counts: list[int], share: float) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    names = [f"set/{label}/{n}.jpg" for n, label in enumerate(labels)]
    train, val, missing = split_off(Named(names, labels), share, "sample")
    assert sorted([*train.rows, *val.rows]) == list(range(len(names)))
    given_ = Counter(np.asarray(val.labels).tolist())
    for label, count in enumerate(counts):
        assert 1 <= given_[label] < count
        assert abs(given_[label] - max(1, share * count)) <= 1
    assert not missing
    assert val.classes == train.classes == tuple(f"class {n}" for n in range(len(counts)))


def test_names_decide_not_order_nor_place() -> None:
    names = [f"photos/{n % 3}/{n}.jpg" for n in range(60)]
    first = held(Named(names))
    assert len(first) == 12
    assert held(Named(names[::-1])) == first


def pictures(folder: Path, names: Sequence[str]) -> Images:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return Images(Images.Options(path=folder, labels="none"))


def below(dataset: Dataset, folder: Path, by: str = "sample") -> set[str]:
    return {str(Path(name).relative_to(folder)) for name in held(dataset, by=by)}


def test_a_folder_may_be_moved_and_grow(tmp_path: Path) -> None:
    """Names are those below the set's folder, whatever lies in it: nothing is drawn anew."""
    names = [f"a/{n}.png" for n in range(60)]
    before = below(pictures(tmp_path / "here", names), tmp_path / "here")
    assert len(before) == 12
    assert below(pictures(tmp_path / "other disk", names), tmp_path / "other disk") == before
    after = below(pictures(tmp_path / "here", ["b/x.png"]), tmp_path / "here")
    assert len(before - after) <= 1
    assert len(after - before) <= 1


def test_sources_of_a_list_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [f"{n}.png,site/{n % 10}" for n in range(40)]
    for n in range(44):
        (tmp_path / f"{n}.png").touch()
    listed = tmp_path / "list.csv"

    def sites(*more: str) -> set[str]:
        listed.write_text("\n".join(["path,site", *rows, *more]), encoding="utf-8")
        found = held(Images(Images.Options(path=listed)), 0.4, "site")
        return {
            line.split(",")[1]
            for line in (*rows, *more)
            if str(tmp_path / line.split(",")[0]) in found
        }

    before = sites()
    assert len(before) == 4
    after = sites(*(f"{n}.png,other" for n in range(40, 44)))
    assert len(before - after) <= 1


def test_a_hundred_rows_say_what_a_list_holds(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([*(f"{n}.dat 0" for n in range(20)), "21.png 1"]), encoding="utf-8")
    assert Images.reads(str(listed))


def test_a_new_file_moves_at_most_one_other() -> None:
    names = [f"photos/{n}.jpg" for n in range(100)]
    before = held(Named(names))
    for number in range(100, 120):
        after = held(Named([*names, f"photos/{number}.jpg"]))
        assert len(before - after) <= 1
        assert len(after - before) <= 1


def test_rows_of_one_file_stay_together() -> None:
    """As stretches of a long video, of which a list has several."""
    names = [f"videos/{n // 5}.mp4" for n in range(100)]
    train, val, _ = split_off(Named(names), 0.2, "sample")
    assert len(val) == 20
    assert not {names[row] for row in train.rows} & {names[row] for row in val.rows}


def test_a_share_can_be_sent_to_workers() -> None:
    dataset = Named([f"{place}.png" for place in range(40)])
    for part in split_off(dataset, 0.25, "sample")[:2]:
        assert len(pickle.loads(pickle.dumps(part))) == len(part)


def test_folders_stay_together() -> None:
    names = [f"photos/cat/{n // 4}/{n}.jpg" for n in range(40)]
    names += [f"photos/dog/{n // 4}/{n}.jpg" for n in range(40)]
    train, val, _ = split_off(Named(names, [0] * 40 + [1] * 40), 0.2, "folder")
    assert Counter(np.asarray(val.labels).tolist()) == {0: 8, 1: 8}
    folders = [{names[row].rpartition("/")[0] for row in each.rows} for each in (train, val)]
    assert not folders[0] & folders[1]


def test_a_class_of_one_sample_is_trained_on_and_named() -> None:
    names = [f"{n}.jpg" for n in range(21)]
    train, _, missing = split_off(Named(names, [0] * 20 + [1]), 0.1, "sample")
    assert missing == ["class 1"]
    assert 20 in train.rows


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match="1 sample"):
        split_off(Named(["a.jpg"]), 0.5, "sample")
    classes = Named([f"{n // 9}/{n}.jpg" for n in range(18)], [0] * 9 + [1] * 9)
    with pytest.raises(DataError, match="each class lies in one folder"):
        split_off(classes, 0.5, "folder")
    with pytest.raises(DataError, match="no 'patient' to split by"):
        split_off(classes, 0.5, "patient")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_column_of_a_list_keeps_sources_together(tmp_path: Path, form: str) -> None:
    rows = [(f"{n}.png", "ab"[n % 2], f"patient {n // 6}") for n in range(60)]
    if form == "csv":
        lines = ["path,label,patient", *(",".join(row) for row in rows)]
    else:
        text = '{{"path": "{}", "label": "{}", "patient": "{}"}}'
        lines = [text.format(*row) for row in rows]
    listed = tmp_path / f"list.{form}"
    listed.write_text("\n".join(lines), encoding="utf-8")
    for name, _, _ in rows:
        (tmp_path / name).touch()
    pictures = Images(Images.Options(path=listed))
    train, val, _ = split_off(pictures, 0.2, "patient")
    assert len(val) == 12
    patients = [{rows[row][2] for row in each.rows} for each in (train, val)]
    assert not patients[0] & patients[1]
    with pytest.raises(DataError, match=r"no column 'doctor'.*\n.*columns here: path, label, pat"):
        split_off(pictures, 0.2, "doctor")


def test_sets_know_what_they_read(tmp_path: Path) -> None:
    (tmp_path / "photos/deep").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/deep/a.PNG")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mov").touch()
    (tmp_path / "list.txt").write_text("some/video.mp4 3\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    found = {
        name: (Images.reads(str(tmp_path / name)), Videos.reads(str(tmp_path / name)))
        for name in ("photos", "clips", "list.txt", "empty", "nothing")
    }
    assert found == {
        "photos": (True, False),
        "clips": (False, True),
        "list.txt": (False, True),
        "empty": (False, False),
        "nothing": (False, False),
    }
