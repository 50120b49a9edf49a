"""``maekit predict`` where it takes long: killed and started again, and films of an hour."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from PIL import Image
from small_recipes import IMAGES, VIDEOS, draw_sides, laid_over, sets, write_noise

import maekit

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow  # each starts processes that import torch
SHARD = 16  # files that are kept together; 4,096 as it is shipped
# The command, with shards so small that a few files have several; says what memory it took.
COMMAND = """
import resource, sys
from maekit.cli.app import main
from maekit.evaluate import predict
predict.SHARD_SIZE = {size}
for words in {calls}:
    try:
        main(words)
    except SystemExit as ended:
        print("ENDED", ended.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def started(folder: Path, calls: Sequence[Sequence[str]], size: int) -> subprocess.Popen[str]:
    code = COMMAND.format(size=size, calls=[list(words) for words in calls])
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Return the exit code of each call, and KB of memory that were taken until its end."""
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    rows = [line.split() for line in out.splitlines() if line.startswith("ENDED")]
    return [(int(code), int(peak)) for _, code, peak in rows]


@pytest.mark.parametrize(
    ("files", "size"),
    [(200, SHARD), pytest.param(5000, 512, marks=pytest.mark.nightly)],
)
def test_killed_twice_it_goes_on_to_the_same_bytes(tmp_path: Path, files: int, size: int) -> None:
    draw_sides(tmp_path / "pictures/train", 16, seed=0)
    draw_sides(tmp_path / "many", files, seed=1)
    (tmp_path / "many/l/000.png").write_bytes(b"no picture")
    recipe = laid_over(
        IMAGES, sets(tmp_path / "pictures/train", tmp_path / "pictures/train"),
        {"finetune": {"steps": 4, "batch": {"global": 8}}}, without=("pretrain",),
    )  # fmt: skip
    maekit.run(recipe, "finetune", source="scratch", out=tmp_path / "run", device="cpu")
    words = ["predict", "many", "--from", "run", "--device", "cpu", "--workers", "0", "-q"]
    cut = started(tmp_path, [[*words, "--out", "cut.csv"]], size)
    kept = tmp_path / "cut.csv.parts"
    for shards in (2, 5):
        wait_for(cut, kept, shards)
        cut.kill()
        assert cut.wait() == -9
        cut.communicate()
        made = len(list(kept.glob("*.npz")))
        assert shards <= made < -(-files // size)
        assert not (tmp_path / "cut.csv").exists()
        before = {path: path.stat().st_mtime_ns for path in kept.glob("*.npz")}
        cut = started(
            tmp_path, [[*words, "--out", "cut.csv"], [*words, "--out", "whole.csv"]], size
        )
        wait_for(cut, kept, made + 1)
        after = {path: path.stat().st_mtime_ns for path in before if path.exists()}
        assert after.items() <= before.items()  # what was done is not done again
    assert [code for code, _ in ended(cut)] == [6, 6]
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with (tmp_path / "whole.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == files
    assert [row["input"] for row in rows if row["error"]] == ["many/l/000.png"]
    assert not kept.exists()


def wait_for(process: subprocess.Popen[str], kept: Path, shards: int) -> None:
    """Wait until so many shards are there, or the command has ended."""
    until = time.monotonic() + 500
    while len(list(kept.glob("*.npz"))) < shards:
        assert time.monotonic() < until
        if process.poll() is not None:
            return
        time.sleep(0.002)


def write_film(path: Path, seconds: int) -> None:
    """Encode a film of 160 x 120 pixels, 2 frames a second, that gets brighter as it goes on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.thread_count = 1
        pixels = np.zeros((120, 160, 3), np.uint8)
        for number in range(2 * seconds):
            pixels[:] = 255 * number // (2 * seconds)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def test_an_hour_of_film_takes_no_more_memory_than_two_minutes(tmp_path: Path) -> None:
    """By windows, in order, each as bright as its minute; a film of 3 frames and a bad one too."""
    for name in "ab":
        write_noise(tmp_path / f"clips/{name}/0.mp4", 12)
    recipe = laid_over(
        VIDEOS, {"data": {"train": {"path": str(tmp_path / "clips")},
                          "val": {"path": str(tmp_path / "clips"), "frames": 4}},
                 "finetune": {"steps": 2, "batch": {"global": 2}}},
        without=("pretrain",),
    )  # fmt: skip
    maekit.run(recipe, "finetune", source="scratch", out=tmp_path / "run", device="cpu")
    write_film(tmp_path / "short.mp4", 120)
    write_film(tmp_path / "hour.mp4", 3600)
    write_noise(tmp_path / "three.mp4", 3)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    Image.new("RGB", (40, 30)).save(tmp_path / "still.png")
    words = ["--from", "run", "--every", "10s", "--device", "cpu", "--workers", "0", "-q"]
    odd = ["three.mp4", "bad.mp4", "still.png"]
    calls = [
        ["predict", "short.mp4", *words, "--out", "short.json"],
        ["predict", "hour.mp4", *odd, *words, "--out", "hour.json"],
    ]
    (first, short), (second, hour) = ended(started(tmp_path, calls, 4096))
    assert (first, second) == (0, 6)
    # The frames of the hour are 415 MB, of which 402 MB are beyond the two minutes.
    assert hour - short < 100_000, (short, hour)  # KB
    rows = json.loads((tmp_path / "hour.json").read_text())
    windows = [row for row in rows if row["input"] == "hour.mp4"]
    assert [row["start"] for row in windows] == [10.0 * number for number in range(360)]
    assert windows[-1]["stop"] == 3600.0
    assert [row["stop"] for row in windows[:-1]] == [row["start"] for row in windows[1:]]
    others = {row["input"]: row for row in rows if row["input"] != "hour.mp4"}
    assert list(others) == odd
    assert (others["three.mp4"]["start"], others["three.mp4"]["stop"]) == (0.0, 0.3)
    assert others["three.mp4"]["probability"] > 0
    assert others["bad.mp4"]["error"]
    assert (others["still.png"]["start"], others["still.png"]["error"]) == (None, None)
    assert {row["class"] for row in windows} <= {"a", "b"}
    assert len({row["probability"] for row in windows}) > 20  # the film changes, and so do they
