"""A data set in another's place is noticed, whatever about it differs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from maekit.data.identity import differences, identify
from maekit.datasets.images import Images


def made(folder: Path, names: tuple[str, ...] = ("a/1.png", "a/2.png", "b/3.png")) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return folder


def opened(folder: Path) -> Images:
    return Images(Images.Options(path=folder))


def test_the_same_files_written_again_are_the_same(tmp_path: Path) -> None:
    before = identify(opened(made(tmp_path)))
    for path in tmp_path.rglob("*.png"):
        os.utime(path, (0, 0))
    assert differences(before, identify(opened(tmp_path))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "a/1.png").rename(folder / "a/9.png"), "names or their order"),
        (lambda folder: (folder / "a/1.png").unlink(), "3 samples before, 2 now"),
        (lambda folder: (folder / "a").rename(folder / "z"), "classes gone: a; new: z"),
        (lambda folder: (folder / "a/1.png").rename(folder / "b/0.png"), "labels differ"),
        (lambda folder: (folder / "b/3.png").write_bytes(b"x" * 5000), "another size"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, change: object, said: str) -> None:
    before = identify(opened(made(tmp_path)))
    change(tmp_path)  # type: ignore[operator]
    found = differences(before, identify(opened(tmp_path)))
    assert any(said in each for each in found), found


def test_names_that_are_no_text_count_too(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "a/1.png").rename(tmp_path / "a" / os.fsdecode(b"\xff.png"))
    identity = identify(opened(tmp_path))
    assert identity.model_validate_json(identity.model_dump_json()) == identity
