"""Worker processes that read samples into shared memory, watched and replaced.

Why not ``torch.utils.data.DataLoader``: it ends the run where a worker dies or hangs, its workers
import torch, and its order depends on their number. Here

- one sample that hangs, or that kills the process that reads it, is tried once more and then counts
  as a bad file; the run continues, and the sample keeps its place in the batch with a weight of 0;
- workers import neither torch nor the main script, so that starting one costs little;
- a batch holds the same samples whatever the number of workers: each task knows its place.

How it works. The main process cuts tasks from a queue: a key and a slot of shared memory that is
free. A worker reads the sample, writes it into the slot, and answers with a few bytes. The parent
copies it into the batch, and the slot is free again.

Each worker has two pipes of its own and works through its tasks in order. So there is no lock that
a dying worker could take with it, and the first task without an answer is the one that it was
reading: that one is to blame, the others go to other workers. What was finished before counts.

A worker is taken for hanging by a clock that runs only while the main process waits for workers: a
stopped process, or a long step of training, blames nobody.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import time
import types
import weakref
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from maekit.data.shared_memory import SharedSlots, Told
from maekit.data.worker import BAD, FATAL, READ, READY, RESULT, TASK, main
from maekit.errors import MaekitError, PartError, RankError, StorageError
from maekit.stop import watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from maekit.data.batch import BatchBuilder
    from maekit.data.order import Key
    from maekit.data.reader import SampleReader

_POLL = 0.25  # seconds between looks at silent workers
_AHEAD = 1024  # tasks with one worker: their messages, both ways, fit into a pipe
_START_LIMIT = 300.0  # seconds that a worker may take to import its parts
_START_FAILURES = 3
_LEAVE_LIMIT = 0.5  # seconds that workers get to leave by themselves


@dataclass
class _Task:
    key: Key
    place: int  # in the batch
    builder: BatchBuilder | None  # None: no longer wanted
    slot: int = -1
    deaths: int = 0
    timeouts: int = 0


@dataclass
class _Worker:
    process: BaseProcess
    tasks: Connection
    results: Connection
    last_heard: float  # the pool's clock when it last gave a sign of life
    ready: bool = False
    working_on: deque[_Task] = field(default_factory=deque)


class Pool:
    """Worker processes that read samples.

    Args:
        reader: is sent to each worker.
        workers: how many processes.
        slots: samples on their way at once.
        timeout: seconds that one sample may take before its worker is killed.

    Raises:
        PartError: the reader cannot be sent.
    """

    def __init__(self, reader: SampleReader, *, workers: int, slots: int, timeout: float) -> None:
        self._reader = reader
        self._timeout = timeout
        self._slots = SharedSlots(reader.layout, slots)
        self._free = list(range(slots))
        self._waiting: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        # Counts only seconds spent waiting for workers, so that a process that was stopped, or a
        # long step, is not taken for a silent worker.
        self._clock = 0.0
        self._start_failures = 0
        self._finalizer = weakref.finalize(self, _shut, self._workers, self._slots)
        try:
            self._payload = pickle.dumps((reader, reader.layout, slots))
        except Exception as error:  # whatever a part's own state raises
            self.close()
            what = f"the dataset or masker cannot be sent to loader workers: {error}"
            raise PartError(what, hint="set data.workers=0, or make it picklable") from error
        for _ in range(workers):
            self._start()

    def submit(self, key: Key, place: int, builder: BatchBuilder) -> None:
        """Queue a sample to be read, and put into ``builder`` at ``place``."""
        self._waiting.append(_Task(key, place, builder))

    def forget(self) -> None:
        """Give up on all samples that were submitted and have not come back."""
        self._waiting.clear()
        for worker in self._workers:
            for task in worker.working_on:
                task.builder = None

    def collect(self, *, block: bool) -> None:
        """Hand out tasks and take in results; with ``block``, wait for some.

        Raises:
            PartError: a part did not keep its contract, as raised in the worker.
            RankError: workers die while starting.
            StorageError: shared memory ran out.
        """
        self._hand_out()
        watched: dict[object, _Worker] = {}
        for worker in self._workers:
            watched[worker.results] = watched[worker.process.sentinel] = worker
        start = time.monotonic()
        ready = wait(list(watched), _POLL if block else 0)  # type: ignore[arg-type]
        self._clock += min(time.monotonic() - start, 2 * _POLL)
        for worker in {id(watched[thing]): watched[thing] for thing in ready}.values():
            if not self._take_in(worker):
                self._on_death(worker)
        for worker in list(self._workers):
            self._check_alive(worker)
        self._hand_out()

    def close(self) -> None:
        """Stop all workers and remove the shared memory."""
        self._finalizer()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        their_tasks, tasks = context.Pipe(duplex=False)
        results, their_results = context.Pipe(duplex=False)
        process = context.Process(
            target=main,
            args=(their_tasks, their_results, self._payload, self._slots.memory),
            name="maekit-loader",
            daemon=True,
        )
        with _without_main(self._payload), _interrupts_held():
            process.start()
        their_tasks.close()
        their_results.close()
        self._workers.append(_Worker(process, tasks, results, self._clock))

    def _hand_out(self) -> None:
        messages: dict[int, bytearray] = {}
        by_id = {id(worker): worker for worker in self._workers}
        while self._waiting and self._free:
            worker = min(self._workers, key=lambda worker: len(worker.working_on))
            if len(worker.working_on) >= _AHEAD:
                break
            task = self._waiting.popleft()
            task.slot = self._free.pop()
            if not worker.working_on:
                worker.last_heard = self._clock
            worker.working_on.append(task)
            message = messages.setdefault(id(worker), bytearray())
            message += TASK.pack(task.slot, task.key.epoch, task.key.index)
        for number, message in messages.items():
            try:
                by_id[number].tasks.send_bytes(message)
            except OSError:
                # It is dead; that is seen in a moment, and its tasks go to others then.
                continue

    def _take_in(self, worker: _Worker) -> bool:
        """Take in a worker's results; False if it is dead."""
        try:
            while worker.results.poll():
                self._result(worker, worker.results.recv_bytes())
        except (EOFError, OSError):
            return False
        return worker.process.is_alive()

    def _result(self, worker: _Worker, message: bytes) -> None:
        kind, dtype = RESULT.unpack_from(message)
        worker.last_heard = self._clock
        if kind == READY:
            worker.ready = True
            self._start_failures = 0
            return
        if kind == FATAL:
            cause = pickle.loads(message[RESULT.size :])  # noqa: S301 - from our own worker
            if isinstance(cause, MaekitError):
                raise cause
            what = f"a loader worker cannot start:\n{cause}"
            raise RankError(what, hint="data.workers=0 reads without workers")
        task = worker.working_on.popleft()
        if task.builder:
            more = pickle.loads(message[RESULT.size :])  # noqa: S301 - from our own worker
            sample = self._slots.read(task.slot, dtype, more if kind == READ else Told())
            if kind == BAD:
                sample = type(sample)((), sample.hidden, sample.decode, bad=more)
            task.builder.put(task.place, sample)
        self._free.append(task.slot)

    def _check_alive(self, worker: _Worker) -> None:
        """Replace a worker that has given no sign of life for too long."""
        silent = self._clock - worker.last_heard
        if not worker.ready and silent > _START_LIMIT:
            worker.process.kill()
        elif worker.ready and worker.working_on and silent > self._timeout:
            # Reading continues until the kill: the last results may be on their way already.
            worker.process.kill()
            worker.process.join()
            self._take_in(worker)
            if worker.working_on:
                # Once may be the machine's fault: it was stopped, or its disk was away.
                task = worker.working_on[0]
                task.timeouts += 1
                if task.timeouts > 1:
                    worker.working_on.popleft()
                    self._free.append(task.slot)
                    self._give_up(task, f"no answer within {self._timeout:g} s")
            self._replace(worker)

    def _on_death(self, worker: _Worker) -> None:
        """Handle a worker's death: retry the sample it was reading once, then blame the sample."""
        worker.process.join()
        code = worker.process.exitcode or 0
        if hasattr(signal, "SIGBUS") and code == -signal.SIGBUS:
            what = "memory ran out while a loader worker wrote to it"
            hint = "give the container more, or set data.workers=0"
            raise StorageError(what, where="data.workers", hint=hint)
        if not worker.ready:
            self._start_failures += 1
            if self._start_failures >= _START_FAILURES:
                what = f"loader workers die while starting ({_ending(code)})"
                raise RankError(what, hint="data.workers=0 reads without workers")
        elif worker.working_on:
            task = worker.working_on[0]
            task.deaths += 1
            if task.deaths > 1:
                worker.working_on.popleft()
                self._free.append(task.slot)
                self._give_up(task, f"two workers died on it ({_ending(code)})")
        self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _close_pipes(worker)
        self._free += [task.slot for task in worker.working_on]
        self._waiting.extendleft(reversed(worker.working_on))
        self._start()

    def _give_up(self, task: _Task, reason: str) -> None:
        if task.builder:
            task.builder.put(task.place, self._reader.bad(task.key, reason))


def _shut(workers: list[_Worker], slots: SharedSlots) -> None:
    """Stop workers by closing their pipes, then by force; then let go of the shared memory."""
    for worker in workers:
        _close_pipes(worker)
    deadline = time.monotonic() + _LEAVE_LIMIT
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
    slots.close()


def _close_pipes(worker: _Worker) -> None:
    worker.tasks.close()
    worker.results.close()


def _ending(code: int) -> str:
    """Describe in words how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    killer = ", perhaps for lack of memory" if name == "SIGKILL" else ""
    return f"{name}{killer}"


@contextmanager
def _without_main(payload: bytes) -> Iterator[None]:
    """Hide ``__main__`` from a starting worker, unless a part is defined there.

    Spawned processes import it again: a script without a guard would run once more, and one with
    torch at its top would cost each worker seconds and half a gigabyte.
    """
    if b"__main__" in payload:
        yield
        return
    hidden = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = hidden


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep the signals that stop a run from a worker that has not yet got to ignoring them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(watched()))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
