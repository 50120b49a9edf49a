"""The film of a training's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import write_picture

from maekit.visualize.movies import LAST_MS, MOST_FRAMES, MOST_PIXELS, write_timelapse


def frames_of(path: Path) -> list[tuple[np.ndarray, int]]:
    """Pixels and milliseconds of each frame."""
    found = []
    with Image.open(path) as film:
        for index in range(film.n_frames):
            film.seek(index)
            found.append((np.asarray(film.convert("RGB")), film.info["duration"]))
    return found


def test_one_frame_a_step_in_order_the_last_held_longer(tmp_path: Path) -> None:
    for step in (200, 0, 100):
        write_picture(tmp_path, step)
    path = write_timelapse(tmp_path / "pictures")
    assert path == tmp_path / "pictures" / "timelapse.gif"
    frames = frames_of(path)
    reds = [int(pixels[40, 30, 0]) for pixels, _ in frames]
    assert len(reds) == 3
    assert reds == sorted(reds)
    assert abs(reds[-1] - 200) < 10
    assert [held for _, held in frames] == [200, 200, LAST_MS]
    assert write_timelapse(tmp_path / "pictures").read_bytes() == path.read_bytes()


def test_long_runs_and_large_pictures_are_bounded(tmp_path: Path) -> None:
    for step in range(55):
        write_picture(tmp_path, 4 * step, size=(1200, 900) if step == 54 else (60, 40))
    path = write_timelapse(tmp_path / "pictures")
    assert path is not None
    frames = frames_of(path)
    assert len(frames) <= MOST_FRAMES
    height, width, _ = frames[-1][0].shape
    assert width * height <= MOST_PIXELS * 1.1
    assert width / (height - 20) == 1200 / 900 or abs(width / (height - 20) - 4 / 3) < 0.01


def test_cut_and_foreign_files_are_left_out(tmp_path: Path) -> None:
    for step in (0, 10, 20):
        write_picture(tmp_path, step)
    pictures = tmp_path / "pictures"
    cut = pictures / "step-00000010.png"
    cut.write_bytes(cut.read_bytes()[:50])
    (pictures / "step-x.png").write_bytes(b"?")
    path = write_timelapse(pictures)
    assert path is not None
    assert len(frames_of(path)) == 2


def test_one_picture_is_no_film(tmp_path: Path) -> None:
    write_picture(tmp_path, 0)
    assert write_timelapse(tmp_path / "pictures") is None
    assert write_timelapse(tmp_path / "nowhere") is None


def test_a_picture_beyond_pillows_limit_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (0, 10):
        write_picture(tmp_path, step)
    write_picture(tmp_path, 20, size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    path = write_timelapse(tmp_path / "pictures")
    assert path is not None
    assert len(frames_of(path)) == 2
