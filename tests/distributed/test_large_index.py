"""A list of millions of rows costs its memory once, whatever the number of ranks and workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import family, memory
from small_recipes import IMAGES, draw_smooth, write_recipe

from maekit.engine.run_folder import read_lines

ROOT = Path(__file__).resolve().parents[2]
MB = 2**20
PICTURES = 100
LONG = [pytest.mark.nightly, pytest.mark.timeout(3000)]
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="memory is found in /proc")


def write_list(folder: Path, rows: int) -> str:
    """Write rows of 41 bytes, over and over the same pictures."""
    path = folder / f"{rows}.txt"
    block = "".join(f"smooth/../smooth/../smooth/../smooth/{n:03d}.png\n" for n in range(PICTURES))
    with path.open("w") as file:
        for _ in range(rows // PICTURES):
            file.write(block)
    return path.name


def start(folder: Path, rows: int, ranks: int, workers: int) -> subprocess.Popen[str]:
    """Begin to train over a list that has no index yet."""
    listed = write_list(folder, rows)
    words = [f"data.train.path={listed}", f"data.workers={workers}", "pretrain.steps=100000"]
    words += ["--devices", str(ranks), "--device", "cpu", "--out", f"run-{rows}", "-q"]
    home = {"XDG_CACHE_HOME": str(folder / f"cache-{rows}"), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, "-m", "maekit", "pretrain", "own.yaml", *words],
        cwd=folder,
        env={**os.environ, **home, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def cost(folder: Path, rows: int, ranks: int, workers: int) -> tuple[int, int]:
    """Train over a list; return memory at its peak until the first steps, and after them."""
    process = start(folder, rows, ranks, workers)
    peak = 0
    metrics = folder / f"run-{rows}" / "metrics.jsonl"
    try:
        until = time.monotonic() + 1500
        while not metrics.is_file() or sum("loss" in line for line in read_lines(metrics)) < 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            peak = max(peak, memory(family(process.pid)))
            time.sleep(0.3)  # to ask is work for the machine
        after = memory(family(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=200)
    return peak, after


@pytest.mark.parametrize(
    ("rows", "ranks", "workers", "built", "kept"),
    [
        pytest.param(10**6, 2, 2, 250 * MB, 60 * MB, marks=pytest.mark.slow),
        pytest.param(10**7, 4, 4, 1500 * MB, 300 * MB, marks=LONG),
    ],
)
def test_many_rows_cost_their_memory_once(
    tmp_path: Path, rows: int, ranks: int, workers: int, built: int, kept: int
) -> None:
    draw_smooth(tmp_path / "smooth", PICTURES, seed=0)
    write_recipe(tmp_path / "own.yaml", IMAGES, without=("data.val",))
    few = cost(tmp_path, 1000, ranks, workers)
    many = cost(tmp_path, rows, ranks, workers)
    sizes = [(after - before) / MB for before, after in zip(few, many, strict=True)]
    assert sizes[0] < built / MB, sizes
    assert sizes[1] < kept / MB, sizes


def reads(processes: list[int], name: str) -> bool:
    """Tell whether one of some processes has a file open."""
    for each in processes:
        with contextlib.suppress(OSError):
            for opened in Path(f"/proc/{each}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if opened.readlink().name == name:
                        return True
    return False


@pytest.mark.slow
def test_ranks_leave_while_a_list_is_read(tmp_path: Path) -> None:
    """They leave together, before the list is read to its end: it has no index then."""
    draw_smooth(tmp_path / "smooth", PICTURES, seed=0)
    write_recipe(tmp_path / "own.yaml", IMAGES, without=("data.val",))
    rows = 2 * 10**6
    process = start(tmp_path, rows, 2, 0)
    until = time.monotonic() + 300
    while not reads(family(process.pid), f"{rows}.txt"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 75, said
    assert "Traceback" not in said
    assert not list((tmp_path / f"cache-{rows}").rglob("*.idx"))
