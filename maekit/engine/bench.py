"""What holds a training back: the model alone, the loader alone, both together, and a sentence.

Everything is measured on this machine, in one run of at most about two minutes; where the batch of
the recipe would take too long, or too much memory, a smaller one is taken, and named.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maekit.data.loader import Loader
from maekit.data.stages import STAGES, seconds_by_stage
from maekit.engine.advice import Advice, advise
from maekit.engine.flops import flop_counter
from maekit.engine.loop import update
from maekit.engine.peak import MOMENTS, held, peaks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maekit.data.batch import Batch
    from maekit.data.order import Key
    from maekit.engine.job import Job
    from maekit.engine.loop import Step
    from maekit.engine.precision import Precision

SECONDS = 12.0  # that each of the three measurements may take, warming up left aside
STEP = 3.0  # seconds that a step may take; else the batch is made smaller
DISTINCT = 8  # samples that a batch is filled with, again and again: what is in them costs nothing
PRODUCTS = 5  # matrix products around the steps, of which the best counts
_SIDE = {"cpu": 1536}  # of their matrices
_SIDE_ELSEWHERE = 8192
_READ_TOGETHER = 16  # samples of a batch that the loader alone reads


@dataclass(frozen=True)
class Bench:
    """What was measured; rates are samples a second.

    Attributes:
        model: of updates alone: batch, step_ms, samples_per_second, flops_per_sample, tflops,
            peak_tflops (of matrix products in the same run), mfu, memory_bytes.
        loader: of reading alone: workers, samples_per_second, per_worker, and the milliseconds a
            sample takes in each stage.
        both: of a training: samples_per_second, data_wait (a share of the time), steps.
        advice: what holds it back.
    """

    model: dict[str, Any]
    loader: dict[str, Any]
    both: dict[str, Any]
    advice: Advice

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as result.json would hold them."""
        found = {"verb": "bench", "exit": 0}
        parts = {"model": self.model, "loader": self.loader, "both": self.both}
        return found | parts | self.advice._asdict()


def bench(job: Job) -> Bench:
    """Measure a prepared job.

    Args:
        job: as before its first step; it is trained for some.
    """
    seconds = SECONDS
    job.model.train()
    few = _read(job, job.stream.keys(0)[:DISTINCT])
    size = _affordable_batch(job, few)
    model = _model_alone(job, few, size, seconds)
    loader = _loader_alone(job, seconds)
    both = _both(job, size, seconds)
    return Bench(model, loader, both, advise(job, model, loader, both))


def _read(job: Job, keys: Sequence[Key]) -> Batch:
    with Loader(job.reader, [keys], workers=0, timeout=job.recipe.data.timeout) as loader:
        return next(iter(loader))


def _repeated(batch: Batch, size: int) -> Batch:
    """Fill a batch of ``size`` samples with those of another one."""
    samples, rows = len(batch.keys), len(batch.weight) // len(batch.keys)
    places = np.resize(np.arange(samples), size)
    row = (places[:, None] * rows + np.arange(rows)).reshape(-1)

    def taken(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[row]

    return replace(
        batch,
        views=tuple(view[row] for view in batch.views),
        hidden=taken(batch.hidden),
        decode=taken(batch.decode),
        known=taken(batch.known),
        boxes=tuple(batch.boxes[place] for place in row) if batch.boxes else (),
        weight=np.ones(len(row), np.float32),  # also of bad files, whose pixels cost as much
        labels=tuple(batch.labels[place] for place in places),
        keys=tuple(batch.keys[place] for place in places),
        bad=(),
        left_out=(),
    )


def _affordable_batch(job: Job, few: Batch) -> int:
    """Return the recipe's micro-batch, or as much of it as 3 s and the memory allow."""
    wanted, size = job.split.per_device, 1
    _step(job, _repeated(few, 1))  # the first one warms up
    while size < wanted:
        took = _step(job, _repeated(few, size))
        larger = min(wanted, max(size + 1, int(size * min(4.0, STEP / max(took, 1e-6)))))
        if took * larger / size > STEP:
            break
        try:
            _step(job, _repeated(few, larger))
        except torch.OutOfMemoryError:
            job.state.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            break
        size = larger
    return size


def _step(job: Job, batch: Batch) -> float:
    """Make one update; return the seconds it took."""
    began = time.perf_counter()
    update(job.state, job.step, [batch])
    _finish(job.device)
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _model_alone(job: Job, few: Batch, size: int, seconds: float) -> dict[str, Any]:
    batch = _repeated(few, size)
    flops = count_flops(job.step, _repeated(few, 1))
    job.state.optimizer.zero_grad(set_to_none=True)
    memory = _memory(job, batch)
    products = [product_rate(job.device, job.precision) for _ in range(PRODUCTS // 2)]
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 3 or time.perf_counter() - began < seconds / 2:
        took.append(_step(job, batch))
        if len(took) >= 3 and time.perf_counter() - began > seconds:
            break
    products += [product_rate(job.device, job.precision) for _ in range(PRODUCTS - len(products))]
    step = statistics.median(took)
    rate, peak = flops * size / step, max(products)
    return {
        "batch": size,
        "steps": len(took),
        "step_ms": step * 1e3,
        "samples_per_second": size / step,
        "flops_per_sample": flops,
        "tflops": rate / 1e12,
        "peak_tflops": peak / 1e12,
        "mfu": rate / peak,
        "memory_bytes": memory,
    }


def count_flops(step: Step, batch: Batch) -> int:
    """Count the floating-point operations of the forward and backward pass of a batch.

    Those of matrix products and attention, a multiplication and an addition each: all others are
    few, and no matrix unit does them. Gradients are left behind.
    """
    counter = flop_counter()
    with torch.compiler.set_stance("force_eager"), counter:
        step.loss(step.weigh(batch)).backward()
    return int(counter.get_total_flops())


def _memory(job: Job, batch: Batch) -> int:
    """Return the bytes that training with such batches takes on the device, at its peak."""
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
        _step(job, batch)
        return int(torch.cuda.max_memory_allocated(job.device))
    peak = peaks_of(job.step, job.state.optimizer, batch).whole
    return held(job.resident()) + MOMENTS * held(job.state.trained()) + peak


def product_rate(device: torch.device, precision: Precision) -> float:
    """Return the floating-point operations a second of a product of large square matrices."""
    side = _SIDE.get(device.type, _SIDE_ELSEWHERE)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision.name, torch.float32)
    first = torch.ones(side, side, device=device, dtype=dtype)
    for times in (1, 2):  # the first one warms up
        _finish(device)
        began = time.perf_counter()
        for _ in range(times):
            torch.mm(first, first)
        _finish(device)
        took = (time.perf_counter() - began) / times
    return 2 * side**3 / took


def _keys(job: Job) -> Iterator[Key]:
    """Yield keys in the order of a training, without end."""
    for step in count():
        yield from job.stream.keys(step)


def _groups(keys: Iterator[Key], size: int) -> Iterator[Sequence[Key]]:
    while True:
        yield list(islice(keys, size))


def _loader_alone(job: Job, seconds: float) -> dict[str, Any]:
    workers, timeout = job.workers, job.recipe.data.timeout
    stages = seconds_by_stage(job.reader, islice(_keys(job), 256), seconds / 2)
    groups = _groups(_keys(job), min(_READ_TOGETHER, job.split.per_device))
    samples, bad, began = 0, 0, 0.0
    with Loader(job.reader, groups, workers=workers, timeout=timeout) as loader:
        for number, batch in enumerate(loader):
            if number == 0:  # workers have started by now
                began = time.perf_counter()
                continue
            samples += len(batch.keys)
            bad += len(batch.bad)
            took = time.perf_counter() - began
            if took > seconds or (took > seconds / 3 and number > 2 * max(1, workers)):
                break
    rate, busy = samples / took, max(1, workers)
    handed = max(0.0, busy / rate - sum(stages.values()))
    return {
        "workers": workers,
        "samples_per_second": rate,
        "per_worker": rate / busy,
        "bad_files": bad,
        **{f"{stage}_ms": stages[stage] * 1e3 for stage in STAGES},
        "hand_over_ms": handed * 1e3,
    }


def _both(job: Job, size: int, seconds: float) -> dict[str, Any]:
    """Train as a run does, and measure which share of the time is spent waiting for batches."""
    groups, workers = _groups(_keys(job), size), job.workers
    steps, waited, began = 0, 0.0, 0.0
    with Loader(job.reader, groups, workers=workers, timeout=job.recipe.data.timeout) as loader:
        batches = iter(loader)
        _step(job, next(batches))
        began = time.perf_counter()
        while True:
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            _step(job, batch)
            steps += 1
            took = time.perf_counter() - began
            if took > seconds or (took > seconds / 3 and steps >= 10):
                break
    return {
        "steps": steps,
        "samples_per_second": steps * size / took,
        "data_wait": waited / took,
    }
