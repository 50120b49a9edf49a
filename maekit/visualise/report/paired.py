"""Two runs judged on the same samples: the difference, and its error over samples.

Accuracies of two runs on one set have errors that are mostly shared, because both fail on the same
hard samples. The difference of each sample, 1 where only the first run is right and -1 where only
the second is, has a much smaller one (McNemar's test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maekit.engine.run_folder import read_lines
from maekit.visualise.report.markup import Html, number, percent, table, tag

PREDICTIONS = "predictions.jsonl"
_HOW = (
    "Each run beside the first, sample by sample. The error is that of the mean difference over "
    "these samples; it says nothing about other seeds or sets."
)


@dataclass(frozen=True)
class Paired:
    """A run beside another on the same samples.

    Attributes:
        one, other: places of the runs.
        samples: that both judged.
        only_one, only_other: samples that only this run got right.
    """

    one: int
    other: int
    samples: int
    only_one: int
    only_other: int

    @property
    def difference(self) -> float:
        """Top-1 of ``one`` less that of ``other``, a fraction."""
        return (self.only_one - self.only_other) / self.samples

    @property
    def error(self) -> float:
        """The standard error of the difference: sqrt(variance over samples / samples)."""
        unlike = (self.only_one + self.only_other) / self.samples
        return math.sqrt(max(0.0, unlike - self.difference**2) / self.samples)


def paired(folders: Sequence[Path]) -> list[Paired]:
    """Every other run beside the first that left predictions of labels; none where there is none.

    Runs are compared where they judged the same rows, of the same file names and labels.
    """
    found = [(place, right) for place, folder in enumerate(folders) if (right := _right(folder))]
    if not found:
        return []
    first, base = found[0]
    pairs = []
    for place, right in found[1:]:
        if right.keys() != base.keys():
            continue
        wins = sum(right[key] and not base[key] for key in base)
        losses = sum(base[key] and not right[key] for key in base)
        pairs.append(Paired(place, first, len(base), wins, losses))
    return pairs


def _right(folder: Path) -> dict[tuple[int, str, int], bool]:
    """Of each sample (row, file name, class), whether its class has the highest score.

    Empty where the run judged no classes: its labels are several, or amounts.
    """
    found = {}
    for line in read_lines(folder / PREDICTIONS):
        row, name, label, scores = (line.get(key) for key in ("row", "id", "label", "scores"))
        if not isinstance(label, int) or not isinstance(scores, list) or len(scores) < 2:
            return {}
        key = (int(row or 0), PurePosixPath(str(name)).name, label)
        found[key] = scores.index(max(scores)) == label
    return found


def paired_table(pairs: Sequence[Paired], names: Sequence[str]) -> Html:
    """The comparison for people."""
    columns = ("Run", "Beside", "Samples", "Only this one right", "Only the other right",
               "Difference of top-1", "Standard error", "In standard errors")  # fmt: skip
    rows = [
        (
            names[pair.one],
            names[pair.other],
            f"{pair.samples:,}",
            f"{pair.only_one:,}",
            f"{pair.only_other:,}",
            percent(pair.difference).replace("-", "\N{MINUS SIGN}"),
            percent(pair.error),
            number(pair.difference / pair.error if pair.error else None),
        )
        for pair in pairs
    ]
    grid = table(columns, rows, label="Runs paired by sample", numbers=True)
    return tag("div", tag("h3", "The same samples, judged by both"), grid, tag("p", _HOW))
