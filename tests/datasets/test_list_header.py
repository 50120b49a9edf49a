"""Tables under other tools' headers, what is given in place of a list, and roots that are wrong."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maekit.datasets.images import Images
from maekit.datasets.list_rows import columns_note, read_list
from maekit.datasets.videos import Videos
from maekit.errors import DataError

SUFFIXES = frozenset({".jpg", ".png"})


def read(tmp_path: Path, text: str) -> tuple[list[tuple[str, tuple[str, ...]]], str | None]:
    path = tmp_path / "list"
    path.write_text(text)
    rows = [(row.path, row.fields) for row in read_list(path, SUFFIXES)]
    return rows, columns_note(path, SUFFIXES)


@pytest.mark.parametrize("header", [
    "file_name,label", "filename;class", "Image Path\ttarget", "filepath,labels", "image,category",
    "img_path,class_name", "file,y", "Filename,Label", "image_name,tags", "video,gt", "fname,Class",
    "id,label",
])  # fmt: skip
def test_other_tools_headers_are_read_and_told(tmp_path: Path, header: str) -> None:
    cut = next(each for each in ",;\t" if each in header)
    path, label = header.split(cut)
    rows, note = read(tmp_path, f"{header}\na b.jpg{cut}cat\nc.jpg{cut}dog\n")
    assert rows == [("a b.jpg", ("cat",)), ("c.jpg", ("dog",))]
    assert note == f"columns taken: path from '{path}', label from '{label}'"


@pytest.mark.parametrize(("text", "expected", "note"), [
    # One column is more of a path than the other, and of a label.
    ("id,image,width,category_id,category\n7,a.jpg,640,3,cat\n8,b.jpg,640,1,dog\n",
     [("a.jpg", ("cat",)), ("b.jpg", ("dog",))], "path from 'image', label from 'category'"),
    ("index,scan,site\n0,a.png,x\n1,b.png,y\n", [("a.png", ()), ("b.png", ())],
     "path from 'scan', no labels; not known: index, site"),
    # One-hot columns, of which one may hold, or several, or none.
    ("filename,cat,dog,owl\na.jpg,1,0,0\nb.jpg,0,0,1\n",
     [("a.jpg", ("cat",)), ("b.jpg", ("owl",))],
     "labels from 3 columns of zeros and ones: cat, dog, owl"),
    ("image,is_train,MEL,NV,age\na.jpg,1,1.0,1.0,40\nb.jpg,0,0.0,0.0,0\n",
     [("a.jpg", ("MEL|NV",)), ("b.jpg", ("-",))], "columns of zeros and ones: MEL, NV"),
    ("path,label,night\na.jpg,x,1\nb.jpg,y,0\n", [("a.jpg", ("x",)), ("b.jpg", ("y",))], None),
    # What is no header stays a row.
    ("image,cat\nother,cat\n", [("image,cat", ()), ("other,cat", ())], None),
    ("noext,4\nother,5\n", [("noext", ("4",)), ("other", ("5",))], None),
    ("a.jpg,file\nb.jpg,image\n", [("a.jpg", ("file",)), ("b.jpg", ("image",))], None),
    ('{"file_name": "a.jpg", "class": 3}\n{"file_name": "b.jpg", "class": 1}\n',
     [("a.jpg", ("3",)), ("b.jpg", ("1",))], "path from 'file_name', label from 'class'"),
    ('{"image": "a.jpg", "tags": ["x", "y"]}\n{"image": "b.jpg", "tags": []}\n',
     [("a.jpg", ("x|y",)), ("b.jpg", ("-",))], "keys taken: path from 'image', label from 'tags'"),
])  # fmt: skip
def test_what_columns_hold(tmp_path: Path, text: str, expected: object, note: str | None) -> None:
    rows, said = read(tmp_path, text)
    assert rows == expected
    assert said is None if note is None else note in str(said)


def test_a_two_further_down_is_no_label(tmp_path: Path) -> None:
    lines = [f"{number}.jpg,{number % 2},1,0" for number in range(60)]
    text = "\n".join(["file,age,cat,dog", *lines, "x.jpg,2,0,1"])
    rows, note = read(tmp_path, text)
    assert rows[-1] == ("x.jpg", ("dog",))
    assert "2 columns of zeros and ones: cat, dog" in str(note)


def test_a_set_says_which_columns_it_took(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "l.csv").write_text("file_name,target\na.png,cat\n")
    found = Images(Images.Options(path=tmp_path / "l.csv"))
    assert found.notes == ("columns taken: path from 'file_name', label from 'target'",)
    assert found.classes == ("cat",)


def written(folder: Path, kind: str) -> Path:
    path = folder / "data"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.jpg", b"x")
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    elif kind == "tgz":
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    elif kind == "npz":
        np.savez(path.open("wb"), images=np.zeros((3, 4, 4, 3), np.uint8))
    elif kind == "npy":
        np.save(path.open("wb"), np.zeros((3, 4, 4, 3), np.uint8))
    elif kind == "hdf5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    elif kind == "pickle":
        path.write_bytes(__import__("pickle").dumps({"data": [1, 2]}))
    else:
        Image.new("RGB", (40, 40), (9, 200, 3)).save(path, kind)
    return path


@pytest.mark.parametrize(("kind", "reason"), [
    ("zip", "is a ZIP archive(.|\n)*unpack it"),
    ("tar", r"is a tar archive(.|\n)*tar xf"),
    ("tgz", r"is a gzip archive(.|\n)*tar xzf"),
    ("npz", r"is an \.npz file(.|\n)*np\.save"),
    ("npy", r"is a NumPy array(.|\n)*np\.save"),
    ("hdf5", "is an HDF5 file(.|\n)*h5py"),
    ("pickle", "is a Python pickle(.|\n)*not opened"),
    ("JPEG", "is a JPEG picture(.|\n)*give the folder"),
    ("TIFF", "is a TIFF picture(.|\n)*give the folder"),
])  # fmt: skip
@pytest.mark.parametrize("part", [Images, Videos])
def test_what_is_no_list_is_named(
    tmp_path: Path, part: type[Images | Videos], kind: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        part(part.Options(path=written(tmp_path, kind)))


@pytest.mark.parametrize("address", [
    "https://example.com/set.zip", "s3://bucket/photos", "hf://datasets/user/set",
])  # fmt: skip
def test_an_address_is_no_folder(tmp_path: Path, address: str) -> None:
    for path in (Path(address), tmp_path / address):  # recipes make paths absolute
        with pytest.raises(DataError, match=f"{address} is an address(.|\n)*download it"):
            Images(Images.Options(path=path))


@pytest.mark.parametrize("rows", ["train/a.png 1", "path,label\nx/a.png,1\nx/b.png,2", "a\nb\nc"])
def test_a_wrong_root_shows_the_first_path_tried(tmp_path: Path, rows: str) -> None:
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "l"
    path.write_text(rows)
    first = rows.splitlines()[-1 if rows.startswith("train") else -2 if "," in rows else 0]
    first = first.replace(",", " ").split()[0]
    for part in (Images, Videos):
        with pytest.raises(DataError, match=rf"the first is {tmp_path}/lists/{first}") as error:
            part(part.Options(path=path))
        assert "data.train.root" in str(error.value)
        (tmp_path / "data" / first).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / first).touch()
        part(part.Options(path=path, root=tmp_path / "data"))  # what the hint says works
