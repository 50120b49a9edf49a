"""``--dry-run``: build a run and make one small step, so that its cost is known beforehand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from maekit.cli.output import print_json, print_table
from maekit.data.loader import Loader
from maekit.engine.job import Job
from maekit.engine.left_out import SeenLeftOut, listed
from maekit.engine.loop import update
from maekit.engine.reporters import duration
from maekit.engine.run_folder import free_space

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.events import Emit
    from maekit.recipe.schema import Recipe

MICRO = 2  # samples of the one step that is made
READ = 16  # samples of each of the two batches that are read
BYTES = 4  # float32
COPIES = 4  # weights, gradient, AdamW's two moments
SAVED = 3  # weights and moments in a checkpoint


def dry_run(
    kind: type[Job],
    recipe: Recipe,
    device: torch.device,
    emit: Emit,
    *,
    source: str | None,
    json: bool,
) -> int:
    """Read two batches, make one step of at most two samples, and print what the run would cost.

    Writes nothing but caches (drawn sample images, compiled kernels).
    """
    job = kind(recipe, device, emit, source=source)
    job.prepare(None)
    reading = _read_two(job)
    step = _one_step(job)
    costs = _costs(job, reading, step)
    if json:
        print_json(costs)
    else:
        print_table(("dry run", ""), _rows(job, costs))
    return 0


def _read_two(job: Job) -> dict[str, float]:
    """Measure seconds per sample through the loader, and count what could not be read or is cut."""
    size = min(job.split.per_device, READ)
    seen = SeenLeftOut(job.reader, "data.train", job.state.extra, job.emit)
    keys = [job.stream.keys(0)[:size], job.stream.keys(job.state.schedule.steps - 1)[:size]]
    began = time.perf_counter()
    with Loader(job.reader, keys, workers=0, timeout=job.recipe.data.timeout) as loader:
        batches = list(loader)
    samples = sum(map(len, keys))
    seconds = (time.perf_counter() - began) / samples
    for batch in batches:
        seen.add(batch.left_out)
    return {"seconds": seconds, "bad": sum(len(batch.bad) for batch in batches), "samples": samples}


def _one_step(job: Job) -> dict[str, float]:
    """Measure seconds per sample of an update, and bytes that it keeps for the backward pass."""
    size = min(job.split.per_device, MICRO)
    with Loader(job.reader, [job.stream.keys(0)[:size]], workers=0, timeout=1.0) as loader:
        batch = next(iter(loader))
    job.model.train()
    kept = _activations(job, batch)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        update(job.state, job.step, [batch])
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
        seconds = time.perf_counter() - began
    return {"seconds": seconds / size, "activations": kept / size}


def _activations(job: Job, batch: Batch) -> int:
    """Count bytes of distinct storage that autograd keeps for the backward pass of one batch."""
    storages: dict[int, int] = {}
    owned = {parameter.untyped_storage().data_ptr() for parameter in job.model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = job.step.loss(job.step.weigh(batch))
    kept = sum(storages.values())
    del loss
    return kept


def _costs(job: Job, reading: dict[str, float], step: dict[str, float]) -> dict[str, Any]:
    split, schedule = job.split, job.state.schedule
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    # A bigger batch is faster per sample, so this is the slow end.
    compute = step["seconds"] * split.effective / split.world * schedule.steps
    read = reading["seconds"] * split.effective * schedule.steps / max(1, job.workers)
    keep = job.section.checkpoint.keep
    return {
        "verb": job.verb,
        "exit": 0,
        "parameters": parameters,
        **job.sizes(),
        "effective_batch": split.effective,
        "lr": schedule.peak,
        "steps": schedule.steps,
        "disk_bytes": parameters * BYTES * (SAVED * (keep + 1) + 1),
        "memory_bytes": int(parameters * BYTES * COPIES + step["activations"] * split.per_device),
        "seconds": round(max(compute, read), 1),
        "samples_read": int(reading["samples"]),
        "bad_files": int(reading["bad"]),
        "left_out": job.left_out,
    }


def _rows(job: Job, costs: dict[str, Any]) -> list[tuple[str, str]]:
    free = free_space()
    return [
        ("parameters", f"{costs['parameters']:,}"),
        job.size_row(),
        ("batch", job.batch_line()),
        ("steps", f"{costs['steps']:,}"),
        ("disk", f"{size(costs['disk_bytes'])} for checkpoints, {size(free)} free here"),
        ("memory", f"about {size(costs['memory_bytes'])} for weights and activations"),
        ("time", f"at most about {duration(costs['seconds'])} on this {job.device.type}"),
        ("bad files", f"{costs['bad_files']} of the {costs['samples_read']} samples read"),
        *((f"left out of {key}", listed(counts)) for key, counts in costs["left_out"].items()),
    ]


def size(count: float) -> str:
    """Format bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
