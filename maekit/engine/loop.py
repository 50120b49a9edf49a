"""The training loop: callbacks, update, again.

It trains any step object; it knows neither masks nor files.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from maekit.engine import distributed, parallel
from maekit.engine.events import Emit, StepDone, Throughput
from maekit.engine.skipped import (
    APPLIED,
    NONFINITE,
    NOTHING,
    SCALER,
    WORDS,
    NameSamples,
    Skipped,
)
from maekit.errors import Interrupted
from maekit.stop import StopSignal, check

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.schedule import Schedule
    from maekit.tokens import Mask


# Reading numbers back from an accelerator makes it wait; a CPU has nothing to wait for.
STEPS_PER_READ = {"cpu": 1}
STEPS_PER_READ_ELSEWHERE = 10


@dataclass
class Periodic:
    """A callback: called every so many steps, or minutes, and once more at the end.

    Attributes:
        every: number of steps, or time that must pass.
        function: what is done.
        at_start: also at step 0, where ``every`` counts steps.
        or_when: another reason to do it, at any step but 0.
    """

    every: int | timedelta
    function: Callable[[TrainState], None]
    at_start: bool = True
    or_when: Callable[[TrainState], bool] | None = None
    _last: float = field(default_factory=time.monotonic)

    def is_due(self, state: TrainState, now: float | None = None) -> bool:
        """Return whether to call the function now, by the monotonic clock of rank 0."""
        if state.finished:
            return True
        if state.step == 0:
            return self.at_start and isinstance(self.every, int)
        if self.or_when is not None and self.or_when(state):
            return True
        if isinstance(self.every, int):
            return state.step % self.every == 0
        return (now or time.monotonic()) - self._last >= self.every.total_seconds()

    def call(self, state: TrainState) -> None:
        """Call it, and start the clock anew."""
        self.function(state)
        self._last = time.monotonic()


def train(
    state: TrainState,
    step: Step,
    callbacks: Sequence[Periodic],
    *,
    batches: Iterator[Sequence[Batch]],
    save: Periodic,
    emit: Emit,
    stop: StopSignal,
    name_samples: NameSamples = lambda _: (),
) -> None:
    """Train until the budget is spent.

    Args:
        state: where training starts; it is changed in place.
        step: computes the loss of a micro-batch.
        callbacks: called between updates, in this order, when they are due.
        batches: the micro-batches of each coming update.
        save: writes a checkpoint; called last at a step, at the end, and before an interruption.
        emit: called with every event.
        stop: looked at before every update.
        name_samples: returns those samples of a step's batch whose own loss is not finite; None
            for all of them.

    Raises:
        Interrupted: a signal asked for it; the state was saved.
        NonFiniteError: too many updates were not finite; model and optimizer are as before the
            last of them.
    """

    def named(step: int) -> Sequence[str] | None:
        with parallel.whole(state.model):
            return name_samples(step)

    meter = Meter(state, emit, Skipped(state, emit, named))
    stop.deferred = distributed.size() > 1  # ranks leave together, between two updates
    try:
        _train(state, step, callbacks, meter, batches=batches, save=save, stop=stop)
    except Interrupted as error:
        # Between two updates, or within a callback, which is called again after a resume.
        meter.flush()
        save.call(state)
        msg = f"interrupted after step {state.step}, saved"
        raise Interrupted(msg) from error


def _train(
    state: TrainState,
    step: Step,
    callbacks: Sequence[Periodic],
    meter: Meter,
    *,
    batches: Iterator[Sequence[Batch]],
    save: Periodic,
    stop: StopSignal,
) -> None:
    ranks = parallel.Synchronized(state, step.loss)
    first = state.step + 1
    while True:
        stops, now = distributed.sums(
            float(bool(stop.requested)), time.monotonic() if distributed.is_first() else 0.0
        )
        if stops:
            raise Interrupted("interrupted")
        if state.finished:
            meter.flush()
            meter.skipped.check()
        due = (
            [] if state.last_evaluated >= state.step else [c for c in callbacks if c.is_due(state)]
        )
        if due:
            meter.flush()
            if state.finished:  # the last measurement may take as long as an epoch
                save.call(state)
        with parallel.whole(state.model, *state.averages) if due else nullcontext():
            for callback in due:
                callback.call(state)
        arrived, state.last_evaluated = state.last_evaluated < state.step, state.step
        if arrived and save.is_due(state, now):
            meter.flush()
            save.call(state)
        if state.finished:
            meter.flush()
            return
        meter.restart(pause=bool(due))
        with meter.waiting():
            micro_batches = next(batches)
        meter.add(_whole_update(state, step, micro_batches, ranks))
        if state.step == first:
            parallel.check_equal(state.model, first)


def _whole_update(
    state: TrainState, step: Step, batches: Sequence[Batch], ranks: parallel.Synchronized
) -> Update:
    """Make an update; where a signal comes amidst, leave the state as it was before."""
    before = Rewind(state)
    try:
        return update(state, step, batches, ranks)
    except Interrupted:
        before.restore()
        raise


class Rewind:
    """What an update that is left half done has changed: random draws, and running statistics."""

    def __init__(self, state: TrainState) -> None:
        self._buffers = [(each, each.clone()) for each in _statistics(state.model)]
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None

    def restore(self) -> None:
        """Go back to before the update."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)
        for buffer, before in self._buffers:
            buffer.copy_(before)


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    """Yield the buffers that batch norms change while training."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001 - of all dimensions
            yield from module.buffers(recurse=False)


class Update(NamedTuple):
    """What became of an update; the tensors are still on the device.

    Attributes:
        loss: the mean loss.
        norm: the gradient's norm before clipping.
        outcome: one of ``maekit.engine.skipped``'s.
    """

    loss: Tensor
    norm: Tensor
    outcome: Tensor


def update(
    state: TrainState,
    step: Step,
    batches: Sequence[Batch],
    ranks: parallel.Synchronized | None = None,
) -> Update:
    """Make one optimizer step over an effective batch; skip a non-finite one on the device.

    The gradient is that of (sum of losses) / (sum of weights) over all micro-batches of all ranks,
    however many of their samples count.

    Args:
        state: is changed in place.
        step: computes the loss.
        batches: this rank's micro-batches.
        ranks: lets gradients meet; default: this process is alone.

    Raises:
        Interrupted: a signal asked for it between two micro-batches; nothing was learned.
    """
    ranks = ranks or parallel.Synchronized(state, step.loss)
    lr = state.schedule.lr(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)  # layer-wise, where there is a decay
    state.optimizer.zero_grad(set_to_none=True)
    weighed = [step.weigh(batch) for batch in batches]
    (weights,) = distributed.sums(sum(each.weight for each in weighed))
    if weights == 0:  # every sample was bad, or has no box with an action
        state.step += 1
        device = next(state.model.parameters()).device
        return Update(*torch.tensor([math.nan, 0.0, float(NOTHING)], device=device))
    total = None
    for number, each in enumerate(weighed, start=1):
        check()
        with ranks.collecting(last=number == len(weighed)):
            loss = ranks.loss(each)
            scaled = loss / (weights / distributed.size())  # gradients are averaged over ranks
            (state.scaler.scale(scaled) if state.scaler else scaled).backward()
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None  # noqa: S101 - something was weighed
    state.step += 1
    total = distributed.add_up(total)
    norm = _finish_gradients(state)
    return Update(total / weights, norm, _skip_or_step(state, norm, total))


def _finish_gradients(state: TrainState) -> Tensor:
    """Unscale and clip; return the norm before clipping."""
    if state.scaler:
        state.scaler.unscale_(state.optimizer)
    parameters = state.trained()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if state.clip_grad is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, state.clip_grad, norm)
    return parallel.full(norm)


def _skip_or_step(state: TrainState, norm: Tensor, loss: Tensor) -> Tensor:
    """Step unless something is not finite, decided on the device without waiting for it."""
    finite = norm.isfinite() & loss.isfinite()
    outcome = torch.where(finite, float(APPLIED), float(NONFINITE))
    if state.scaler:
        scale = state.scaler._get_scale_async()  # noqa: SLF001 - get_scale would wait
        if scale is not None:  # as long as it can be lowered, an overflow is the scaler's
            lowers = ~finite & loss.isfinite() & (scale.to(norm.device) > 1)
            outcome = torch.where(lowers, float(SCALER), outcome)
    streak = state.nonfinite_streak.to(norm.device)
    streak = torch.where(outcome == NONFINITE, streak + 1, streak)
    state.nonfinite_streak = torch.where(finite, 0.0, streak)
    if state.scaler:
        state.scaler.step(state.optimizer)
        state.scaler.update()
        return outcome
    # GradScaler makes fused optimizers skip a step by the same attribute (torch.optim, found_inf).
    state.optimizer.grad_scale = None  # type: ignore[attr-defined]
    state.optimizer.found_inf = (~finite).to(torch.float32)  # type: ignore[attr-defined]
    state.optimizer.step()
    return outcome


class Meter:
    """Collector of numbers on the device: reads them back rarely, and measures the throughput."""

    def __init__(self, state: TrainState, emit: Emit, skipped: Skipped) -> None:
        self.state = state
        self.emit = emit
        self.skipped = skipped
        device = next(state.model.parameters()).device
        self.device = device
        self.every = STEPS_PER_READ.get(device.type, STEPS_PER_READ_ELSEWHERE)
        self.pending: list[tuple[int, float, Update]] = []
        self.began = time.perf_counter()
        self.waited = 0.0
        self.rate: float | None = None  # seconds per step, smoothed

    def restart(self, *, pause: bool) -> None:
        """Leave the time that callbacks took out of the pace."""
        if pause and not self.pending:
            self.began, self.waited = time.perf_counter(), 0.0

    def waiting(self) -> _Stopwatch:
        """Return a context whose time counts as waiting for data."""
        return _Stopwatch(self)

    def add(self, made: Update) -> None:
        """Take in the numbers of one update."""
        lr = self.state.schedule.lr(self.state.step - 1)
        self.pending.append((self.state.step, lr, made))
        if len(self.pending) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Read back what is pending, emit it, and stop the run if too little of it is finite."""
        if not self.pending:
            return
        rows = [torch.stack([each.float() for each in made]) for _, _, made in self.pending]
        numbers = torch.stack(rows).tolist()
        pending, self.pending = self.pending, []
        for (step, _, _), (_, _, outcome) in zip(pending, numbers, strict=True):
            self.skipped.add(step, int(outcome))
        newest, pace = self.state.step, self._pace(len(pending))
        for (step, lr, _), (loss, norm, outcome) in zip(pending, numbers, strict=True):
            epoch, why = step / self.state.steps_per_epoch, WORDS.get(int(outcome))
            last = pace if step == newest else None
            self.emit(StepDone(step, epoch, loss, lr, norm, why, last))
        self.skipped.check()

    def _pace(self, steps: int) -> Throughput:
        now = time.perf_counter()
        seconds = max(now - self.began, 1e-9)
        waited, self.began, self.waited = distributed.largest(self.waited), now, 0.0
        per_step = seconds / steps
        self.rate = per_step if self.rate is None else 0.9 * self.rate + 0.1 * per_step
        return Throughput(
            total_steps=self.state.schedule.steps,
            samples_per_second=self.state.samples_per_step / per_step,
            data_wait=min(1.0, waited / seconds),
            memory=peak_memory(self.device),
            skipped_steps=self.skipped.record["nonfinite"],
            seconds_left=(self.state.schedule.steps - self.state.step) * self.rate,
        )


class _Stopwatch:
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.meter.waited += time.perf_counter() - self.began


def peak_memory(device: torch.device) -> float:
    """Return peak bytes of an accelerator, or of this process on a CPU; 0 where unknown."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


class Weighed(NamedTuple):
    """A micro-batch whose share in an update is known, before anything is computed of it.

    Attributes:
        batch: as it was read.
        weight: the sum of the weights that its loss will be summed with.
        mask: of its tokens, where there are masks; still on the CPU.
    """

    batch: Batch
    weight: float
    mask: Mask | None = None


class Step(Protocol):
    """Loss of one verb: pre-training, fine-tuning, probes and the tokenizer each bring one."""

    def weigh(self, batch: Batch) -> Weighed:
        """Weigh a micro-batch; nothing of it is on the device yet."""
        ...

    def loss(self, weighed: Weighed) -> Tensor:
        """Return the weighted sum of a micro-batch's loss."""
        ...


@dataclass
class TrainState:
    """A training between two updates.

    Attributes:
        model: what is trained, uncompiled.
        optimizer: its groups name their parameters under ``"names"``.
        step: finished updates.
        last_evaluated: the last step whose callbacks were called.
        nonfinite_streak: non-finite updates in a row, on the device so that nothing waits for it.
        sharding: how ranks share the parameters out; None: each has all of them.
        averages: modules with the same parameters, which follow the model's: they are shared out
            as these.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    samples_per_step: int
    steps_per_epoch: float
    scaler: torch.amp.GradScaler | None = None
    clip_grad: float | None = None
    max_nonfinite: int = 10
    step: int = 0
    last_evaluated: int = -1
    nonfinite_streak: Tensor = field(default_factory=lambda: torch.zeros(()))
    extra: dict[str, Any] = field(default_factory=dict)  # plain values that a verb keeps
    random: list[dict[str, Tensor]] = field(default_factory=list)  # of each rank, when saved
    sharding: parallel.Sharding | None = None
    averages: Sequence[nn.Module] = ()

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self.step >= self.schedule.steps

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer changes."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
