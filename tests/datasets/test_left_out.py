"""What sets leave out of their folders, and what is taken without a suffix."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageOps

from maekit.data.batch import FURTHER
from maekit.data.pages import further_pictures
from maekit.data.sniff import content
from maekit.datasets.images import Images
from maekit.datasets.named_files import find_files
from maekit.datasets.videos import Videos
from maekit.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable


def draw(path: Path, form: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (200, 30, 90)).save(path, form)


def images(path: Path, **options: object) -> Images:
    return Images(Images.Options(path=str(path), **options))


def test_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    for name in ("x.cr2", "y.CR2", "sub/notes.txt", "README", "deep/er/data.csv", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("no picture")
    found = images(tmp_path)
    assert found.left_out == {
        ".cr2 files": 2, ".txt files": 1, "files without a suffix": 1, ".csv files": 1,
    }  # fmt: skip
    assert (len(found), found.notes) == (1, ())
    for number in range(30):
        (tmp_path / f"z.k{number}x").touch()
    assert sum(images(tmp_path).left_out.values()) == 5 + 30
    assert "files of other kinds" in images(tmp_path).left_out


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_pictures_without_a_suffix_are_taken_by_their_first_bytes(
    tmp_path: Path, form: str
) -> None:
    for name in ("IMG_0007", "shot.1", "photo.jpg?width=640", "www.example.com_9"):
        draw(tmp_path / name, form)
    draw(tmp_path / "b.png")
    (tmp_path / "LICENSE").write_text("BMW, II*, P6: words that begin as pictures do")
    found = images(tmp_path)
    assert len(found) == 5
    assert [found.open(index).info.height for index in range(5)] == [12] * 5
    assert found.left_out == {"files without a suffix": 1}
    taken = "4 files without a suffix (known by their first bytes), 1 .png file"
    assert found.notes == (taken,)


def test_arrays_and_videos_without_a_suffix(tmp_path: Path, video: Callable[..., Path]) -> None:
    with (tmp_path / "array").open("wb") as file:
        np.save(file, np.zeros((5, 4), np.uint8))
    draw(tmp_path / "picture")
    shutil.copy(video("x.mp4"), tmp_path / "clip")
    shutil.copy(video("x.mkv"), tmp_path / "other")
    assert [Path(images(tmp_path).name(i)).name for i in range(2)] == ["array", "picture"]
    assert images(tmp_path).open(0).info.height == 5
    videos = Videos(Videos.Options(path=tmp_path))
    assert [Path(videos.name(i)).name for i in range(len(videos))] == ["clip", "other"]
    assert videos.open(1).info.frames == 4
    assert videos.left_out == {"files without a suffix": 2}
    frames = Videos(Videos.Options(path=tmp_path, layout="frame-folders"))
    assert frames.open(0).info.frames == 2


@pytest.fixture
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a video of four frames."""
    import av

    def write(name: str) -> Path:
        path = tmp_path_factory.mktemp("video") / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=5)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for value in range(4):
                array = np.full((32, 32, 3), 40 * value, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            out.mux(stream.encode())
        return path

    return write


def test_a_stray_picture_unlabels_class_folders_and_is_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "owl/1.png"):
        draw(tmp_path / name)
    assert images(tmp_path).left_out == {}
    draw(tmp_path / "cover.png")
    found = images(tmp_path)
    assert found.classes is None
    wanted = "folders that would be classes, but for what lies beside them: cover.png"
    assert found.left_out == {wanted: 3}
    assert images(tmp_path, labels="none").left_out == {}


def test_nothing_found_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(bytes(257) + b"ustar" + bytes(300))
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(DataError, match=r"1 \.\w+ file, 1 \.\w+ file; .*is an? (HDF5|tar)"):
        images(tmp_path)
    with pytest.raises(RecipeError, match=r"at any depth \(in it: "):
        find_files([str(tmp_path)])
    gifs = tmp_path / "gifs"
    gifs.mkdir()
    frames = [Image.new("L", (8, 8), value) for value in (0, 90, 180)]
    frames[0].save(gifs / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"list\.txt") as error:
        Videos(Videos.Options(path=gifs))
    assert "set layout: frame-folders" not in str(error.value)
    (gifs / "list.txt").write_text("a.gif\n")  # what the hint says works
    assert Videos(Videos.Options(path=gifs / "list.txt")).open(0).info.frames == 3


def moving(form: str, count: int, **options: object) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (9, 7), (20 * n, 5, 250 - 20 * n)) for n in range(count)]
    frames[0].save(file, form, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_further_pages_and_frames_are_counted(tmp_path: Path, form: str, count: int) -> None:
    data = moving(form, count)
    assert further_pictures(data) == count - 1
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == count
    for cut in range(0, len(data), 7):  # a broken file is no reason to fail
        assert 0 <= further_pictures(data[:cut]) <= count - 1
    (tmp_path / "x").write_bytes(data)
    assert images(tmp_path).open(0).info.further == count - 1
    assert FURTHER.split()[0] == "further"


def test_overviews_and_masks_are_no_pages(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the extra maekit[tiff]")
    for big in (False, True):
        path = tmp_path / f"{big}.tif"
        with tifffile.TiffWriter(path, bigtiff=big) as out:
            out.write(np.zeros((32, 32), np.uint8))
            out.write(np.zeros((16, 16), np.uint8), subfiletype=1)
            out.write(np.zeros((32, 32), np.bool_), subfiletype=4, photometric="minisblack")
            out.write(np.zeros((32, 32), np.uint8))
        assert further_pictures(path.read_bytes()) == 1
    path.write_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")  # the next page is this one
    assert further_pictures(path.read_bytes()) == 0


def test_heic_is_read_upright(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra maekit[heif]")
    heif.register_heif_opener()
    corners = np.zeros((40, 64, 3), np.uint8)
    corners[:20, :32], corners[:20, 32:], corners[20:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        picture = Image.fromarray(corners)
        picture.save(tmp_path / "x.heic", exif=exif.tobytes(), quality=95)
        picture.save(tmp_path / "y.png", exif=exif)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "y.png")))
        dataset = images(tmp_path)
        for index in range(2):  # by its own boxes, and by EXIF
            source = dataset.open(index)
            shape = (source.info.height, source.info.width, 3)
            assert shape == upright.shape
            assert np.abs(source.read([0])[0].astype(int) - upright).mean() < 8, (turn, index)
    # EXIF alone turns nothing: of HEIF's two ways it is the one that does not count (ISO 23008-12).
    exif[0x0112] = 6
    picture.save(tmp_path / "x.heic", exif=exif)
    assert b"irot" not in (tmp_path / "x.heic").read_bytes()
    assert images(tmp_path).open(0).info.height == 40
    [named] = find_files([str(tmp_path / "x.heic")])
    assert named.kind == "image"


def test_without_the_extra_heic_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    (tmp_path / "a.HEIC").write_bytes(head)
    assert content(head).name == "a HEIC picture"
    with pytest.raises(DataError, match=r"pip install 'maekit\[heif\]'"):
        images(tmp_path).open(0)
