"""Two runs judged on the same samples: the difference, and its error over samples.

Accuracies of two runs on one set have errors that are mostly shared, because both fail on the same
hard samples. The difference of each sample, 1 where only the first run is right and -1 where only
the second is, has a much smaller one (McNemar's test).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maekit.engine.run_folder import PREDICTIONS
from maekit.errors import DataError
from maekit.visualize.report.run import Predictions, read_predictions

if TYPE_CHECKING:
    from maekit.visualize.report.run import Run

JUDGING = ("finetune", "probe", "evaluate")  # verbs that leave predictions


@dataclass(frozen=True)
class Paired:
    """Two runs compared on the same samples.

    Attributes:
        one, other: places of the runs.
        samples: that both judged.
        only_one, only_other: samples that only this run got right.
        notes: what differs besides the weights: how they were judged, folders of files.
    """

    one: int
    other: int
    samples: int
    only_one: int
    only_other: int
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """Top-1 of ``one`` less that of ``other``, a fraction."""
        return (self.only_one - self.only_other) / self.samples

    @property
    def error(self) -> float:
        """The standard error of the difference: sqrt(variance over samples / samples)."""
        unlike = (self.only_one + self.only_other) / self.samples
        return math.sqrt(max(0.0, unlike - self.difference**2) / self.samples)


@dataclass(frozen=True)
class Unpaired:
    """A run that is compared with no other, and why.

    Attributes:
        run: its place.
        beside: the place of the run that it was compared with; None where there is none.
        reason: why they are not compared.
    """

    run: int
    beside: int | None
    reason: str


@dataclass(frozen=True)
class Pairing:
    """Runs of which something was judged: every one is in a pair, or left out with a reason.

    Both are empty for a single run, and where none of the runs judges labels.
    """

    pairs: tuple[Paired, ...] = ()
    left_out: tuple[Unpaired, ...] = ()


def paired(runs: Sequence[Run]) -> Pairing:
    """Compare every run with the first that judged the same samples."""
    has_labels = any(run.verb in JUDGING or (run.path / PREDICTIONS).exists() for run in runs)
    if len(runs) < 2 or not has_labels:
        return Pairing()
    left_out: list[Unpaired] = []
    judged: dict[int, Predictions] = {}
    for place, run in enumerate(runs):
        try:
            judged[place] = _judged(run)
        except DataError as error:
            left_out.append(Unpaired(place, None, error.what))
    pairs: list[Paired] = []
    for place, found in judged.items():
        base = next(other for other, each in judged.items() if each.same_samples(found))
        if base != place:
            pairs.append(_pair(place, base, judged, runs))
    alone = judged.keys() - {run for pair in pairs for run in (pair.one, pair.other)}
    left_out += [_alone(place, judged) for place in alone]
    return Pairing(tuple(pairs), tuple(sorted(left_out, key=lambda each: each.run)))


def _judged(run: Run) -> Predictions:
    """Read the run's predictions; raise DataError that says why there are none."""
    path = run.path / PREDICTIONS
    if path.exists():
        return read_predictions(path)
    if run.verb is not None and run.verb not in JUDGING:
        what = f"maekit {run.verb} does not predict labels"
    else:
        state = run.verdict.state
        what = f"no {PREDICTIONS}" + ("" if state == "finished" else f" ({state})")
    raise DataError(what, where=str(path))


def _pair(one: int, other: int, judged: dict[int, Predictions], runs: Sequence[Run]) -> Paired:
    own, base = judged[one], judged[other]
    wins, losses = int((own.right & ~base.right).sum()), int((base.right & ~own.right).sum())
    notes = _other_judge(runs[one].result, runs[other].result)
    if own.folder != base.folder:
        places = [each.folder or "several folders" for each in (own, base)]
        notes.append("files in {}, not {}".format(*places))
    return Paired(one, other, len(base.rows), wins, losses, tuple(notes))


def _other_judge(own: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Say in what the judging of two runs differs, as their results tell it."""
    protocols = [result.get("protocol") for result in (own, base)]
    if protocols[0] != protocols[1]:
        names = [protocol or "an unnamed protocol" for protocol in protocols]
        return ["judged by {}, not {}".format(*names)]
    one, other = (result.get("settings") for result in (own, base))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return []
    unlike = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    unlike.discard("seed")  # the heads are of one kind, however they began
    return [f"judged with other settings: {', '.join(sorted(unlike))}"] if unlike else []


def _alone(place: int, judged: dict[int, Predictions]) -> Unpaired:
    """Say why a run with predictions is compared with none: how the first other one differs."""
    beside = next((other for other in judged if other != place), None)
    if beside is None:
        return Unpaired(place, None, "no other run has predictions that can be compared")
    own, base = judged[place], judged[beside]
    if len(own.rows) != len(base.rows):
        reason = f"judged {len(own.rows):,} samples, not {len(base.rows):,}"
        return Unpaired(place, beside, reason)
    unlike = np.flatnonzero((own.rows != base.rows) | (own.samples != base.samples))
    first = f"first in row {own.rows[unlike[0]]:,}"
    reason = f"{len(unlike):,} of {len(own.rows):,} samples differ in name or class, {first}"
    return Unpaired(place, beside, reason)
