"""``batch.per_device: auto``: as many samples at once as memory has room for.

Found by two small steps whose memory is counted, on pixels of zeros: nothing is read. What is found
is kept with the checkpoints, so that a resumed run makes the same micro-batches again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from maekit.data.batch import Batch, BatchBuilder
from maekit.data.memory import free_memory
from maekit.data.order import Key
from maekit.engine import distributed
from maekit.engine.events import Note
from maekit.engine.peak import AHEAD, MOMENTS, Peaks, held, peaks_of, shares_of
from maekit.engine.schedule import BatchSplit

if TYPE_CHECKING:
    from maekit.engine.job import Job

KEPT = "per_device"  # in a checkpoint's extra values
ROOM = 0.8  # of what is free: the rest is for what is not counted, and for others


def fit_batch(job: Job) -> BatchSplit:
    """Return the split into the largest micro-batches that fit; the one kept, where there is one.

    Args:
        job: at its start, or resumed. Its random state is left as it is.
    """
    split, extra = job.split, job.state.extra
    share = split.effective // split.world
    kept = extra.get(KEPT)
    if isinstance(kept, int) and kept > 0 and share % kept == 0:
        return _split(split, kept)
    fixed, each, room = _needs(job)
    shares = shares_of(job)
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    fits = [size for size in sizes if fixed + shares.at_once(each * size, share // size) <= room]
    found = max(fits, default=1)
    found = min(distributed.gather(found))
    extra[KEPT] = found
    text = f"batch.per_device: auto is {found}, at {each / 1e6:,.0f} MB a sample"
    job.emit(Note(f"{text} of {room / 1e9:,.1f} GB that are free"))
    return _split(split, found)


def _split(split: BatchSplit, per_device: int) -> BatchSplit:
    accumulation = split.effective // (per_device * split.world)
    return BatchSplit(split.effective, per_device, accumulation, split.world)


def _needs(job: Job) -> tuple[float, float, float]:
    """Return the bytes of a training beside its micro-batch, those of a sample, and the room."""
    one, two = (_peaks(job, size) for size in (1, 2))
    # The backward pass frees what the forward pass kept while gradients come, so that few samples'
    # peak may be in it, and many samples' is not: both are taken for the worst.
    each = max(1.0, *(larger - smaller for larger, smaller in zip(two, one, strict=True)))
    # Parameters are there already, all of them: ranks that share them out give most of them back.
    # Moments come with the first update.
    coming = (1 + MOMENTS) * held(job.state.trained()) - shares_of(job).spared
    fixed = max(0.0, one.forward - each) + coming
    if job.device.type == "cuda":
        unused, _ = torch.cuda.mem_get_info(job.device)
        spare = torch.cuda.memory_reserved(job.device) - torch.cuda.memory_allocated(job.device)
        return fixed, each, ROOM * (unused + spare)
    free = free_memory()
    if free is None:
        return fixed, each, fixed + each * job.split.per_device
    pixels = sum(view.nbytes for view in _zeros(job, 1).views)
    room = ROOM * free / distributed.size_here()
    return fixed, each, room - AHEAD * pixels * job.split.effective / job.split.world


def _zeros(job: Job, size: int) -> Batch:
    """Make a batch without reading anything: its masks are drawn, its pixels are zeros."""
    keys = [Key(0, index % len(job.train)) for index in range(size)]
    builder = BatchBuilder(job.reader.layout, keys)
    for place, key in enumerate(keys):
        builder.put(place, job.reader.bad(key, ""))
    return builder.finish()


def _peaks(job: Job, size: int) -> Peaks:
    batch = _zeros(job, size)
    devices = [job.device] if job.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        return peaks_of(job.step, job.state.optimizer, batch)
