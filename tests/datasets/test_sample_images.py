"""Sample pictures: drawn once, the same for the same options, and safe to interrupt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from maekit.datasets import sample_images
from maekit.datasets.drawing.scenes import KINDS
from maekit.datasets.sample_images import SampleImages
from maekit.errors import DataError, StorageError

COUNT = len(KINDS) + 2


def build(cache: Path, **options: object) -> SampleImages:
    return SampleImages(SampleImages.Options(cache=str(cache), count=COUNT, size=32, **options))


def files(cache: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


def test_pictures_are_read_with_the_label_of_their_folder(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    assert len(dataset) == COUNT
    assert list(dataset.classes or ()) == sorted(KINDS)
    for index in range(COUNT):
        source = dataset.open(index)
        assert source.read([0]).shape == (1, 32, 32, 3)
        assert source.read([0]).dtype == np.uint8
        assert source.info.label is not None
        assert sorted(KINDS)[source.info.label] == Path(dataset.name(index)).parent.name


def test_labels_are_even(tmp_path: Path) -> None:
    dataset = build(tmp_path)
    counts = np.bincount([dataset.open(index).info.label or 0 for index in range(COUNT)])
    assert counts.max() - counts.min() == 1


def test_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "one")
    build(tmp_path / "two")
    first, second = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(first) == COUNT
    assert first == second


@pytest.mark.parametrize("change", [{"split": "val"}, {"seed": 1}])
def test_other_options_give_other_pictures(tmp_path: Path, change: dict[str, object]) -> None:
    build(tmp_path / "one")
    build(tmp_path / "two", **change)
    assert not set(files(tmp_path / "one").values()) & set(files(tmp_path / "two").values())


def test_pictures_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    monkeypatch.setattr(sample_images, "draw", None)  # a second drawing would call it
    assert len(build(tmp_path)) == COUNT


def test_an_interrupted_drawing_leaves_nothing_and_is_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, drawn = sample_images.draw, []

    def interrupted(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
        drawn.append(kind)
        if len(drawn) == COUNT // 2:
            raise KeyboardInterrupt
        return real(kind, size, rng)

    monkeypatch.setattr(sample_images, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert files(tmp_path) == {}
    assert len(build(tmp_path)) == COUNT


def test_leftovers_of_a_killed_drawing_are_removed_once_old(tmp_path: Path) -> None:
    folder = Path(build(tmp_path).name(0)).parents[1]
    old, young = folder.with_name(".partial-train-dead"), folder.with_name(".partial-train-busy")
    for draft in (old, young):
        (draft / "ball").mkdir(parents=True)
    os.utime(old, (1, 1))
    folder.rename(tmp_path / "elsewhere")
    build(tmp_path)
    assert not old.exists()
    assert young.exists()


def test_the_first_of_two_drawings_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sample_images.draw
    ready = build(tmp_path / "ready")
    finished = Path(ready.name(0)).parents[1]
    place = tmp_path / "raced" / finished.relative_to(tmp_path / "ready")

    def overtaken(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
        if finished.exists():
            finished.rename(place)
        return real(kind, size, rng)

    monkeypatch.setattr(sample_images, "draw", overtaken)
    assert len(build(tmp_path / "raced")) == COUNT
    assert [path.name for path in place.parent.iterdir()] == ["train"]


def test_two_processes_at_once_both_succeed(tmp_path: Path) -> None:
    script = (
        "from maekit.datasets.sample_images import SampleImages as S\n"
        f"print(len(S(S.Options(cache={str(tmp_path)!r}, count={COUNT}, size=32))))"
    )
    command = [sys.executable, "-c", script]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=300)[0].strip() for process in running] == [str(COUNT)] * 2
    assert len(files(tmp_path)) == COUNT


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file") as caught:
        build(tmp_path / "file" / "cache")
    assert "XDG_CACHE_HOME" in str(caught.value)
    assert "`cache`" in str(caught.value)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    Path(build(tmp_path).name(3)).unlink()
    with pytest.raises(DataError, match=f"{COUNT - 1} samples in the pictures") as caught:
        build(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "delete this folder" in str(caught.value)


@pytest.mark.parametrize("relative", [False, True])
def test_the_cache_folder_follows_xdg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg" if relative else str(tmp_path / "xdg"))
    dataset = SampleImages(SampleImages.Options(count=COUNT, size=32))
    base = tmp_path / ("home/.cache" if relative else "xdg")
    assert Path(dataset.name(0)).is_relative_to(base / "maekit" / "sample-images")


def test_every_class_needs_a_picture() -> None:
    with pytest.raises(ValidationError, match="count"):
        SampleImages.Options(count=len(KINDS) - 1)


def test_drawing_needs_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from maekit.datasets.sample_images import SampleImages as S\n"
        f"S(S.Options(cache={str(tmp_path)!r}, count={COUNT}, size=32))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
