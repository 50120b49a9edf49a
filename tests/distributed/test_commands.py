"""``--devices``, torchrun and SLURM as they are typed, in real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import SHARED, family, nobody_is_left, orphans, shared_names
from small_recipes import IMAGES, Recipe, draw_smooth, sets, write_recipe

from maekit.engine.run_folder import read_lines
from maekit.weights.safetensors_io import read_tensors

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STEPS: Recipe = {
    "pretrain": {"steps": 4, "checkpoint": {"steps": 2}, "validate": {"every": 4, "samples": 4}}
}
LONG = ("pretrain.steps=100000", "data.workers=1")
OWN = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
MAEKIT = (sys.executable, "-m", "maekit")
TWO = ("--devices", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    draw_smooth(folder / "pictures/train", 20, seed=0)
    draw_smooth(folder / "pictures/val", 6, seed=1)
    write_recipe(folder / "own.yaml", IMAGES, sets(folder / "pictures"), STEPS)
    return folder


def start(folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **OWN, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_lines(run / "metrics.jsonl") if "loss" in line]


def wait_for(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    until = time.monotonic() + 200
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def ranks_of(run: Path, starter: int) -> list[int]:
    """Return the processes below a starter whose command line names a run's folder."""
    found = []
    for process in family(starter)[1:]:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(run.name) in words:
                found.append(process)
    return found


# What srun tells a task of a step, in the allocation of a salloc.
STEP = {
    "SLURM_JOB_ID": "41234",
    "SLURM_JOB_NAME": "interactive",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("torchrun", "srun"),
    [("ddp", "fsdp"), pytest.param("fsdp", "ddp", marks=pytest.mark.nightly)],
)
def test_one_command_torchrun_and_srun_give_the_same_run(
    folder: Path, torchrun: str, srun: str
) -> None:
    """Two ranks are the same bit for bit, whether each has all parameters or a share of them."""
    words = ("pretrain", "own.yaml", "--device", "cpu", "-q")
    by = "pretrain.sharding.name="
    names = (f"devices-{srun}", f"torchrun-{torchrun}", f"srun-{srun}")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    launched = ("--nproc-per-node", "2", "-m", "maekit", *words, by + torchrun, "--out", names[1])
    runs = [
        [start(folder, *MAEKIT, *words, "--devices", "2", "--out", names[0])],
        [start(folder, *launcher, *launched)],
        [
            start(
                folder,
                *MAEKIT,
                *(*words, by + srun, "--out", names[2]),
                **STEP,
                SLURM_PROCID=str(node),
                SLURM_NODEID=str(node),
            )
            for node in (0, 1)
        ],
    ]
    for processes in runs:
        for process in processes:
            output = process.communicate()
            assert process.returncode == 0, output
    first = read_tensors(folder / names[0] / "weights.safetensors")
    assert len(losses(folder / names[0])) == 4
    for name in names[1:]:
        assert losses(folder / name) == losses(folder / names[0])
        other = read_tensors(folder / name / "weights.safetensors")
        assert all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
@pytest.mark.parametrize("to", ["the starter", "one rank"])
def test_a_signal_ends_all_ranks_with_one_checkpoint(folder: Path, to: str) -> None:
    run = folder / f"stopped-{to[-4:]}"
    before = shared_names()
    process = start(folder, *MAEKIT, "pretrain", "own.yaml", *LONG, *TWO, "--out", run.name)
    wait_for(process, lambda: len(losses(run)) > 3)
    all_of_it = family(process.pid)
    ranks = ranks_of(run, process.pid)
    assert len(all_of_it) > 1 + 2 * len(ranks) == 5  # each rank has a loader's worker, at least
    os.kill(process.pid if to == "the starter" else max(ranks), signal.SIGTERM)
    output = process.communicate(timeout=200)
    assert process.returncode == 75, output
    assert "Traceback" not in output[1]
    steps = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    assert int(steps[-1].partition("-")[2]) == len(losses(run))
    nobody_is_left(all_of_it, before)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_a_killed_rank_ends_the_command(folder: Path) -> None:
    run = folder / "killed"
    before = shared_names()
    process = start(folder, *MAEKIT, "pretrain", "own.yaml", *LONG, *TWO, "--out", run.name)
    wait_for(process, lambda: len(losses(run)) > 3)
    all_of_it = family(process.pid)
    os.kill(max(ranks_of(run, process.pid)), signal.SIGKILL)
    output = process.communicate(timeout=200)
    assert process.returncode == 8, output
    assert "was ended by SIGKILL" in output[1]
    assert "a bug" not in output[1]
    nobody_is_left(all_of_it, before)
    words = ("pretrain", "own.yaml", *LONG, *TWO, "--out", run.name, "--resume")
    resumed = start(folder, *MAEKIT, *words)
    wait_for(resumed, lambda: len(losses(run)) > 8)
    resumed.send_signal(signal.SIGINT)
    output = resumed.communicate(timeout=200)
    assert resumed.returncode == 75, output


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared memory has names in /dev/shm")
def test_memory_that_is_left_would_be_seen() -> None:
    before = shared_names()
    name = f"maekit-left-{os.getpid()}"
    (SHARED / name).write_bytes(b"left")
    try:
        assert orphans(before) == {name}
        with (SHARED / name).open("rb"):
            assert orphans(before) == set()  # somebody has it
    finally:
        (SHARED / name).unlink()
    assert orphans(before) == set()
