"""Differences of two rows, paired over seeds and judged samples, with their standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from maekit.visualize.report.run import Predictions

RESOLVED = 2.0  # a difference of so many standard errors counts


@dataclass(frozen=True)
class Difference:
    """One row less another.

    Attributes:
        value: mean over seeds.
        seeds: how many both rows have.
        over_seeds: its standard error over seeds; None for a single one.
        over_samples: its standard error over the samples that both judged; None where none were.
        samples: how many of them.
    """

    value: float
    seeds: int
    over_seeds: float | None
    over_samples: float | None
    samples: int | None

    @property
    def error(self) -> float | None:
        """The standard error: both parts added in squares, which is a little too much.

        What neither seeds nor samples explain is in both of them.
        """
        parts = [part for part in (self.over_seeds, self.over_samples) if part is not None]
        return math.hypot(*parts) if parts else None

    @property
    def resolved(self) -> bool:
        """Whether it is larger than twice its standard error."""
        return self.error is not None and abs(self.value) > RESOLVED * self.error


def difference(
    one: Mapping[int, float],
    other: Mapping[int, float],
    judged: Mapping[int, Predictions] | None = None,
    others: Mapping[int, Predictions] | None = None,
) -> Difference | None:
    """Subtract two rows, seed by seed.

    Args:
        one: values by seed.
        other: those to be subtracted.
        judged: what ``one`` predicted, by seed; used where both predicted the same samples.
        others: likewise of ``other``.

    Returns:
        None where the rows share no seed.
    """
    seeds = [seed for seed in one if seed in other]
    if not seeds:
        return None
    steps = [one[seed] - other[seed] for seed in seeds]
    over_seeds = statistics.stdev(steps) / math.sqrt(len(steps)) if len(steps) > 1 else None
    over_samples, samples = _over_samples(seeds, judged or {}, others or {})
    return Difference(statistics.fmean(steps), len(seeds), over_seeds, over_samples, samples)


def _over_samples(
    seeds: list[int], judged: Mapping[int, Predictions], others: Mapping[int, Predictions]
) -> tuple[float | None, int | None]:
    """Return the standard error over samples, of each sample's difference averaged over seeds."""
    if not all(seed in judged and seed in others for seed in seeds):
        return None, None
    pairs = [(judged[seed], others[seed]) for seed in seeds]
    first = pairs[0][0]
    if not all(first.same_samples(each) for pair in pairs for each in pair):
        return None, None
    each = np.mean([own.right.astype(float) - base.right for own, base in pairs], axis=0)
    return float(each.std()) / math.sqrt(len(each)), len(each)
