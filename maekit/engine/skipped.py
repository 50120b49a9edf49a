"""Updates that were skipped because they were not finite: counted, named, and at last too many.

A float16 scaler that still lowers its scale skips updates as well. That is how it finds its scale,
and it is counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from maekit.engine.events import Emit, Note
from maekit.errors import NonFiniteError

if TYPE_CHECKING:
    from maekit.engine.loop import TrainState

APPLIED, NONFINITE, SCALER, NOTHING = range(4)  # what became of an update
WORDS = {NONFINITE: "nonfinite", SCALER: "scaler", NOTHING: "nothing to learn"}  # in metrics.jsonl
KEY = "skipped"  # of the state's extra, so that a resumed run keeps counting
WINDOW = 1000  # updates that are looked back on
MOST_IN_WINDOW = 10  # 1 % of them
SHORT_FRACTION = 0.25  # of all updates of a run that is shorter than the window
LOOKED_AT = 3  # skipped updates whose samples are looked for
NAMED, SHOWN = 20, 5  # samples in result.json, and in a line
NameSamples = Callable[[int], Sequence[str] | None]
HINT = (
    "look at the samples that are named, lower the learning rate, set clip_grad, or use "
    "precision: fp32"
)


class Skipped:
    """Count the updates of a run that were skipped.

    Args:
        state: the training; the count is kept in its ``extra``.
        emit: called with a note of them.
        name_samples: returns those samples of a step's batch whose own loss is not finite; None
            for all of them.
    """

    def __init__(self, state: TrainState, emit: Emit, name_samples: NameSamples) -> None:
        self.state, self.emit, self.name_samples = state, emit, name_samples

    @property
    def record(self) -> dict[str, Any]:
        """The count as it is kept."""
        fresh = {"nonfinite": 0, "scaler": 0, "no_samples": 0, "recent": [], "samples": []}
        found: dict[str, Any] = self.state.extra.setdefault(KEY, fresh)
        return found

    def add(self, step: int, outcome: int) -> None:
        """Count what became of an update."""
        if outcome == APPLIED:
            return
        record = self.record
        if outcome != NONFINITE:
            record["scaler" if outcome == SCALER else "no_samples"] += 1
            return
        record["nonfinite"] += 1
        record["recent"] = [each for each in record["recent"] if each > step - WINDOW] + [step]
        if record["nonfinite"] > LOOKED_AT:
            return
        names = self.name_samples(step - 1)
        if names is None:
            why = "of every sample of its batch: the weights have diverged"
        elif names:
            record["samples"] = list(dict.fromkeys([*record["samples"], *names]))[:NAMED]
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            why = f"of {', '.join(names[:SHOWN])}{more}"
        else:
            why = "of no single sample of its batch"
        text = f"step {step}: the loss or its gradient is not finite, {why}; the update is skipped"
        self.emit(Note(text, warning=True))

    def check(self) -> None:
        """Raise NonFiniteError if too many updates were skipped."""
        state, record = self.state, self.record
        streak = int(state.nonfinite_streak)
        if streak >= state.max_nonfinite:
            self._refuse(f"the loss or its gradient was not finite in {streak} steps in a row")
        recent = [each for each in record["recent"] if each > state.step - WINDOW]
        if state.step >= WINDOW and len(recent) > MOST_IN_WINDOW:
            self._refuse(f"{len(recent)} of the last {WINDOW:,} updates were not finite")
        if not state.finished or state.step == 0:
            return
        skipped = record["nonfinite"]
        if skipped + record["scaler"] + record["no_samples"] >= state.step:
            self._refuse(f"none of {state.step} updates could be applied")
        if state.step < WINDOW and skipped > SHORT_FRACTION * state.step:
            self._refuse(f"{skipped} of {state.step} updates were not finite")

    def _refuse(self, what: str) -> None:
        samples = self.record["samples"]
        of = f"; samples: {', '.join(samples)}" if samples else ""
        raise NonFiniteError(what + of, where=f"step {self.state.step}", hint=HINT)


def summary(state: TrainState) -> dict[str, Any]:
    """Return what result.json says of skipped updates."""
    record = state.extra.get(KEY, {})
    found = {"nonfinite_steps": record.get("nonfinite", 0)}
    if record.get("samples"):
        found["nonfinite_samples"] = record["samples"]
    if record.get("scaler"):
        found["scaler_skips"] = record["scaler"]
    return found
