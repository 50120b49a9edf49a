"""``maekit pretrain`` on videos: hard ones, short ones, and what the log says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import av
import pytest
from small_recipes import VIDEOS, Recipe, write_noise, write_recipe

from maekit.datasets.videos import SUFFIXES
from maekit.engine.run_folder import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

CLIPS: Recipe = {
    "name": "clips",
    "data": {"train": {"path": "clips", "stride": 3}, "size": 32, "workers": 1},
    "pretrain": {"epochs": 1, "batch": {"global": 1}},
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return write_recipe(
        tmp_path / "clips.yaml", VIDEOS, CLIPS, without=("data.val", "pretrain.steps")
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_padding_and_the_missing_watch_are_said_once(cli: Cli, recipe: str, workers: int) -> None:
    for number, frames in enumerate((10, 10, 9, 7, 2)):
        write_noise(Path("clips") / f"{number}.mp4", frames)
    done = cli("pretrain", recipe, f"data.workers={workers}", "pretrain.epochs=2")
    assert done.code == 0, done.err
    log = Path("runs/clips/1/log.txt").read_text()
    for text in (log, done.err):
        assert text.count("is shorter than 4 frames at stride 3: such clips are padded") == 1
        assert text.count("data.workers is 0: nothing ends a read") == (workers == 0)
    named = next(line for line in log.splitlines() if "is shorter" in line)
    assert any(f"{number}.mp4 is" in named for number in (2, 3, 4))


def test_long_enough_videos_are_not_spoken_of(cli: Cli, recipe: str) -> None:
    for number in range(3):
        write_noise(Path("clips") / f"{number}.mp4", 12)
    assert "shorter" not in cli("pretrain", recipe).err


def test_hard_files_are_read_or_listed_once(cli: Cli, recipe: str, shared_data: Path) -> None:
    """Each file exactly once: what PyAV cannot decode is listed, everything else is trained on."""
    odd = shared_data / "odd"
    files = [
        path
        for path in odd.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(odd).parts)
    ]
    words = [f"data.train.path={odd}", "data.train.max_bad_fraction=1"]
    done = cli("pretrain", recipe, *words, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == len(files)
    listed = list(read_lines(Path("runs/clips/1/bad_files.jsonl")))
    assert all(line["reason"] for line in listed)
    names = [str(odd / line["file"]) for line in listed]
    assert sorted(names) == sorted(str(path) for path in files if not decodes(path))
    assert len(names) >= 5
    assert "Traceback" not in done.err


def decodes(path: Path) -> bool:
    """Whether a plain decode gives a first frame."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (av.FFmpegError, IndexError):
        return False
