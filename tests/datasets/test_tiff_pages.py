"""TIFFs of several pages: the first, each a sample, or the frames of a video."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from maekit.datasets.images import Images
from maekit.errors import DataError

RNG = np.random.default_rng(0)
Pages = Literal["first", "all", "clip"]


def stack(path: Path, count: int, *, kind: str = "uint8", size: int = 8) -> np.ndarray:
    """Write a TIFF of gray pages, each of one value, and return them ``[count, h, w]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = RNG.integers(0, 200, (count, size, size + 3)).astype(kind)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others)
    return pages


def images(path: Path, pages: Pages, **more: object) -> Images:
    return Images(Images.Options(path=path, pages=pages, **more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes: a stack of 5, one of 3 (BigTIFF-free), a plain TIFF and a PNG."""
    stack(tmp_path / "set/a/one.tif", 5)
    stack(tmp_path / "set/a/two.tiff", 3, kind="uint16")
    stack(tmp_path / "set/b/single.tif", 1)
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "set/b/plain.png")
    return tmp_path / "set"


def test_the_first_page_is_taken_and_the_others_are_counted(folder: Path) -> None:
    found = images(folder, "first")
    assert [found.open(n).info.further for n in range(len(found))] == [4, 2, 0, 0]
    assert {found.open(n).info.frames for n in range(4)} == {1}


def test_each_page_is_a_sample(folder: Path) -> None:
    truth = stack(folder / "a/one.tif", 5)
    found = images(folder, "all")
    assert len(found) == 5 + 3 + 1 + 1
    names = [Path(found.name(n)).name for n in range(len(found))]
    assert names[:5] == ["one.tif", *(f"one.tif#page={n}" for n in range(1, 5))]
    assert names[8:] == ["plain.png", "single.tif"]
    assert found.labels is not None
    assert found.labels.tolist() == [0] * 8 + [1] * 2
    for number in range(len(found)):
        source = found.open(number)
        assert (source.info.frames, source.info.further) == (1, 0)
        assert source.info.id == found.name(number)
        assert source.info.label == found.labels[number]
        if number < 5:
            np.testing.assert_array_equal(source.read([0])[0, ..., 0], truth[number])
    with pytest.raises(IndexError):
        found.open(len(found))


def test_pages_of_a_file_are_split_together(folder: Path) -> None:
    found = images(folder, "all")
    of = [Path(source).name for source in found.sources("sample")]
    assert of == ["one.tif"] * 5 + ["two.tiff"] * 3 + ["plain.png", "single.tif"]
    assert len(found) == 10  # as before
    table = folder / "list.csv"
    table.write_text("path,label,patient\na/one.tif,0,anna\nb/plain.png,1,bert\n")
    listed = images(table, "all")
    assert list(listed.sources("patient")) == ["anna"] * 5 + ["bert"]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_pages_are_the_frames_of_a_video(kind: str, tmp_path: Path) -> None:
    truth = stack(tmp_path / "set/one.tif", 6, kind=kind)
    stack(tmp_path / "set/two.tif", 1, kind=kind)
    found = images(tmp_path / "set", "clip")
    assert len(found) == 2
    source = found.open(0)
    info = source.info
    assert (info.frames, info.height, info.width, info.dtype) == (6, 8, 11, kind)
    assert info.further == 0
    for ids in ([0], [5, 0, 5], [2, 3, 4], range(6)):
        np.testing.assert_array_equal(source.read(list(ids))[..., 0], truth[list(ids)])
    assert found.open(1).info.frames == 1


def test_a_page_unlike_the_first_makes_no_frame(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    pages = [Image.new("L", (8, 8), 1), Image.new("L", (8, 8), 2), Image.new("L", (9, 8), 3)]
    pages[0].save(tmp_path / "set/a.tif", save_all=True, append_images=pages[1:])
    source = images(tmp_path / "set", "clip").open(0)
    assert source.read([1]).max() == 2
    with pytest.raises(DataError, match="page 2 is unlike the first one") as error:
        source.read([0, 2])
    assert error.value.hint == "pages: all makes each a sample"
    assert images(tmp_path / "set", "all").open(2).read([0]).shape == (1, 8, 9, 1)


def test_broken_files_count_as_one_and_are_bad_when_read(tmp_path: Path) -> None:
    stack(tmp_path / "good.tif", 3)
    whole = (tmp_path / "good.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:6])
    (tmp_path / "empty.tif").touch()
    (tmp_path / "gone.tif").symlink_to("nowhere")
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "far.tif").write_bytes(struct.pack("<4sI", b"II*\0", 1 << 31))
    found = images(tmp_path, "all")
    assert len(found) == 3 + 5
    for number in range(len(found)):
        if "good.tif" in found.name(number):
            assert found.open(number).read([0]).shape == (1, 8, 11, 1)
            continue
        with pytest.raises(DataError) as error:
            found.open(number).read([0])
        assert error.value.where == found.name(number)


def test_a_list_of_addresses_has_pages_too(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    truth = stack(tmp_path / "a.tif", 3)
    with fsspec.open("memory://stacks/a.tif", "wb") as file:
        file.write((tmp_path / "a.tif").read_bytes())
    (tmp_path / "list.txt").write_text("memory://stacks/a.tif\n")
    found = images(tmp_path / "list.txt", "all")
    assert len(found) == 3
    np.testing.assert_array_equal(found.open(2).read([0])[0, ..., 0], truth[2])
