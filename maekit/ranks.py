"""Which of several processes this one is, and the start of those of one machine; torch-free.

``maekit VERB … --devices N`` starts its own ranks. Under torchrun, srun or mpirun they are there
already, and nothing is started. torch's own launcher loses exit codes, starts a run again that
asked to be requeued, and leaves ranks behind on SIGUSR1; so this one is ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from maekit.errors import INTERRUPTED, RankError, RecipeError
from maekit.stop import watched

# What launchers call rank, number of ranks, and both of this machine; the first that is there.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),  # torchrun, and this module
    # Of the step that srun started; its job may have more tasks.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    (
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        *("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ),
)
_STEPS = 0xFFFFFFF0  # from here on SLURM numbers what is no step: batch scripts, salloc's shells
PARENT = "MAEKIT_STARTED_BY"  # the process whose end ends a rank
# The file in which its ranks find each other: a port that is free now may not be so when they have
# imported torch.
MEETING = "MAEKIT_MEETING"
# Errors that rank 0 met, and says: the others only leave with them.
HEARD: list[BaseException] = []
# Seconds that ranks get to notice that one of them is gone: a collective fails at once, but a
# checkpoint that is being written is finished first.
GRACE = 60.0


@dataclass(frozen=True)
class Place:
    """Where a process stands among the ranks of a run.

    Attributes:
        rank: from 0; rank 0 writes and speaks.
        size: number of ranks.
        local: the rank among those of this machine; it chooses the device.
        local_size: number of ranks on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1


def place_of(environment: Mapping[str, str]) -> Place:
    """Return what a launcher says; one process where there is none.

    Raises:
        RecipeError: it says nothing that fits together.
    """
    for names in _LAUNCHERS:
        if names[0] not in environment or names[1] not in environment:
            continue
        try:
            rank, size = int(environment[names[0]]), int(environment[names[1]])
            local = int(environment.get(names[2], "0"))
            local_size = _tasks_here(environment.get(names[3], "1"), environment)
        except ValueError:
            rank, size, local, local_size = -1, 0, 0, 0
        if not 0 <= rank < size or not local >= 0:
            said = ", ".join(f"{each}={environment.get(each)}" for each in names)
            raise RecipeError(
                f"these are no ranks: {said}", where="environment", hint="unset them, or use srun"
            )
        if _is_interactive(environment, names[0]):
            return Place()
        return Place(rank, size, local, max(local_size, local + 1))
    return Place()


def _tasks_here(text: str, environment: Mapping[str, str]) -> int:
    """Read a number of processes of this machine; SLURM writes 2(x3),1 for three nodes of two."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or "1")
    node = int(environment.get("SLURM_NODEID", "0")) if len(counts) > 1 else 0
    return counts[min(node, len(counts) - 1)]


def is_speaker() -> bool:
    """Return whether this process prints results: one of several ranks does."""
    return place_of(os.environ).rank == 0


def _is_interactive(environment: Mapping[str, str], name: str) -> bool:
    """Return whether SLURM's variables are those of a shell in an allocation, not of ``srun``.

    A batch script is no step, or one of a number that no step of srun has; so is the shell of
    ``salloc`` on a node. That of ``srun --pty bash`` is the first step of its job, by a terminal;
    what it starts by srun is a later one, though it inherits the terminal's port and the name.
    """
    if not name.startswith("SLURM"):
        return False
    step = environment.get("SLURM_STEP_ID", "")
    shell = environment.get("SLURM_JOB_NAME") in ("bash", "sh", "zsh")
    shell = shell and step == "0" and "SLURM_PTY_PORT" in environment
    return shell or not step.isdecimal() or int(step) >= _STEPS


def devices_of(requested: str | None, device: str | None) -> int:
    """Return how many ranks a command starts: as many as it says, by default one a GPU.

    Args:
        requested: ``--devices``: a number or ``all``.
        device: ``--device``: one that is named by its number is one.

    Raises:
        RecipeError: it is no number, or there are fewer GPUs.
    """
    if place_of(os.environ).size > 1 or PARENT in os.environ:
        return 1  # they were started already
    cuda = device in (None, "cuda")
    here = len(visible_gpus()) if cuda else 0
    if requested in (None, "all"):
        return max(1, here)
    if not requested.isdecimal() or int(requested) < 1:
        msg = f"'{requested}' is no number of devices"
        raise RecipeError(msg, where="--devices", hint="a number from 1, or all")
    number = int(requested)
    if cuda and here and number > here:
        msg = f"{number} devices requested, and {here} GPUs are visible"
        raise RecipeError(msg, where="--devices", hint=f"--devices {here}, or --device cpu")
    return number


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA would show, as CUDA_VISIBLE_DEVICES names them; torch-free."""
    there = [str(place) for place, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not there:
        return there
    return [each.strip() for each in visible.split(",") if each.strip() not in ("", "-1")]


def start(command: Sequence[str], devices: int) -> int:
    """Run a command once a device, and return the exit code of all.

    It is that of the rank that failed first, 0 if none did. Signals are passed on to every rank,
    each once. Where a rank ends with an error the others follow within ``GRACE`` seconds, or are
    ended; one that was interrupted waits for those that still save.

    Args:
        command: a program and its arguments; ``maekit`` finds in the environment which rank it is.
        devices: how many.

    Raises:
        RankError: a rank was killed (exit 8).
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // devices))}  # unless it is set
    started: list[subprocess.Popen[bytes]] = []
    signals: list[float] = []

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signals.append(time.monotonic())
        for rank in started:
            with suppress(ProcessLookupError):
                rank.send_signal(number)

    before = {number: signal.signal(number, forward) for number in watched()}
    meeting = tempfile.mkdtemp(prefix="maekit-")
    try:
        for rank in range(devices):
            own = {
                "RANK": str(rank),
                "WORLD_SIZE": str(devices),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(devices),
                PARENT: str(os.getpid()),
                MEETING: str(Path(meeting, "ranks")),
            }
            # A session of its own: a terminal's Ctrl-C comes once, through this process.
            environment = {**threads, **os.environ, **own}
            started.append(
                subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
            )
        return _wait(started, signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in started:
            if each.poll() is None:
                end_group(each)
                each.wait()
        shutil.rmtree(meeting, ignore_errors=True)


def _wait(started: Sequence[subprocess.Popen[bytes]], signals: Sequence[float]) -> int:
    """Wait for all ranks: GRACE seconds once one has failed, or a second signal has come."""
    failed: tuple[int, int] | None = None  # rank and exit code of the first
    until = float("inf")
    while True:
        running = [each for each in started if each.poll() is None]
        for rank, each in enumerate(started):
            if each.returncode and failed is None:
                failed = rank, each.returncode
            if each.returncode not in (None, 0, INTERRUPTED):
                until = min(until, time.monotonic() + GRACE)
        if not running:
            break
        if time.monotonic() > min([until, *(came + GRACE for came in signals[1:])]):
            for each in running:
                end_group(each)
                each.wait()
        time.sleep(0.02)
    if failed is None:
        return 0
    rank, code = failed
    if code < 0:
        what = f"rank {rank} was ended by {signal.Signals(-code).name}"
        hint = "out of memory? else look at the machine's log; then continue with --resume"
        raise RankError(what, where=f"device {rank}", hint=hint)
    return code


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process, and the loader's workers in its session, which it may have left."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def follow_parent(variable: str = PARENT) -> None:
    """Let this process get SIGTERM when the one that started it ends, where the system can (Linux).

    Args:
        variable: of the environment, which holds the starter's process id; unset: nobody's.
    """
    parent = os.environ.get(variable)
    if parent is None or not sys.platform.startswith("linux"):
        return
    import ctypes

    death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    with suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before that
        os.kill(os.getpid(), signal.SIGTERM)
