"""``--dry-run``: build a run and make one small step, so that its cost is known beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from maekit.cli.output import print_json, print_table
from maekit.data.loader import Loader
from maekit.data.memory import free_memory
from maekit.data.stand_in import standing_in
from maekit.engine.job import Job
from maekit.engine.left_out import SeenLeftOut
from maekit.engine.loggers import require_loggers
from maekit.engine.loop import peak_memory, update
from maekit.engine.peak import AHEAD, MOMENTS, held, peaks_of, shares_of
from maekit.engine.reporters import duration
from maekit.engine.run_folder import free_space
from maekit.engine.schedule import BatchSplit
from maekit.errors import DataError
from maekit.text import listed

if TYPE_CHECKING:
    from maekit.engine.events import Emit
    from maekit.recipe.schema import Recipe

MICRO = 2  # samples of the one step that is made
READ = 16  # samples of each of the two batches that are read
BYTES = 4  # float32
SAVED = 3  # weights and moments in a checkpoint
GB = 1e9


class Asked(NamedTuple):
    """What a cost is asked for, besides the recipe.

    Attributes:
        samples: how many data.train has, where noise is to stand in for it.
        devices: how many there are.
        memory: GB of one of them; None: what is free on this one.
    """

    samples: int | None = None
    devices: int = 1
    memory: float | None = None

    def available(self, device: torch.device) -> int | None:
        """Return the bytes that a run can have on one device; None where nobody says."""
        if self.memory is not None:
            return int(self.memory * GB)
        if device.type == "cuda":
            return int(torch.cuda.mem_get_info(device)[1])
        return free_memory()


def dry_run(
    kind: type[Job],
    recipe: Recipe,
    device: torch.device,
    emit: Emit,
    *,
    source: str | None,
    json: bool,
    asked: Asked,
) -> int:
    """Read two batches, make one step of at most two samples, and print what the run would cost.

    Writes nothing but caches (drawn sample images, compiled kernels).
    """
    require_loggers(recipe)
    with standing_in(asked.samples):
        job = _job(kind, recipe, device, emit, source)
        world = BatchSplit.of(
            job.section.batch, asked.devices, samples=len(job.train), where=f"{job.verb}.batch"
        )
        job.split = world
        job.prepare(None)
        reading = _read_two(job)
        step = _one_step(job)
        costs = _costs(job, reading, step) | _verdict(job, step, asked)
    if json:
        print_json(costs)
    else:
        print_table(("dry run", ""), _rows(job, costs, asked))
    return 0


def _job(
    kind: type[Job], recipe: Recipe, device: torch.device, emit: Emit, source: str | None
) -> Job:
    try:
        return kind(recipe, device, emit, source=source)
    except DataError as error:
        if error.where is None or not error.where.startswith("data."):
            raise
        hint = f"{error.hint}; or --samples N: the cost for N samples, without the data"
        raise DataError(error.what, where=error.where, hint=hint) from error


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
    """Measure an update: seconds per sample, and bytes per sample and besides."""
    size = min(job.split.per_device, MICRO)
    with Loader(
        job.reader,
        [job.stream.keys(0)[:size], job.stream.keys(0)[: 2 * size]],
        workers=0,
        timeout=1.0,
    ) as loader:
        batch, larger = loader
    job.model.train()
    peaks = [peaks_of(job.step, job.state.optimizer, each).whole for each in (batch, larger)]
    each = max(0.0, (peaks[1] - peaks[0]) / max(1, len(larger.keys) - len(batch.keys)))
    if len(larger.keys) == len(batch.keys):  # the set has no more
        each = peaks[0] / len(batch.keys)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        update(job.state, job.step, [batch])
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds / size,
        "activations": each,
        "fixed": max(0.0, peaks[0] - each * len(batch.keys)),
        "pixels": sum(view.nbytes for view in batch.views) / len(batch.keys),
    }


def _costs(job: Job, reading: dict[str, float], step: dict[str, float]) -> dict[str, Any]:
    split, schedule = job.split, job.state.schedule
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    # A bigger batch is faster per sample, so this is the slow end.
    compute = step["seconds"] * split.effective / split.world * schedule.steps
    read = reading["seconds"] * split.effective / split.world * schedule.steps
    keep = job.section.checkpoint.keep
    return {
        "verb": job.verb,
        "exit": 0,
        "parameters": parameters,
        **job.sizes(),
        "effective_batch": split.effective,
        "devices": split.world,
        "lr": schedule.peak,
        "steps": schedule.steps,
        "disk_bytes": parameters * BYTES * (SAVED * (keep + 1) + 1),
        "seconds": round(max(compute, read / max(1, job.workers)), 1),
        "samples_read": int(reading["samples"]),
        "bad_files": int(reading["bad"]),
        "left_out": job.left_out,
    }


def _verdict(job: Job, step: dict[str, float], asked: Asked) -> dict[str, Any]:
    """Return the memory that one device takes, whether it has that, and else what to set."""
    split, shares = job.split, shares_of(job)
    trained = held(job.state.trained())
    base = held(job.resident()) + MOMENTS * trained + step["fixed"] - shares.spared
    # Of all micro-batches of an update, as they are read before it.
    pixels = AHEAD * step["pixels"] * split.effective / split.world

    def on_device(accumulation: int) -> float:
        micro = -(-split.effective // (split.world * accumulation))
        at_once = min(micro, job.encoded_at_once)
        activations = step["activations"] * at_once + job.kept_per_sample * micro
        return base + shares.at_once(activations, accumulation)

    shared = job.device.type == "cpu" and asked.memory is None
    here = on_device(split.accumulation) + (pixels if shared else 0)
    available = asked.available(job.device)
    fits = None if available is None else here <= available
    advice = None
    if available is not None and not fits:
        room = available - (pixels if shared else 0)
        advice = _advice(job, on_device, room)
    # The libraries and what is kept of the set: no tensors, and there on a CPU all the same.
    small = base + step["activations"] * MICRO
    program = max(0.0, peak_memory(job.device) - small) if shared else 0.0
    return {
        "memory_bytes": int(here),
        "program_bytes": int(program),
        "pixel_bytes": int(pixels),
        "available_bytes": available,
        "fits": fits,
        "advice": advice,
    }


def _advice(job: Job, on_device: Callable[[int], float], room: float) -> str:
    """Return what to set so that a run fits into memory."""
    split, verb = job.split, job.verb
    each = split.effective // split.world
    for accumulation in range(split.accumulation + 1, each + 1):
        if each % accumulation == 0 and on_device(accumulation) <= room:
            key = "batch.per_device" if job.section.batch.given_per_device else "batch.accumulation"
            value = each // accumulation if key == "batch.per_device" else accumulation
            return f"{verb}.{key}={value}"
    ways = []
    if verb != "probe" and not job.section.activation_checkpointing:
        ways.append(f"{verb}.activation_checkpointing=true")
    if verb != "probe" and split.world > 1 and job.state.sharding is None:
        ways.append(f"{verb}.sharding.name=fsdp")
    ways.append("a smaller model" if ways else "a smaller model or data.size")
    return f"{', '.join(ways)}, or a larger device"


def _rows(job: Job, costs: dict[str, Any], asked: Asked) -> list[tuple[str, str]]:
    free, where = free_space(), "per device" if asked.devices > 1 else "at its peak"
    memory = f"about {size(costs['memory_bytes'])} {where}"
    if costs["program_bytes"]:
        memory += f", beside {size(costs['program_bytes'])} of the program itself"
    if costs["fits"] is not None:
        room = size(costs["available_bytes"])
        said = "fits" if costs["fits"] else f"does not fit: set {costs['advice']}"
        memory += f", of {room}: {said}"
    kind = job.device.type
    how = f"{asked.devices} of this {kind}" if asked.devices > 1 else f"this {kind}"
    how += ", without reading" if asked.samples else ""
    return [
        ("parameters", f"{costs['parameters']:,}"),
        job.size_row(),
        ("batch", job.batch_line()),
        ("steps", f"{costs['steps']:,}"),
        ("disk", f"{size(costs['disk_bytes'])} for checkpoints, {size(free)} free here"),
        ("memory", memory),
        (
            "pixels",
            f"about {size(costs['pixel_bytes'])} wait in the host's memory",
        ),
        ("time", f"at most about {duration(costs['seconds'])} on {how}"),
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
