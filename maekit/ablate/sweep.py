"""Run the jobs of a plan: each an ordinary command in a process and a run folder of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from maekit.ablate.child import PARENT
from maekit.ablate.plan import Job, Plan
from maekit.atomic import write_text
from maekit.engine.events import Emit, Note
from maekit.engine.extension import EXTENDED
from maekit.engine.lock import LOCK, in_use
from maekit.engine.reporters import duration
from maekit.errors import INTERRUPTED
from maekit.ranks import cores, end_group, visible_gpus
from maekit.runs import read_result

if TYPE_CHECKING:
    from maekit.stop import StopSignal

MAEKIT = (sys.executable, "-m", "maekit.ablate.child")  # what runs a job's words
LOGS = "logs"  # folder below the sweep's: what each job printed
POLL = 0.1  # seconds between two looks at the running jobs
PATIENCE = 5.0  # seconds that a job has to leave after a second signal
SAYS_AGAIN = 30.0  # seconds between two words about a folder that is waited for
KILLED = 128  # the exit code of a process that a signal ended is this and its number


@dataclass(frozen=True)
class Failure:
    """Why a job did not end well.

    Attributes:
        code: its exit code; that of the job it needs, where that one failed.
        reason: its own words.
    """

    code: int
    reason: str


@dataclass(frozen=True)
class Slot:
    """A place where one job runs at a time.

    Attributes:
        threads: that it computes with.
        device: what CUDA_VISIBLE_DEVICES says there; None: nothing is said.
    """

    threads: int
    device: str | None = None


def slots(jobs: int, devices: Sequence[str]) -> list[Slot]:
    """Share the cores of this machine, and its devices, among so many jobs."""
    threads = max(1, cores() // max(1, jobs))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        threads = min(threads, int(asked))
    return [
        Slot(threads, devices[place % len(devices)] if devices else None) for place in range(jobs)
    ]


def visible_devices(device: str | None) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES is to say for each device; empty where there is none.

    Args:
        device: as ``--device`` names it; one that is named is everybody's.
    """
    return visible_gpus() if device is None else []


def words_for(job: Job, plan: Plan, folder: Path, device: str | None = None) -> list[str]:
    """Return the command of a job, without ``maekit``."""
    words = [job.verb, str(folder / job.recipe), *job.words]
    if job.codes is not None:
        words.append(f"pretrain.target.weights={folder / plan.jobs[job.codes].folder}")
    if job.verb == "probe":
        words += ["--kind", str(job.judge)]
    words += ["--seed", str(job.seed)]
    source = job.source if job.after is None else str(folder / plan.jobs[job.after].folder)
    if source is not None:
        words += ["--from", source]
    if device is not None:
        words += ["--device", device]
    return [*words, "--out", str(folder / job.folder), "--resume"]


def command_lines(plan: Plan, folder: Path, device: str | None = None) -> list[list[str]]:
    """Return one command for each row and seed, in stages; all of a stage can run at once.

    Runs that several rows share are in stages of their own, before.
    """
    shared = plan.shared
    stages: list[list[str]] = []
    depths: dict[str, int] = {}
    for key, job in plan.jobs.items():
        if key in shared:
            depths[key] = max((depths[need] + 1 for need in job.needs), default=0)
    for depth in range(max(depths.values(), default=-1) + 1):
        keys = [key for key in plan.jobs if depths.get(key) == depth]
        stages.append([_line(plan.jobs[key], plan, folder, device) for key in keys])
    rows = []
    for seed in plan.seeds:
        for row in plan.rows:
            own = [key for key in row.jobs[seed].values() if key not in shared]
            if own:
                lines = [_line(plan.jobs[key], plan, folder, device) for key in own]
                rows.append(" && ".join(lines))
    return [*stages, rows] if rows else stages


def _line(job: Job, plan: Plan, folder: Path, device: str | None) -> str:
    return shlex.join(["maekit", *words_for(job, plan, folder, device)])


def is_done(job: Job, folder: Path) -> bool:
    """Return whether a job's run ended well, with the budget of its row."""
    result = read_result(folder / job.folder)
    ended = result.get("exit") == 0 and result.get("verb") == job.verb
    return ended and not is_extended(job, folder)


def is_extended(job: Job, folder: Path) -> bool:
    """Return whether a job's run was given a longer budget than its row's, by ``--extend``."""
    return (folder / job.folder / EXTENDED).is_file()


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    began: float


@dataclass
class Sweep:
    """Runs what is not done yet of a plan.

    Attributes:
        plan: what is run.
        folder: the sweep's.
        places: where jobs run.
        emit: called with notes.
        device: as ``--device`` takes it.
        failed: by the key of each job that did not end well, why.
    """

    plan: Plan
    folder: Path
    places: Sequence[Slot]
    emit: Emit
    device: str | None = None
    failed: dict[str, Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = {key for key, job in self.plan.jobs.items() if is_done(job, self.folder)}
        self._waiting = deque(key for key in self.plan.jobs if key not in self.done)
        self._running: dict[int, _Running] = {}
        self._said: dict[str, float] = {}

    def run(self, stop: StopSignal) -> None:
        """Run all jobs; at a signal have them save, and return when the last one has left.

        Raises:
            KeyboardInterrupt: at a second signal, once all were ended.
        """
        if not self.places:
            return
        asked = False
        try:
            while self._running or (self._waiting and not stop.requested):
                if stop.requested and not asked:
                    asked = True
                    self.emit(Note(f"{stop.requested}: the running jobs save and stop"))
                    self._signal(signal.SIGTERM)
                if not stop.requested:
                    self._start()
                self._reap()
                if self._running or self._waiting:
                    time.sleep(POLL)
        finally:
            self._end_all()

    def _start(self) -> None:
        """Start jobs where there is a place, and drop those that cannot run any more."""
        for place, slot in enumerate(self.places):
            if place in self._running:
                continue
            key = self._next()
            if key is None:
                return
            self._running[place] = self._begin(self.plan.jobs[key], slot)

    def _next(self) -> str | None:
        for _ in range(len(self._waiting)):
            key = self._waiting.popleft()
            job = self.plan.jobs[key]
            broken = next((need for need in job.needs if need in self.failed), None)
            if broken is not None:
                cause = self.failed[broken]
                reason = f"{self.plan.jobs[broken].folder} failed: {cause.reason}"
                self.failed[key] = Failure(cause.code, reason)
            elif all(need in self.done for need in job.needs) and not self._is_held(job):
                return key
            else:
                self._waiting.append(key)
        return None

    def _is_held(self, job: Job) -> bool:
        """Whether another process holds the run: one that a killed sweep left, which is saving."""
        folder = self.folder / job.folder
        if not in_use(folder / LOCK):
            return False
        if time.monotonic() - self._said.get(job.key, -SAYS_AGAIN) >= SAYS_AGAIN:
            self._said[job.key] = time.monotonic()
            self.emit(Note(f"waiting for the process that holds {folder}"))
        return True

    def _begin(self, job: Job, slot: Slot) -> _Running:
        log = self.folder / LOGS / f"{job.folder.partition('/')[2].replace('/', '-')}.txt"
        log.parent.mkdir(exist_ok=True)
        words = words_for(job, self.plan, self.folder, self.device)
        environment = os.environ | {"OMP_NUM_THREADS": str(slot.threads), PARENT: str(os.getpid())}
        if slot.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.device
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*MAEKIT, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C is this process's alone, which then asks once
            )
        self.emit(Note(f"{self._count()} {job.folder}: {' '.join([job.verb, *job.words])}"))
        return _Running(job, process, log, time.monotonic())

    def _count(self) -> str:
        number = len(self.done) + len(self.failed) + len(self._running) + 1
        return f"[{number}/{len(self.plan.jobs)}]"

    def _reap(self) -> None:
        for place, running in list(self._running.items()):
            code = running.process.poll()
            if code is None:
                continue
            del self._running[place]
            job = running.job
            if code == 0 and is_done(job, self.folder):
                took = duration(time.monotonic() - running.began)
                self.done.add(job.key)
                self.emit(Note(f"{job.folder}: done in {took}"))
                continue
            end_group(running.process)
            code = KILLED - code if code < 0 else code or INTERRUPTED
            self.failed[job.key] = Failure(code, _reason(job, self.folder, running.log, code))
            if code != INTERRUPTED:
                reason = self.failed[job.key].reason.partition("\n")[0]
                self.emit(Note(f"{job.folder}: exit {code}: {reason}", warning=True))

    def _signal(self, number: int) -> None:
        for running in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                running.process.send_signal(number)

    def _end_all(self) -> None:
        """End what still runs: it was asked before, and nobody waits any longer."""
        if not self._running:
            return
        self._signal(signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        for running in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(max(0.0, until - time.monotonic()))
            end_group(running.process)
            running.process.wait()


def _reason(job: Job, folder: Path, log: Path, code: int) -> str:
    """Return why a job failed, in its own words."""
    if code == INTERRUPTED:
        return "interrupted"
    result = read_result(folder / job.folder)
    if result.get("exit") == code and result.get("error"):
        return str(result["error"])
    if code > KILLED:
        return f"killed by signal {code - KILLED}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    start = max((n for n, line in enumerate(lines) if line.startswith("error: ")), default=None)
    if start is None:
        return next((line for line in reversed(lines) if line.strip()), f"see {log}")
    return "\n".join(lines[start:]).removeprefix("error: ")


def write_files(plan: Plan, folder: Path) -> None:
    """Write the recipes that jobs read."""
    for name, text in plan.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        write_text(path, text)


def codes(plan: Plan, failed: Mapping[str, Failure]) -> Iterator[tuple[str, Failure]]:
    """Yield the name of each row that failed, in their order, with its first failure."""
    for row in plan.rows:
        keys = [key for jobs in row.jobs.values() for key in jobs.values()]
        found = next((failed[key] for key in keys if key in failed), None)
        if found is not None:
            yield row.name, found
