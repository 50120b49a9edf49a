"""Lists in every dialect, and folders walked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maekit.datasets.file_lists import Labels, Paths, check_label
from maekit.datasets.folders import Wanted, walk
from maekit.datasets.list_rows import columns_note, read_list
from maekit.errors import DataError

SUFFIXES = frozenset({".jpg", ".mp4"})
WANTED = Wanted(SUFFIXES, frozenset({"picture"}))


def rows(tmp_path: Path, text: str | bytes) -> list[tuple[str, tuple[str, ...]]]:
    path = tmp_path / "list"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(row.path, row.fields) for row in read_list(path, SUFFIXES)]


@pytest.mark.parametrize(("text", "expected"), [
    ("path,label\na b.jpg,cat\n", [("a b.jpg", ("cat",))]),
    ("\ufeffPath,Label\r\na.jpg,3\r\n", [("a.jpg", ("3",))]),
    ('label,path\n1,"a,b ""c"".jpg"\n', [('a,b "c".jpg', ("1",))]),
    ("path\nnoext\n日本/ü.jpg\n", [("noext", ()), ("日本/ü.jpg", ())]),
    ("path;label;width\na.jpg;x;20\n\n", [("a.jpg", ("x",))]),
    ("path\tlabel\na.jpg\tx y\n", [("a.jpg", ("x y",))]),
    ('{"path": "a b,c.jpg", "label": 3}\n\n{"path": "d.jpg", "label": "4"}\n',
     [("a b,c.jpg", ("3",)), ("d.jpg", ("4",))]),
    ('{"path": "a.jpg", "width": 9}', [("a.jpg", ())]),
    ("a b.jpg 3\nc, d.jpg 12\n", [("a b.jpg", ("3",)), ("c, d.jpg", ("12",))]),
    ("a.jpg\nmy file.jpg\n", [("a.jpg", ()), ("my file.jpg", ())]),
    ("a.jpg,3\n", [("a.jpg", ("3",))]),
    ("a.jpg\tcat\n", [("a.jpg", ("cat",))]),
    ("noext 4\n", [("noext", ("4",))]),
    ("my file\n", [("my file", ())]),
    ('"a b.jpg" 3\n', [("a b.jpg", ("3",))]),
    ("dir\\a b.jpg 3\n", [("dir\\a b.jpg", ("3",))]),
    ("v.mp4 0 -1\n", [("v.mp4", ("0", "-1"))]),
    ("s3://bucket/a b.jpg 7\n", [("s3://bucket/a b.jpg", ("7",))]),
])  # fmt: skip
def test_dialects(tmp_path: Path, text: str, expected: object) -> None:
    assert rows(tmp_path, text) == expected


@pytest.mark.parametrize(("text", "place", "reason"), [
    ("path,label\na.jpg,1\nb,c.jpg,2\n", ":3", "has 3 columns"),
    ("path,label\n,1\n", ":2", "path is empty"),
    ('path,label\n"a.jpg,1\n', ":2", "not CSV"),
    ('{"path": "a.jpg"}\n{"file": "b"}\n', ":2", 'text "path"'),
    ('{"path": "a.jpg"}\n{oops\n', ":2", "not JSON"),
    ('{"path": "a.jpg", "label": true}\n', ":1", "label True"),
    ("label,index\na,1\n", ":1", "label, index, none of them holds paths"),
    ("id,y\n000bec18,1\n07a1,0\n", ":1", "id, y, none of them holds paths"),
    ("label,pixel0,pixel1\n5,0,12\n0,3,255\n", ":1", "pixel0, pixel1, none of them holds"),
    (b"\xff\xd8\xff\xe0 JFIF", "list", "is a JPEG picture, and not a folder or a list"),
    ("path,label\na.jpg,caf\xe9\n".encode("latin-1"), "list", "not UTF-8(.|\\n)*iconv"),
    ("path,label\n".encode("utf-16"), "list", "is UTF-16 text"),
    ('[{"path": "a.jpg"}]', "list", "JSON or XML(.|\\n)*jq"),
    ('{\n "images": []\n}', ":1", "not JSON(.|\\n)*one whole object on each line"),
    (b"PK\0\0\0", "list", "not a text file"),
    ("x" * 3_000_000, ":1", "longer than"),
    ("a.jpg 1\n" + "x" * 3_000_000, ":2", "longer than"),
    ('path,label\na.jpg,"' + "x\n" * 200_000 + '"\n', "", "not CSV: field larger"),
    ("x" * 200_000 + " 1\n", ":1", "cannot be a file's name"),
    ('{"path": "\\ud800.jpg"}', ":1", "cannot be a file's name"),
    ('{"path": "a.jpg", "label": %s}' % ("9" * 5000), ":1", "not JSON"),
    ("ftp://host/a.jpg 1\n", ":1", "ftp:// addresses are not opened"),
    ("path\nhf://datasets/x/a.jpg\n", ":2", "hf:// addresses are not opened"),
    ('{"path": "zip://a.jpg::sftp://host/a.zip"}', ":1", "sftp:// addresses are not opened"),
])  # fmt: skip
def test_errors_name_file_and_line(tmp_path: Path, text: str, place: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        rows(tmp_path, text)
    assert error.value.where.endswith(place) or not place


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_paths_come_back_as_they_went_in(names: list[str]) -> None:
    paths = Paths.of(names)
    assert [paths[index] for index in range(len(paths))] == names
    with pytest.raises(IndexError):
        paths[len(names)]


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.jpg")
    (tmp_path / name).touch()
    assert Paths.of(walk(str(tmp_path), WANTED))[0] == name


def test_labels_keep_numbers_and_sort_words() -> None:
    numbers, words, folders = Labels(), Labels(), Labels()
    for label in ("10", "2", "10"):
        numbers.add(label)
        folders.add(label)
    for label in ("b", "a", "b"):
        words.add(label)
    values, classes = numbers.by_value()
    assert (values.tolist(), len(classes), classes[10]) == ([10, 2, 10], 11, "10")
    assert (words.by_value()[0].tolist(), words.by_value()[1]) == ([1, 0, 1], ("a", "b"))
    assert (folders.by_name()[0].tolist(), folders.by_name()[1]) == ([0, 1, 0], ("10", "2"))


@pytest.mark.parametrize(
    "label", ["-1", "", "  ", "1000000", "9" * 5000, "0" * 5000, "x" * 5000, "\ud800", "cat\udfff"]
)
def test_senseless_labels(label: str) -> None:
    with pytest.raises(DataError, match="l:3"):
        check_label(label, "l:3")


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def walked(folder: Path, *, empty_folders: bool = False) -> list[str]:
    return list(walk(str(folder), WANTED, empty_folders=empty_folders))


def test_walk_skips_what_is_hidden_and_gives_folders_named_like_files(tmp_path: Path) -> None:
    touched(tmp_path, "b/2.jpg", "b/1.JPG", "a/x.mp4", ".hidden/3.jpg", "b/._1.jpg", "b/note.txt")
    touched(tmp_path, "b/folder.jpg/9.jpg", "c/frames.mp4/1.txt")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    files = ["a/x.mp4", "b/1.JPG", "b/2.jpg", "b/folder.jpg/9.jpg", "dangling.jpg"]
    assert walked(tmp_path) == files
    assert walked(tmp_path, empty_folders=True) == [*files[:4], "c/frames.mp4", files[4]]


def test_links_are_followed_and_each_folder_is_walked_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    touched(inside, "b/2.jpg", "own/1.jpg")
    touched(outside, "deep/3.jpg", "4.jpg")
    (inside / "a").symlink_to(outside)
    (inside / "c").symlink_to(outside / "deep")
    (outside / "back").symlink_to(inside)
    (inside / "b" / "up").symlink_to(inside)
    (inside / "alias").symlink_to("own")
    (inside / "self").symlink_to("self")
    (inside / "self.jpg").symlink_to("self.jpg")
    assert walked(inside) == ["a/4.jpg", "a/deep/3.jpg", "b/2.jpg", "own/1.jpg", "self.jpg"]
    assert "4 links lead to folders that are listed anyway" in caplog.text


def test_folders_that_all_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    names = [f"{letter}" for letter in "abcdefghijkl"]
    touched(tmp_path, *(f"{name}/1.jpg" for name in names))
    for name in names:
        for other in names:
            if name != other:
                (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    assert walked(tmp_path) == [f"{name}/1.jpg" for name in names]


def test_folders_deeper_than_python_calls(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("1.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        assert walked(tmp_path) == ["d/" * 1500 + "1.jpg"]
    finally:  # pytest cannot remove it either
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


@pytest.mark.parametrize(
    ("name", "text", "held"),
    [
        ("a.png", "nothing", "text"),
        ("b.MP4", "path,label\nx.png,1\n", "text"),
        ("c.jpg", "", "empty"),
    ],
)
def test_what_is_called_as_a_picture_is_no_list(
    tmp_path: Path, name: str, text: str, held: str
) -> None:
    (tmp_path / name).write_text(text)
    for read in (lambda path, known: list(read_list(path, known)), columns_note):
        with pytest.raises(DataError, match=f"is {held}, though its name ends in"):
            read(tmp_path / name, frozenset({".png", ".mp4", ".jpg"}))


def test_a_caption_beside_the_path_may_be_long(tmp_path: Path) -> None:
    text = "path,caption\na.jpg," + "x" * 130_000 + "\n"
    assert rows(tmp_path, text) == [("a.jpg", ())]
