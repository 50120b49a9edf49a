"""Measure things side by side: in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LEAST_PAIRS = 9


@dataclass
class Group:
    """What is compared.

    Attributes:
        name: of the group.
        unit: of the numbers: what ``scale`` makes of seconds.
        work: does one round of work, by name; the first one is ours. Where it returns a float,
            these are the seconds that count, and not those by the clock.
        scale: of a round's seconds.
        clock: seconds; CPU time of the process where one thread works, else wall-clock time.
        skipped: reasons why others are missing.
        facts: more that is known, such as peak memory; some only when all of it is over.
        most: rounds at most, of what takes long.
    """

    name: str
    unit: str
    work: Mapping[str, Callable[[int], object]]
    scale: float = 1e3
    clock: Callable[[], float] = time.process_time
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    most: int = 99


def compare(group: Group, pairs: int = LEAST_PAIRS) -> dict[str, Any]:
    """Run all sides in turns, and return medians and how many times ours is as fast as each.

    A ratio is the median over rounds of theirs over ours, so above 1 where ours is faster.
    """
    names = list(group.work)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for work in group.work.values():
        work(0)  # warms up
    gc.collect()
    for number in range(pairs):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            began = group.clock()
            told = group.work[name](number + 1)
            took = group.clock() - began
            seconds[name].append(told if isinstance(told, float) else took)
    ours = seconds[names[0]]
    sides = {
        name: {
            "median": statistics.median(took) * group.scale,
            "least": min(took) * group.scale,
            "most": max(took) * group.scale,
            "ratio": statistics.median(
                theirs / mine for theirs, mine in zip(took, ours, strict=True)
            ),
        }
        for name, took in seconds.items()
    }
    return {
        "unit": group.unit,
        "pairs": pairs,
        "sides": sides,
        "skipped": group.skipped,
        "facts": group.facts,
    }
