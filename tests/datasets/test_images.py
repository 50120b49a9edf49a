"""Dataset `images`: folders and lists of pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maekit.datasets.images import SUFFIXES, Images
from maekit.errors import DataError


def draw(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, value, value)).save(path)


def images(path: Path, **options: object) -> Images:
    return Images(Images.Options(path=str(path), **options))


def test_class_folders_are_labels(tmp_path: Path) -> None:
    draw(tmp_path / "10" / "a.png", 1)
    draw(tmp_path / "2" / "deep" / "b.png", 2)
    dataset = images(tmp_path)
    assert dataset.classes == ("10", "2")
    source = dataset.open(1)
    assert (source.info.label, source.info.height, source.info.width, source.info.channels) == (
        1,
        4,
        6,
        3,
    )
    assert (source.info.frames, source.info.fps, source.info.dtype, source.info.crops) == (
        1,
        None,
        "uint8",
        False,
    )
    clip = source.read([0, 0])
    assert clip.shape == (2, 4, 6, 3)
    assert (clip == 2).all()
    assert source.info.id == dataset.name(1) == str(tmp_path / "2" / "deep" / "b.png")
    assert images(tmp_path, labels="none").classes is None


def test_flat_and_single_folders_are_unlabeled_unless_asked(tmp_path: Path) -> None:
    draw(tmp_path / "one" / "a.png")
    assert images(tmp_path).classes is None
    assert images(tmp_path, labels="folder").classes == ("one",)
    draw(tmp_path / "two" / "a.png")
    draw(tmp_path / "loose.png")
    assert images(tmp_path).classes is None
    assert images(tmp_path).open(0).info.label is None
    with pytest.raises(DataError, match=r"loose\.png does not lie in a class folder"):
        images(tmp_path, labels="folder")


def test_lists_are_relative_to_themselves_or_to_root(tmp_path: Path) -> None:
    draw(tmp_path / "data" / "a b.png", 7)
    draw(tmp_path / "data" / "sub" / "c.png", 8)
    (tmp_path / "data" / "list.csv").write_text("path,label\na b.png,dog\nsub\\c.png,cat\n")
    dataset = images(tmp_path / "data" / "list.csv")
    assert dataset.classes == ("cat", "dog")
    assert [dataset.open(i).info.label for i in range(2)] == [1, 0]
    assert [dataset.open(i).read([0]).flat[0] for i in range(2)] == [7, 8]
    absolute = tmp_path / "data" / "sub" / "c.png"
    (tmp_path / "plain.txt").write_text(f"a b.png 4\n{absolute} 1\n")
    dataset = images(tmp_path / "plain.txt", root=str(tmp_path / "data"))
    assert len(dataset.classes) == 5
    assert [dataset.open(i).read([0]).flat[0] for i in range(2)] == [7, 8]


def test_a_root_is_for_lists(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(DataError, match="root is for lists; this is a folder"):
        images(tmp_path, root=str(tmp_path))


def test_columns_beside_path_and_label_are_the_users_own(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text("path,label,start,end\na.png,dog,early,late\n")
    assert images(tmp_path / "l.csv").classes == ("dog",)


def test_a_list_takes_every_row_as_it_stands(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "noext")
    (tmp_path / "l.txt").write_text("noext\nmissing.jpg\n._hidden.jpg\nnoext\n")
    dataset = images(tmp_path / "l.txt")
    assert len(dataset) == 4
    assert dataset.open(3).info.channels == 3
    with pytest.raises(DataError, match=r"missing\.jpg: does not exist"):
        dataset.open(1)


@pytest.mark.parametrize(("text", "line", "reason"), [
    ("a.jpg 1\nb.jpg\n", 2, "has no label, the rows before it have one"),
    ("a.jpg\nb.jpg 1\n", 2, "has a label, the rows before it have none"),
    ("a.jpg 1\nb.jpg -1\n", 2, "label '-1'"),
    ("a.jpg 1 2\n", 1, "2 fields after the path"),
])  # fmt: skip
def test_half_labeled_lists(tmp_path: Path, text: str, line: int, reason: str) -> None:
    (tmp_path / "l.txt").write_text(text)
    draw(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=reason) as error:
        images(tmp_path / "l.txt")
    assert error.value.where == f"{tmp_path / 'l.txt'}:{line}"
    assert images(tmp_path / "l.txt", labels="none").classes is None


def test_nothing_there_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.txt").write_text("\n\n")
    for path, reason in {
        "missing": "does not exist", "empty": "no pictures in", "rows.txt": "no rows",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=reason) as error:
            images(tmp_path / path)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match=r"data\.train\.path(.|\n)*path/<class>"):
        images(tmp_path / "missing")


def test_alpha_can_be_kept(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (1, 2, 3, 4)).save(tmp_path / "a.png")
    assert images(tmp_path).open(0).info.channels == 3
    assert images(tmp_path, alpha="keep").open(0).read([0])[0, 0, 0].tolist() == [1, 2, 3, 4]


def test_a_large_set_is_small_to_send(tmp_path: Path) -> None:
    draw(tmp_path / "n00000000" / "0.jpg")
    with (tmp_path / "l.csv").open("w") as file:
        file.write("path,label\n")
        file.writelines(f"n{i % 100:08d}/{i}.jpg,{i % 100}\n" for i in range(50_000))
    dataset = images(tmp_path / "l.csv")
    content = pickle.dumps(dataset)
    assert len(content) < 50_000 * 45
    again = pickle.loads(content)
    assert again.name(49_999) == str(tmp_path / "n00000099" / "49999.jpg")


def test_real_sets(shared_data: Path) -> None:
    for name, classes, samples in (
        ("scene6-1500/train", 6, 1200), ("mnist-gray-3k/test", 10, 600),
        ("tiny-imagenet-20/val", 20, 1000),
    ):  # fmt: skip
        dataset = images(shared_data / name)
        assert (len(dataset.classes), len(dataset)) == (classes, samples)
        assert dataset.open(samples - 1).info.label == classes - 1
    odd = images(shared_data / "odd")
    readable, blamed = 0, []
    for index in range(len(odd)):
        assert Path(odd.name(index)).suffix.lower() in {*SUFFIXES, ""}
        if "12000x12000" in odd.name(index):
            continue
        try:
            source = odd.open(index)
            clip = source.read([0])
        except DataError as error:
            blamed.append((odd.name(index), error.where))
            continue
        readable += 1
        assert clip.shape == (1, source.info.height, source.info.width, source.info.channels)
        assert np.isfinite(clip.astype(np.float64)).all()
    assert readable > 45
    assert len(blamed) > 10
    assert all(name == where for name, where in blamed)
