"""How long reading a sample takes, stage by stage: one process, one sample after the other."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from maekit.data.order import Key
    from maekit.data.reader import SampleReader

# Opening a file (of pictures, reading it); making pixels of it; cutting, resizing and changing
# them; drawing masks.
STAGES = ("read", "decode", "resize", "mask")


def seconds_by_stage(reader: SampleReader, keys: Iterable[Key], limit: float) -> dict[str, float]:
    """Measure the mean seconds of each stage over samples, until ``limit`` seconds have passed.

    Samples that cannot be read are passed over; where there is no other, all stages are 0.
    """
    total, samples = dict.fromkeys(STAGES, 0.0), 0
    began = time.perf_counter()
    for key in keys:
        if samples and time.perf_counter() - began > limit:
            break
        found = _one(reader, key)
        if found is not None:
            samples += 1
            for stage, seconds in zip(STAGES, found, strict=True):
                total[stage] += seconds
    return {stage: seconds / max(1, samples) for stage, seconds in total.items()}


def _one(reader: SampleReader, key: Key) -> tuple[float, float, float, float] | None:
    decoding = 0.0

    def timed(read: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:  # noqa: ANN401 - whatever a dataset's read takes
            nonlocal decoding
            began = time.perf_counter()
            try:
                return read(*args)
            finally:
                decoding += time.perf_counter() - began

        return run

    marks = [time.perf_counter()]
    try:
        source = reader.dataset.open(key.index)
        marks.append(time.perf_counter())
        source = replace(source, read=timed(source.read))
        views, _ = reader.read_views(source, reader.plans(source, key), key)
    except Exception:  # noqa: BLE001 - a file may fail in any way; the loader counts those
        return None
    marks.append(time.perf_counter())
    reader.masks(key, views[0].transpose(0, 2, 3, 4, 1))
    marks.append(time.perf_counter())
    opened, seen, masked = (after - before for before, after in pairwise(marks))
    return opened, decoding, seen - decoding, masked
