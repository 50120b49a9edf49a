"""Windows along videos: where they begin, what they show, and that nothing is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_recipes import write_clip

from maekit.data.video import open_video
from maekit.datasets.named_files import find_files
from maekit.datasets.named_windows import Cutting, NamedWindows, windows_of
from maekit.errors import DataError


def counting(path: Path, frames: int) -> str:
    """Write a clip at 10 frames a second whose brightness is the number of the frame."""
    shades = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 12
    write_clip(path, np.broadcast_to(shades, (frames, 32, 32, 3)))
    return str(path)


def cut(path: str, every: float, length: float | None = None, span: int = 4) -> NamedWindows:
    cutting = Cutting(every, length, lambda _: span)
    return NamedWindows(list(windows_of(find_files([path]), cutting)))


@pytest.mark.parametrize(
    ("frames", "every", "length", "span", "expected"),
    [
        (20, 0.5, None, 4, [(0, 5), (5, 10), (10, 15), (15, 20)]),
        (20, 1.0, 0.5, 4, [(0, 5), (10, 15)]),
        (12, 0.5, None, 4, [(0, 5), (5, 10), (8, 12)]),  # the last one has a whole clip, too
        (20, 0.5, None, 8, [(0, 8), (5, 13), (10, 18), (12, 20)]),  # a clip is longer than that
        (3, 0.5, None, 4, [(0, 3)]),
        (1, 0.5, None, 4, [(0, 1)]),
    ],
)
def test_windows_of_a_video(
    frames: int, every: float, length: float | None, span: int,
    expected: list[tuple[int, int]], tmp_path: Path,
) -> None:  # fmt: skip
    path = counting(tmp_path / "a.mp4", frames)
    found = cut(path, every, length, span)
    rate = 10.0
    assert [
        (each.frames.start, each.frames.stop) for each in found.items if each.frames
    ] == expected
    for index, (first, stop) in enumerate(expected):
        item = found.items[index]
        assert item.start == pytest.approx(first / rate, abs=1e-3)
        if frames > 1:  # one frame does not tell how long it is shown
            assert item.stop == pytest.approx(stop / rate, abs=1e-3)
        source = found.open(index)
        assert source.info.frames == stop - first
        shown = source.read(range(stop - first)).mean(axis=(1, 2, 3)) / 12
        assert np.abs(shown - np.arange(first, stop)).max() < 0.5  # in steps of 12 shades


def test_times_are_made_once(tmp_path: Path) -> None:
    path = counting(tmp_path / "a.mp4", 20)
    video = open_video(path, "a")
    assert video.seconds is video.seconds


def test_pictures_and_what_cannot_be_read_are_one_row_each(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes(b"none")
    Image.new("RGB", (8, 8)).save(tmp_path / "c", "PNG")  # without a suffix
    found = cut(str(tmp_path), 1.0)
    assert [each.frames for each in found.items] == [None] * 3
    found.open(0)
    found.open(2)
    with pytest.raises(DataError):
        found.open(1)
    plain = list(windows_of(find_files([str(tmp_path)]), None))
    assert [each.file.name for each in plain] == [each.file.name for each in found.items]
