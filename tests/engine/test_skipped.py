"""Updates that are not finite are counted and named, and too many of them end a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maekit.engine.events import Event, Note, StepDone
from maekit.engine.loop import Periodic, TrainState, Weighed, train, update
from maekit.engine.optim import parameter_groups
from maekit.engine.schedule import Schedule
from maekit.engine.skipped import APPLIED, NONFINITE, SCALER, summary
from maekit.errors import NonFiniteError
from maekit.stop import StopSignal


@dataclass
class Chosen:
    """A step whose loss is not finite at chosen updates, counted from 0."""

    model: nn.Module
    breaks: Callable[[int], bool]
    made: int = 0

    def weigh(self, batch: Any) -> Weighed:
        return Weighed(batch, 2.0)

    def loss(self, weighed: Weighed) -> Tensor:
        loss = self.model(torch.ones(2, 1)).square().sum()
        broken, self.made = self.breaks(self.made), self.made + 1
        return loss * math.inf if broken else loss


def trained(
    steps: int, breaks: Callable[[int], bool], names: Sequence[str] = ()
) -> tuple[TrainState, list[Event]]:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), 0.0), fused=True)
    state = TrainState(model, optimizer, Schedule(steps, 0, 1e-3, 0.0), 2, 5.0, max_nonfinite=10)
    seen: list[Event] = []
    batches: Iterator[Any] = itertools.repeat([None])
    settings: dict[str, Any] = {"batches": batches, "emit": seen.append, "stop": StopSignal()}
    save = Periodic(10**9, lambda _: None, at_start=False)
    try:
        train(state, Chosen(model, breaks), [], save=save, name_samples=lambda _: names, **settings)
    except NonFiniteError as error:
        seen.append(Note(str(error)))
    return state, seen


def ended(seen: list[Event]) -> str:
    last = seen[-1]
    return last.text if isinstance(last, Note) else ""


def test_few_skipped_updates_are_told_named_and_counted() -> None:
    state, seen = trained(40, lambda step: step in (3, 7, 8, 9), ["a.png"])
    assert ended(seen) == ""
    assert summary(state) == {"nonfinite_steps": 4, "nonfinite_samples": ["a.png"]}
    warnings = [each.text for each in seen if isinstance(each, Note) and each.warning]
    assert len(warnings) == 3  # later ones are only counted
    assert "step 4" in warnings[0]
    assert "a.png" in warnings[0]
    steps = [each for each in seen if isinstance(each, StepDone)]
    assert [each.step for each in steps if each.skipped == "nonfinite"] == [4, 8, 9, 10]
    assert steps[-1].throughput is not None
    assert steps[-1].throughput.skipped_steps == 4


@pytest.mark.parametrize(
    ("steps", "breaks", "said"),
    [
        (3, lambda step: True, "none of 3 updates could be applied"),
        (40, lambda step: step % 3 == 0, "14 of 40 updates were not finite"),
        (40, lambda step: step >= 30, "10 steps in a row"),
        (1200, lambda step: step % 90 == 0, "12 of the last 1,000 updates"),
    ],
)
def test_too_many_end_the_run(steps: int, breaks: Callable[[int], bool], said: str) -> None:
    _, seen = trained(steps, breaks)
    assert said in ended(seen)


@pytest.mark.parametrize(
    ("steps", "breaks"),
    [
        (40, lambda step: step % 4 == 0),  # a quarter, not more
        (1200, lambda step: step % 120 == 0),  # 10 in 1,200
        (2400, lambda step: step % 110 == 0),  # never more than 10 in a row of 1,000
    ],
)
def test_as_many_as_are_tolerated(steps: int, breaks: Callable[[int], bool]) -> None:
    state, seen = trained(steps, breaks)
    assert ended(seen) == ""
    assert state.finished


def test_what_follows_updates_follows_skipped_ones_too() -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), 0.0), fused=True)
    state = TrainState(model, optimizer, Schedule(4, 0, 1e-2, 0.0), 2, 5.0, max_nonfinite=10)
    seen: list[tuple[int, float]] = []  # as Target.after_update is called
    optimizer.register_step_post_hook(
        lambda *_: seen.append((state.step, float(model.weight.detach())))
    )
    step = Chosen(model, lambda number: number == 1)
    for _ in range(3):
        update(state, step, [None])  # type: ignore[list-item]
    assert [number for number, _ in seen] == [1, 2, 3]
    assert seen[0][1] == seen[1][1] != seen[2][1]


def test_a_scaler_that_lowers_its_scale_is_counted_apart() -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 30.0)
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), 0.0), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # overflows
    state = TrainState(model, optimizer, Schedule(99, 0, 1e-3, 0.0), 2, 5.0, scaler=scaler)
    step = Chosen(model, lambda _: False)
    outcomes = [int(update(state, step, [None]).outcome) for _ in range(20)]  # type: ignore[list-item]
    assert outcomes[0] == SCALER
    assert int(state.nonfinite_streak) == 0
    assert outcomes[-1] == APPLIED
    broken = Chosen(model, lambda _: True)
    assert int(update(state, broken, [None]).outcome) == NONFINITE  # type: ignore[list-item]
