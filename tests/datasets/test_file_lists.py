"""Lists in every dialect, and folders walked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maekit.datasets.file_lists import Labels, Paths, check_label, read_list, walk
from maekit.errors import DataError

SUFFIXES = frozenset({".jpg", ".mp4"})


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
    ("file,label\na.jpg,1\n", ":1", "none of them `path`"),
    (b"\xff\xd8\xff\xe0 JFIF", "list", "not UTF-8"),
    (b"PK\0\0\0", "list", "not a text file"),
])  # fmt: skip
def test_errors_name_file_and_line(tmp_path: Path, text: str, place: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        rows(tmp_path, text)
    assert error.value.where.endswith(place)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_paths_come_back_as_they_went_in(names: list[str]) -> None:
    paths = Paths.of(names)
    assert [paths[index] for index in range(len(paths))] == names
    with pytest.raises(IndexError):
        paths[len(names)]


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.jpg")
    (tmp_path / name).touch()
    assert Paths.of(walk(str(tmp_path), SUFFIXES))[0] == name


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


@pytest.mark.parametrize("label", ["-1", "", "  ", "1000000"])
def test_senseless_labels(label: str) -> None:
    with pytest.raises(DataError, match="l:3"):
        check_label(label, "l:3")


def test_walk_skips_what_is_hidden_and_follows_links_without_end(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.JPG", "a/x.mp4", ".hidden/3.jpg", "b/._1.jpg", "b/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "folder.jpg").mkdir()
    (tmp_path / "b" / "folder.jpg" / "9.jpg").touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to("b")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    here = ["1.JPG", "2.jpg", "folder.jpg/9.jpg"]
    assert list(walk(str(tmp_path), SUFFIXES)) == [
        "a/x.mp4", *(f"b/{name}" for name in here), *(f"c/{name}" for name in here), "dangling.jpg",
    ]  # fmt: skip
