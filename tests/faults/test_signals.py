"""Signals are heard within seconds wherever a run is, and a reader that is gone ends nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_recipes import IMAGES, Recipe, draw_tints, sets, write_recipe

pytestmark = pytest.mark.slow
# Every sample takes a fifth of a second to read: whole passes take longer than anyone waits.
SLOW = """
import sys, time
from maekit.data.reader import SampleReader
real = SampleReader.read
def read(self, key):
    time.sleep(0.2)
    return real(self, key)
SampleReader.read = read
from maekit.__main__ import main
main()
"""
SOON = 12.0  # seconds: two, and what a busy machine takes to leave
SMALL: Recipe = {
    "pretrain": {"steps": 2, "batch": {"global": 4}, "validate": {"every": 1, "samples": 60}},
    "finetune": {
        "steps": 2,
        "batch": {"global": 4},
        "warmup": {"steps": 1},
        "validate": {"every": 100},
    },
    "probe": {"kind": "knn", "protocol": "cached", "pixels": 8, "knn": {"k": 5}},
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    draw_tints(tmp_path / "pictures/train", 20, seed=0)
    draw_tints(tmp_path / "pictures/val", 20, seed=1)
    return write_recipe(tmp_path / "slow.yaml", IMAGES, sets(tmp_path / "pictures"), SMALL)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, *words, "--out", "run"]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_for(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    until = time.monotonic() + 200
    while not there():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def leaves(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal; the process leaves soon, with the code of an interruption."""
    began = time.monotonic()
    process.send_signal(number)
    error = process.communicate(timeout=200)[1]
    assert process.returncode == 75, error
    assert time.monotonic() - began < SOON
    assert "Traceback" not in error
    return error


def resumes(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maekit", *words, "--out", "run", "--resume", "-q"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def has(path: Path, text: str) -> Callable[[], bool]:
    return lambda: path.is_file() and text in path.read_text()


SCRATCH = ("--from", "scratch")
# What a run does when the signal comes: its words, a file, and what stands in it by then.
PLACES = {
    "statistics": (("pretrain", "data.stats=auto"), "lock", "pid"),
    "held-out reading": (("pretrain",), "log.txt", "steps ("),
    "validation": (("pretrain",), "metrics.jsonl", '"loss"'),
    "the last test": (("finetune", *SCRATCH), "metrics.jsonl", '"step": 2'),
    "cached features": (("probe", *SCRATCH), "log.txt", "run folder"),
}


SAMPLE = {("the last test", signal.SIGTERM), ("cached features", signal.SIGHUP)}
NIGHTLY = pytest.mark.nightly
CASES = [
    pytest.param(place, number, marks=() if (place, number) in SAMPLE else NIGHTLY)
    for place in PLACES
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
]


@pytest.mark.parametrize(("place", "number"), CASES)
def test_a_signal_is_heard_and_the_run_goes_on(
    tmp_path: Path, recipe: str, place: str, number: int
) -> None:
    (verb, *words), file, text = PLACES[place]
    process = start(tmp_path, verb, recipe, *words)
    wait_for(process, has(tmp_path / "run" / file, text))
    leaves(process, number)
    resumes(tmp_path, verb, recipe, *words)


def test_interrupting_twice_at_the_start_prints_no_traceback(tmp_path: Path, recipe: str) -> None:
    # From where maekit's own code begins: before it, Python prints its own.
    begin = "from maekit.__main__ import main; print(flush=True); main()"
    for seconds in (0.02, 0.5, 1.5):
        words = ["pretrain", recipe, "--out", f"run-{seconds}"]
        with subprocess.Popen(
            [sys.executable, "-c", begin, *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seconds)
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            error = process.communicate()[1]
        assert process.returncode in {-signal.SIGINT, 75, 130}, error
        assert "Traceback" not in error


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>&1 >/dev/null | true"])
def test_closed_streams_end_nothing(tmp_path: Path, recipe: str, closed: str) -> None:
    words = f"-m maekit pretrain {recipe} '~pretrain.validate' --out run"
    line = f"set -o pipefail; {sys.executable} {words} {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "run/weights.safetensors").is_file()
