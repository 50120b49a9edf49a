"""The ranks of a run: processes that train one model, each on its share of every batch.

Whatever ranks share or agree on goes through here. Nothing else imports ``torch.distributed``, but
``parallel``, which wraps the model.
With one process every function returns at once, and that module is never imported.

Collectives must be called by every rank, in the same order. What only rank 0 does (write, choose
a folder, read a clock) is wrapped in ``on_first``, which tells the others of its errors.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from socket import gethostname
from typing import Any, TypeVar

import torch
from torch import Tensor

from maekit.errors import RankError
from maekit.ranks import HEARD, MEETING, Place, place_of
from maekit.stop import by_itself

T = TypeVar("T")
# Until all ranks are there; importing torch takes minutes where a hundred nodes share one disk.
JOINING = timedelta(minutes=15)
# Rank 0 may write a checkpoint or draw samples while the others wait.
TIMEOUT = timedelta(hours=2)

_MOST_SENT = 2**24  # bytes of what is made once a node

_place = Place()


def rank() -> int:
    """Return the number of this process among the ranks, from 0."""
    return _place.rank


def size() -> int:
    """Return the number of ranks."""
    return _place.size


def size_here() -> int:
    """Return the number of ranks on this machine, which share its memory."""
    return _place.local_size


def is_first() -> bool:
    """Return whether this is rank 0, which writes and speaks for all."""
    return _place.rank == 0


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other ranks, as the launcher's environment says, while the context lasts.

    Raises:
        RankError: the others do not answer, or one of them has ended.
    """
    global _place  # noqa: PLW0603 - a process is one rank
    place = place_of(os.environ)
    if place.size == 1:
        yield
        return
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        _join(dist, place, device)
    except (RuntimeError, ValueError) as error:
        what = f"rank {place.rank} of {place.size} cannot join the others: {error}"
        hint = "did one end before? is MASTER_ADDR reachable and MASTER_PORT free on every node?"
        raise RankError(what, where="ranks", hint=hint) from error
    _place = place
    try:
        yield
    except RuntimeError as error:
        lost = lost_rank(error)
        if lost is None:
            raise
        raise lost from error
    finally:
        _place = Place()
        dist.destroy_process_group()


def _join(dist: Any, place: Place, device: torch.device) -> None:  # noqa: ANN401 - a module
    # Host tensors and objects are shared over gloo, next to a GPU's NCCL.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    meeting = os.environ.get(MEETING)
    if meeting is not None:
        store = dist.FileStore(meeting, place.size)
    else:
        os.environ.setdefault("RANK", str(place.rank))
        os.environ.setdefault("WORLD_SIZE", str(place.size))
        first = _first_host(os.environ.get("SLURM_STEP_NODELIST", ""))
        os.environ.setdefault("MASTER_ADDR", first)
        job = os.environ.get("SLURM_JOB_ID", "0")
        os.environ.setdefault("MASTER_PORT", str(15000 + int(job[-4:])))
        store, _, _ = next(dist.rendezvous("env://", timeout=JOINING))
    _wait_for_all(store, place.size)
    dist.init_process_group(
        backend, store=store, rank=place.rank, world_size=place.size, timeout=TIMEOUT
    )


def _wait_for_all(store: Any, size: int) -> None:  # noqa: ANN401 - torch's
    """Wait until all ranks are there: one that has ended before would be waited for as in a run.

    Raises:
        RuntimeError: some are not there in time.
    """
    key = f"maekit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    until = time.monotonic() + JOINING.total_seconds()
    here = store.add(key, 1)
    while here < size:
        if time.monotonic() > until:
            minutes = JOINING.total_seconds() / 60
            raise RuntimeError(f"after {minutes:g} minutes {here} of {size} ranks are there")
        time.sleep(0.05)
        here = store.add(key, 0)


def _first_host(nodes: str) -> str:
    """Return the first of SLURM's node list: ``gpu[03-05,9]`` is gpu03, gpu04, gpu05, gpu9."""
    name, bracket, rest = nodes.partition("[")
    if not bracket:
        return name.partition(",")[0] or "127.0.0.1"
    if "," in name:
        return name.partition(",")[0]
    inside, _, suffix = rest.partition("]")
    return name + inside.replace("-", ",").partition(",")[0] + suffix.partition(",")[0]


_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out")


def lost_rank(error: BaseException) -> RankError | None:
    """Return what a failed collective means: another rank has ended; None for other errors."""
    text = str(error)
    if size() == 1 or not isinstance(error, RuntimeError):
        return None
    if "NCCL" not in text and not any(each in text for each in _LOST):
        return None
    hint = "look at what it said last; then continue with --resume"
    return RankError("another rank has ended or does not answer", where=f"rank {rank()}", hint=hint)


def sums(*values: float) -> list[float]:
    """Add up host numbers over ranks; float64, so that counts stay exact."""
    if size() == 1:
        return list(values)
    import torch.distributed as dist

    found = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(found)
    numbers: list[float] = found.tolist()
    return numbers


def add_up(tensor: Tensor) -> Tensor:
    """Add up a tensor over ranks, in place, without waiting for it; return it."""
    if size() > 1:
        import torch.distributed as dist

        dist.all_reduce(tensor)
    return tensor


def largest(value: float) -> float:
    """Return the largest of a host number over ranks."""
    return max(gather(value)) if size() > 1 else value


def gather(value: T) -> list[T]:
    """Return every rank's value, in their order; any object that can be pickled."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def gather_if_any(values: Sequence[T]) -> list[T]:
    """Return all ranks' items, those of rank 0 first; one small sum where there are none."""
    if size() == 1:
        return list(values)
    if not sums(len(values))[0]:
        return []
    return [each for of_rank in gather(list(values)) for each in of_rank]


def on_first(function: Callable[[], T]) -> T:
    """Do something on rank 0 alone; every rank gets what it returns, or the error it raised."""
    if size() == 1:
        return function()
    import torch.distributed as dist

    outcome: list[Any] = [None, None]
    if is_first():
        with _alone():
            try:
                outcome[0] = function()
            except Exception as error:  # noqa: BLE001 - it is raised again on every rank
                outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1] if is_first() else _heard(outcome[1])
    found: T = outcome[0]
    return found


@contextmanager
def _alone() -> Iterator[None]:
    """Let what rank 0 does alone find no other ranks."""
    global _place  # noqa: PLW0603 - a process is one rank
    before, _place = _place, Place()
    try:
        with by_itself():
            yield
    finally:
        _place = before


def _heard(error: Exception) -> Exception:
    """Remember that the rank that met an error says it."""
    HEARD.append(error)
    return error


def together(function: Callable[[], T]) -> list[T]:
    """Do something on every rank, each its share; return what all made, in their order.

    Raises:
        Exception: the first rank's that failed, on every rank.
    """
    if size() == 1:
        return [function()]
    made: list[T] = []
    failure: Exception | None = None
    try:
        with by_itself():
            made.append(function())
    except Exception as error:  # noqa: BLE001 - it is raised again on every rank
        failure = error
    outcomes = gather((made, failure))
    # All raise the same one: what follows an error may depend on its kind, and holds collectives.
    for place, (_, failed) in enumerate(outcomes):
        if failed is not None:
            raise failure if failure is not None and place == rank() else _heard(failed)
    return [value for values, _ in outcomes for value in values]


def once_a_node(function: Callable[[], T]) -> T:
    """Make something on rank 0, then on the first rank of every other node; others get a copy.

    Where it cannot be copied, or is too large to be sent, each makes it for itself.

    Raises:
        Exception: the first rank's that failed, on every rank.
    """
    if size() == 1:
        return function()
    made: list[T] = []
    on_first(lambda: made.append(function()))

    def sent() -> tuple[str, bytes | None]:
        if _place.local:
            return "", None
        if not made:
            made.append(function())
        try:
            copy = pickle.dumps(made[0])
        except Exception:  # noqa: BLE001 - whatever it holds
            return gethostname(), None
        return gethostname(), copy if len(copy) <= _MOST_SENT else None

    here = [copy for node, copy in together(sent) if node == gethostname()]
    copies = [copy for copy in here if copy is not None]
    if not made:
        made.append(pickle.loads(copies[0]) if copies else function())  # noqa: S301 - of a rank
    return made[0]


def share(items: Sequence[T]) -> list[T]:
    """Return this rank's items of a sequence: of N ranks every N-th, from its own number on."""
    return list(items[rank() :: size()])


def seed_of_rank(seed: int) -> int:
    """Return the seed of what a model draws itself, which differs between ranks."""
    return seed + rank()
