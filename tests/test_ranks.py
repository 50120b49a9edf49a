"""The starter of ranks: exit codes, signals, and nobody left behind; no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from maekit import ranks
from maekit.errors import RankError, RecipeError
from maekit.ranks import Place, devices_of, place_of, start

PYTHON = (sys.executable, "-c")


def ends(*codes: int) -> list[str]:
    """Return a command whose rank r ends with the code r, after r fifths of a second."""
    text = f"import os, sys, time; r = int(os.environ['RANK']); time.sleep(r / 5); {list(codes)}"
    return [*PYTHON, f"{text}[r] and sys.exit({list(codes)}[r])"]


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0, 0), 0), ((0, 6, 75), 6), ((75, 75, 0), 75), ((0, 0, 3), 3)]
)
def test_the_code_is_that_of_the_first_failure(codes: tuple[int, ...], expected: int) -> None:
    assert start(ends(*codes), len(codes)) == expected


def test_ranks_know_their_place(tmp_path: Path) -> None:
    names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MAEKIT_MEETING"]
    text = (
        "import os, pathlib; pathlib.Path(os.environ['RANK']).write_text("
        f"' '.join(os.environ[each] for each in {names}))"
    )
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert start([*PYTHON, text], 2) == 0
    finally:
        os.chdir(before)
    found = [(tmp_path / str(rank)).read_text().split() for rank in (0, 1)]
    assert [each[:4] for each in found] == [["0", "2", "0", "2"], ["1", "2", "1", "2"]]
    assert found[0][4:] == found[1][4:]


def test_a_killed_rank_is_said_and_the_others_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE", 0.2)
    text = (
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(600)"
    )
    with pytest.raises(RankError, match="rank 1 was ended by SIGKILL"):
        start([*PYTHON, text], 3)


def test_a_signal_reaches_every_rank_once(tmp_path: Path) -> None:
    text = (
        "import os, pathlib, signal, sys, time\n"
        f"place = pathlib.Path({str(tmp_path)!r}, os.environ['RANK'])\n"
        "got = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: got.append(1))\n"
        "place.touch()\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "place.write_text(str(len(got)))\n"
        "sys.exit(75)"
    )

    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    assert start([*PYTHON, text], 2) == 75
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["1", "1"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="death signals are Linux's")
def test_ranks_die_with_their_starter(tmp_path: Path) -> None:
    rank = (
        "import os, pathlib, time; from maekit.ranks import follow_parent; follow_parent();"
        f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(600)"
    )
    text = f"import sys; from maekit.ranks import start; start([sys.executable, '-c', {rank!r}], 2)"
    with subprocess.Popen([*PYTHON, text]) as starter:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        starter.kill()
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 2
    while any(_lives(each) for each in started):
        assert time.monotonic() < until
        time.sleep(0.02)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whoever adopts it may not have looked yet


OF_SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "2"}
BASH = {"SLURM_JOB_NAME": "bash"}
OF_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}
LOCAL_MPI = {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
OF_TORCH = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place()),
        (OF_TORCH, Place(3, 8, 1, 2)),
        ({**OF_SLURM, "SLURM_NTASKS_PER_NODE": "3", "SLURM_STEP_ID": "0"}, Place(5, 6, 2, 3)),
        # A shell in an allocation, and a batch script: nothing was started by srun.
        ({**OF_SLURM, **BASH, "SLURM_STEP_ID": "0", "SLURM_PTY_PORT": "34889"}, Place()),
        # What such a shell starts by srun, and what the one of `salloc bash` does.
        ({**OF_SLURM, **BASH, "SLURM_STEP_ID": "1", "SLURM_PTY_PORT": "34889"}, Place(5, 6, 2, 3)),
        ({**OF_SLURM, **BASH, "SLURM_STEP_ID": "0"}, Place(5, 6, 2, 3)),
        (OF_SLURM, Place()),
        # The shell that salloc starts on a node, and a batch script, have numbers of their own.
        ({**OF_SLURM, "SLURM_JOB_NAME": "interactive", "SLURM_STEP_ID": "4294967290"}, Place()),
        ({**OF_SLURM, "SLURM_STEP_ID": "4294967291"}, Place()),
        # srun within salloc: a step of fewer tasks than the job has, on three nodes.
        (
            {
                **OF_SLURM,
                "SLURM_JOB_NAME": "interactive",
                "SLURM_NTASKS": "48",
                "SLURM_STEP_ID": "3",
                "SLURM_STEP_NUM_TASKS": "7",
                "SLURM_STEP_TASKS_PER_NODE": "3(x2),1",
                "SLURM_NODEID": "1",
            },
            Place(5, 7, 2, 3),
        ),
        (
            {**OF_SLURM, "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
            Place(0, 1, 2, 3),
        ),
        (OF_MPI | LOCAL_MPI, Place(1, 4, 1, 4)),
    ],
)
def test_launchers_are_known(environment: dict[str, str], expected: Place) -> None:
    assert place_of(environment) == expected


@pytest.mark.parametrize(
    "environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}]
)
def test_ranks_that_make_no_sense_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="RANK="):
        place_of(environment)


def test_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "visible_gpus", lambda: ["0", "1", "2", "3"])
    assert devices_of(None, None) == 4
    assert devices_of("all", "cuda") == 4
    assert devices_of(None, "cpu") == devices_of(None, "cuda:2") == 1
    assert devices_of("3", "cpu") == 3
    with pytest.raises(RecipeError, match="4 GPUs"):
        devices_of("5", None)
    for wrong in ("0", "-1", "two"):
        with pytest.raises(RecipeError, match="no number of devices"):
            devices_of(wrong, "cpu")
    monkeypatch.setenv(ranks.PARENT, "1")  # a rank starts no further ones
    assert devices_of("3", "cpu") == 1


@pytest.mark.parametrize(("there", "taken"), [(4, 3), (1, 0)])
def test_a_rank_takes_its_own_device(
    monkeypatch: pytest.MonkeyPatch, there: int, taken: int
) -> None:
    torch = pytest.importorskip("torch")
    from maekit.engine.precision import pick_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert pick_device(None) == pick_device("cuda") == torch.device("cuda", taken)


def test_threads_are_shared_out_unless_they_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import os, pathlib; pathlib.Path("
        f"{str(tmp_path)!r}, os.environ['RANK']).write_text(os.environ['OMP_NUM_THREADS'])"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert start([*PYTHON, text], 2) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["7", "7"]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert start([*PYTHON, text], 2) == 0
    assert int((tmp_path / "0").read_text()) >= 1


def test_an_interrupted_rank_waits_for_one_that_still_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks, "GRACE", 0.05)
    assert (
        start(ends(75, 75, 75, 75), 4) == 75
    )  # the last one leaves after three fifths of a second
