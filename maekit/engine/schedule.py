"""From a recipe's budget to numbers per step: batch split, steps, learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.errors import RecipeError

if TYPE_CHECKING:
    from maekit.recipe.sections import Batch, Rate, Warmup

LR_BATCH = 256  # base learning rates are per 256 samples (Goyal et al., 2017)
# Of ``batch.global: auto``: what it lies between, and how many updates a pass shall have.
SMALLEST, LARGEST, PER_PASS = 8, 256, 30
AUTO_LR = 5e-4  # MAE's fine-tuning of ViT-B (table 9), per 256 samples


@dataclass(frozen=True)
class BatchSplit:
    """Split of the effective batch of decoded samples into devices and micro-batches."""

    effective: int
    per_device: int
    accumulation: int
    world: int = 1

    @property
    def alone(self) -> BatchSplit:
        """The same batch on one device, in as many micro-batches as all devices have."""
        accumulation = self.accumulation * self.world
        return BatchSplit(self.effective, self.per_device, accumulation)

    @classmethod
    def of(
        cls, batch: Batch, world: int = 1, *, samples: int = 0, where: str = "batch"
    ) -> BatchSplit:
        """Derive what is not given, and check what is: the product must be ``batch.global``.

        Args:
            batch: as the recipe gives it.
            world: devices.
            samples: how many data.train has, of which ``auto`` derives the batch.
            where: the section's path.
        """
        total, accumulation = batch.global_, batch.accumulation
        per_device = batch.given_per_device
        given = (per_device or 1) * (accumulation or 1) * world
        if total == "auto":
            whole = per_device is not None and accumulation is not None
            total = given if whole else -(-batch_for(samples) // given) * given
        if per_device and accumulation and given != total:
            msg = (
                f"per_device {per_device} x accumulation {accumulation} x {world} device(s) = "
                f"{given}, but global is {total}"
            )
            raise RecipeError(msg, where=where, hint=f"set global={given}, or drop one")
        if total % given:
            msg = f"global {total} does not divide by {given} (what is given, times the devices)"
            near = max(given, round(total / given) * given)
            raise RecipeError(msg, where=where, hint=f"set global={near}")
        return cls(
            total,
            per_device or total // ((accumulation or 1) * world),
            accumulation or total // ((per_device or total // world) * world),
            world,
        )


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step: linear warm-up from 0, then half a cosine."""

    steps: int
    warmup: int
    peak: float
    floor: float
    counted: int = LR_BATCH  # samples that the peak is scaled with
    endpoint: bool = False  # the last warm-up step already has the peak (VideoMAE's linspace)
    begins: int = 0  # the step that warm-up and cosine begin at
    before: Schedule | None = None  # of an extended run: that of the steps until ``since``
    since: int = 0

    @property
    def first_steps(self) -> int:
        """The budget that the run began with, in updates, however often it was extended."""
        return self.steps if self.before is None else self.before.first_steps

    def lr(self, step: int) -> float:
        """Return the rate of update ``step`` (0-based); the first is 0 where there is a warm-up.

        MAE: util/lr_sched.py; VideoMAE: utils.py, cosine_scheduler.
        """
        if self.before is not None and step < self.since:
            return self.before.lr(step)
        step, steps = step - self.begins, self.steps - self.begins
        if step < self.warmup:
            span = self.warmup - 1 if self.endpoint else self.warmup
            return self.peak * step / span if span else 0.0  # linspace(0, peak, 1) is 0
        progress = (step - self.warmup) / max(1, steps - self.warmup)
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


def batch_for(samples: int) -> int:
    """Return the largest power of two, from 8 to 256, that leaves 30 updates or more in a pass."""
    batch = SMALLEST
    while batch < LARGEST and 2 * batch * PER_PASS <= samples:
        batch *= 2
    return batch


def base_lr(optimizer: Rate, batch: int) -> float:
    """Return the learning rate per 256 samples; ``auto`` keeps that of a smaller batch as high."""
    if optimizer.base_lr == "auto":
        return AUTO_LR * max(1.0, LR_BATCH / batch)
    return optimizer.base_lr


def peak_lr(optimizer: Rate, batch: int) -> float:
    """Return base_lr * batch / 256."""
    return base_lr(optimizer, batch) * batch / LR_BATCH


def floor_lr(optimizer: Rate, batch: int) -> float:
    """Return where the cosine ends: as given (MAE), or per 256 samples (VideoMAE)."""
    if not optimizer.min_lr_scaled:
        return optimizer.min_lr
    return optimizer.min_lr * batch / LR_BATCH


def total_steps(
    *,
    epochs: float | None,
    steps: int | None,
    samples: int | None,
    batch: int,
    per_epoch: float,
) -> int:
    """Return the budget in updates, never less than one."""
    if steps is not None:
        return steps
    if samples is not None:
        return max(1, samples // batch)
    if epochs is None:
        msg = "one of epochs, steps, samples must be given"
        raise ValueError(msg)
    return max(1, int(epochs * per_epoch + 1e-9))  # 3 epochs of 1/3 step each are one step


def warmup_steps(warmup: Warmup, per_epoch: float) -> int:
    """Return the warm-up in updates, before it is cut to the budget."""
    if warmup.steps is not None:
        return warmup.steps
    return int((warmup.epochs or 0) * per_epoch + 1e-9)


def make_schedule(
    optimizer: Rate, warmup: Warmup, *, steps: int, per_epoch: float, batch: int
) -> tuple[Schedule, list[str]]:
    """Build the schedule of a run, with notes on what had to be cut.

    Args:
        optimizer: the recipe's rates.
        warmup: as the recipe gives it.
        steps: the budget in updates.
        per_epoch: updates per pass over data.train.
        batch: samples per update that the rates are scaled with.
    """
    notes = []
    requested = warmup_steps(warmup, per_epoch)
    if requested > steps:
        notes.append(f"warm-up of {requested} steps is longer than the budget: cut to {steps}")
    schedule = Schedule(
        steps=steps,
        warmup=min(requested, steps),
        peak=peak_lr(optimizer, batch),
        floor=floor_lr(optimizer, batch),
        counted=batch,
        endpoint=warmup.endpoint,
    )
    return schedule, notes
