"""Folders of pictures as videos."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from video_sets import frames_of, labels_of, listed, videos

from maekit.datasets.videos import Videos
from maekit.errors import DataError
from maekit.testing import check_dataset

# A process of its own, which tests/contracts starts once for all sets.
IN_A_WORKER = {"reads_the_same_in_a_worker_without_torch"}


def draw_frames(folder: Path, numbers: range, form: str = "img_{:05d}.png") -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (6, 4), (number, 0, 255 - number)).save(folder / form.format(number))


def test_a_folder_of_pictures_is_a_video(tmp_path: Path) -> None:
    draw_frames(tmp_path / "run" / "one", range(1, 13), "{}.png")
    draw_frames(tmp_path / "jump" / "two.mp4", range(5, 9))
    (tmp_path / "run" / "one" / "._1.png").write_bytes(b"x")
    dataset = videos(tmp_path, layout="frame-folders")
    assert dataset.classes == ("jump", "run")
    assert frames_of(dataset) == [4, 12]
    source = dataset.open(1)
    assert source.read([0, 9, 11, 9])[:, 0, 0, 0].tolist() == [1, 10, 12, 10]
    assert (source.info.height, source.info.width, source.info.fps, source.info.dtype) == (
        4,
        6,
        None,
        "uint8",
    )
    check_dataset(Videos, {"path": tmp_path, "layout": "frame-folders"}, without=IN_A_WORKER)
    with pytest.raises(DataError, match="no folder with pictures"):
        videos(_empty(tmp_path), layout="frame-folders")


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_lists_of_frame_folders(tmp_path: Path) -> None:
    draw_frames(tmp_path / "my clips" / "v 1", range(1, 13))
    draw_frames(tmp_path / "v2", range(30, 40))
    dataset = listed(tmp_path, '"my clips/v 1" 8 1\nv2 10 0\n')
    assert (frames_of(dataset), labels_of(dataset)) == ([8, 10], [1, 0])
    numbered = listed(tmp_path, '"my clips/v 1" 3 8 1\nv2 32 -1 0\n')
    assert (frames_of(numbered), labels_of(numbered)) == ([8, 10], [1, 0])
    assert numbered.open(0).read([0, 7])[:, 0, 0, 0].tolist() == [3, 10]
    unlabeled = listed(tmp_path, '"my clips/v 1" 1 5\nv2 0 -1\n')
    assert (frames_of(unlabeled), labels_of(unlabeled)) == ([5, 10], [None, None])
    for text, reason in {
        "v2 20 0": "asks for 20 frames; the video has 10",
        "v2 29 5 0": "no picture with the number 29; the first one is img_00030",
        "v2 38 5 0": "does not hold the pictures 38 to 42 without a gap",
        f"v2 38 {10**15} 0": "frames are more than any video has",
    }.items():
        with pytest.raises(DataError, match=reason):
            listed(tmp_path, text).open(0)
    with pytest.raises(DataError, match="mean nothing"):
        listed(tmp_path, "path,start,end\nv2,0,1\n").open(0)


def test_frames_unlike_the_first_are_bad(tmp_path: Path) -> None:
    draw_frames(tmp_path / "v", range(3))
    Image.new("L", (6, 4)).save(tmp_path / "v" / "img_00001.png")
    (tmp_path / "v" / "img_00002.png").write_bytes(b"broken")
    source = listed(tmp_path, "v\n").open(0)
    assert source.read([0]).shape == (1, 4, 6, 3)
    with pytest.raises(DataError, match=r"img_00001\.png is unlike img_00000\.png"):
        source.read([0, 1])
    with pytest.raises(DataError, match=r"img_00002\.png"):
        source.read([2])


def test_nothing_there_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist(.|\n)*path/<class>"):
        videos(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no videos in .*\.webm"):
        videos(_empty(tmp_path))
    draw_frames(tmp_path / "v", range(3))
    with pytest.raises(DataError, match=r"layout: frame-folders"):
        videos(tmp_path)
    with pytest.raises(DataError, match="no rows"):
        listed(tmp_path, "\n")
    with pytest.raises(DataError, match="labels: folder is for folders"):
        listed(tmp_path, "a.mp4\n", labels="folder")
