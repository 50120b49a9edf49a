"""The loop with a toy model: accumulation, skipping, callbacks, interruption."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from numerics import close
from torch import Tensor, nn

from maekit.engine.events import Event, StepDone
from maekit.engine.loop import Periodic, TrainState, Weighed, train, update
from maekit.engine.optim import parameter_groups
from maekit.engine.schedule import Schedule
from maekit.errors import Interrupted, NonFiniteError
from maekit.stop import StopSignal


@dataclass
class ToyBatch:
    x: Tensor  # [B, 4]
    weight: Tensor  # [B]


class ToyStep:
    """Least squares; the loss of a sample counts as often as its weight says."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def weigh(self, batch: ToyBatch) -> Weighed:
        return Weighed(batch, float(batch.weight.sum()))  # type: ignore[arg-type]

    def loss(self, weighed: Weighed) -> Tensor:
        batch: Any = weighed.batch
        each = (self.model(batch.x)[:, 0] - batch.x.sum(1)).square()
        return (each * batch.weight).sum()


def toy_state(steps: int = 10, **settings: Any) -> TrainState:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    groups = parameter_groups(model.named_parameters(), 0.05)
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    return TrainState(model, optimizer, Schedule(steps, 0, 0.1, 0.0), 8, 5.0, **settings)


def toy_batch(size: int = 8, seed: int = 0, bad: tuple[int, ...] = ()) -> ToyBatch:
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
    weight = torch.ones(size)
    weight[list(bad)] = 0
    x[list(bad)] = 0
    return ToyBatch(x, weight)


def split(batch: ToyBatch, size: int) -> list[ToyBatch]:
    return [
        ToyBatch(x, w) for x, w in zip(batch.x.split(size), batch.weight.split(size), strict=True)
    ]


def forever(bad_at: tuple[int, ...] = ()) -> Iterator[list[Any]]:
    for number in itertools.count():
        batch = toy_batch(seed=number)
        if number in bad_at:
            batch.x[0, 0] = float("nan")
        yield [batch]


def never_save() -> Periodic:
    return Periodic(10**9, lambda state: None, at_start=False)


@pytest.mark.parametrize("bad", [(), (1,), (0, 1), (0, 1, 2, 3), (6,)])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulation_equals_one_batch(bad: tuple[int, ...], clip: float | None) -> None:
    """Also with bad samples, that fall unevenly into micro-batches, or fill one."""
    results = []
    for size in (8, 4, 2):
        state = toy_state(clip_grad=clip)
        step = ToyStep(state.model)
        losses = [
            update(state, step, split(toy_batch(seed=n, bad=bad), size))[0].item()  # type: ignore[arg-type]
            for n in range(5)
        ]
        results.append((losses, [p.detach().clone() for p in state.trained()]))
    for losses, parameters in results[1:]:
        close(losses, results[0][0], terms=5 * 8 * 4)  # steps of samples of values
        for ours, theirs in zip(parameters, results[0][1], strict=True):
            close(ours, theirs, terms=5 * 8 * 4)


def test_the_gradient_is_that_of_the_mean_over_what_counts() -> None:
    state = toy_state()
    update(state, ToyStep(state.model), [toy_batch(bad=(0, 3))])  # type: ignore[list-item]
    model = toy_state().model
    good = toy_batch(bad=(0, 3))
    kept = good.x[good.weight > 0]
    (model(kept)[:, 0] - kept.sum(1)).square().mean().backward()
    for ours, theirs in zip(state.model.parameters(), model.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        close(ours.grad, theirs.grad, terms=8 * 4)


def test_a_batch_of_bad_samples_changes_nothing() -> None:
    state = toy_state()
    before = [p.detach().clone() for p in state.trained()]
    update(state, ToyStep(state.model), [toy_batch(bad=tuple(range(8)))])  # type: ignore[list-item]
    assert state.step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, state.trained(), strict=True))


def test_a_non_finite_step_is_skipped_and_training_goes_on() -> None:
    state = toy_state(steps=6)
    seen: list[Event] = []
    settings: dict[str, Any] = {"save": never_save(), "emit": seen.append, "stop": StopSignal()}
    train(state, ToyStep(state.model), [], batches=forever(bad_at=(2,)), **settings)
    losses = [event.loss for event in seen if isinstance(event, StepDone)]
    assert [loss == loss for loss in losses] == [True, True, False, True, True, True]
    assert all(bool(p.isfinite().all()) for p in state.trained())
    # Exactly skipped: as if the step had never been, but for the learning rates.
    moments = state.optimizer.state[state.trained()[0]]
    assert float(moments["step"]) == 5
    assert int(state.nonfinite_streak) == 0


def test_too_many_in_a_row_stop_the_run_with_untouched_weights() -> None:
    state = toy_state(steps=50, max_nonfinite=3)
    kept: dict[int, list[Tensor]] = {}

    def remember(now: TrainState) -> None:
        kept[now.step] = [p.detach().clone() for p in now.trained()]

    settings: dict[str, Any] = {
        "save": never_save(), "emit": lambda event: None, "stop": StopSignal(),
    }  # fmt: skip
    batches = forever(bad_at=tuple(range(4, 50)))
    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        train(state, ToyStep(state.model), [Periodic(1, remember)], batches=batches, **settings)
    assert state.step == 7
    for now, then in zip(state.trained(), kept[4], strict=True):
        assert torch.equal(now, then)


def test_callbacks_come_at_the_start_every_so_often_and_at_the_end() -> None:
    state = toy_state(steps=7)
    calls: dict[str, list[int]] = {"validate": [], "late": [], "save": []}
    callbacks = [
        Periodic(3, lambda now: calls["validate"].append(now.step)),
        Periodic(5, lambda now: calls["late"].append(now.step), at_start=False),
    ]
    save = Periodic(4, lambda now: calls["save"].append(now.step), at_start=False)
    settings: dict[str, Any] = {"emit": lambda event: None, "stop": StopSignal()}
    train(state, ToyStep(state.model), callbacks, batches=forever(), save=save, **settings)
    assert calls == {"validate": [0, 3, 6, 7], "late": [5, 7], "save": [4, 7, 7]}


def test_an_interruption_saves_and_the_rest_follows_once() -> None:
    state = toy_state(steps=7)
    stop = StopSignal()
    calls: list[int] = []
    saved: list[tuple[int, int]] = []

    def validate(now: TrainState) -> None:
        calls.append(now.step)

    def stopping(batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
        for number, batch in enumerate(batches):
            if number == 2:
                stop.requested = "SIGTERM"
            yield batch

    save = Periodic(10**6, lambda now: saved.append((now.step, now.last_evaluated)), at_start=False)
    settings: dict[str, Any] = {"save": save, "emit": lambda event: None}
    step = ToyStep(state.model)
    with pytest.raises(Interrupted):
        train(
            state, step, [Periodic(3, validate)], batches=stopping(forever()), stop=stop, **settings
        )
    assert saved == [(3, 2)]
    assert calls == [0]
    train(state, step, [Periodic(3, validate)], batches=forever(), stop=StopSignal(), **settings)
    assert calls == [0, 3, 6, 7]


class NormedStep(ToyStep):
    """Draws for a dropout and keeps running statistics; a signal comes at a chosen micro-batch."""

    def __init__(self, model: nn.Module, stop: StopSignal, at: int) -> None:
        super().__init__(model)
        self.stop, self.at, self.calls = stop, at, 0

    def loss(self, batch: ToyBatch) -> tuple[Tensor, float]:
        self.calls += 1
        if self.calls == self.at:
            self.stop.requested = "SIGINT"
        return super().loss(batch)


def normed_state() -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), 0.05), fused=True)
    return TrainState(model, optimizer, Schedule(3, 0, 0.1, 0.0), 8, 5.0)


@pytest.mark.parametrize("at", [5, 6, 7])  # the first, second and third of the second update's four
def test_a_signal_is_heeded_between_micro_batches(at: int) -> None:
    """The update that it falls into is made again after a resume, by the same random draws."""

    def batches(start: int) -> Iterator[list[ToyBatch]]:
        return iter([split(toy_batch(seed=number), 2) for number in range(start, 3)])

    def trained(state: TrainState, start: int, at: int = 0) -> int:
        with StopSignal(signals=False) as stop:
            step = NormedStep(state.model, stop, at)
            todo: dict[str, Any] = {"batches": batches(start), "emit": lambda _: None}
            save = Periodic(100, lambda _: None)
            with pytest.raises(Interrupted, match="after step 1, saved") if at else nullcontext():
                train(state, step, [], save=save, stop=stop, **todo)
            return step.calls

    torch.manual_seed(1)
    whole = normed_state()
    assert trained(whole, 0) == 12
    torch.manual_seed(1)
    parted = normed_state()
    assert trained(parted, 0, at) == at  # no micro-batch after the signal
    assert parted.step == 1
    trained(parted, parted.step)
    for one, other in zip(
        whole.model.state_dict().values(), parted.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
