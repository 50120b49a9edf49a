"""Settings that do the opposite of what they say, or nothing: told before the first step.

Each is allowed by itself; what makes it odd is another setting, or the size of the set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from maekit.errors import RecipeError
from maekit.recipe.sections import AdamW

if TYPE_CHECKING:
    from maekit.engine.schedule import BatchSplit, Schedule
    from maekit.recipe.schema import Recipe
    from maekit.recipe.sections import TrainingSection

_FEW_UPDATES = 20
_LEFT_OF_START = 0.5  # share of the first weights that an average may still hold


def check_schedule(schedule: Schedule, where: str) -> None:
    """Raise RecipeError where the learning rate would rise where it is to fall."""
    if schedule.floor > schedule.peak:
        msg = (
            f"min_lr is {schedule.floor:.3g} at this batch, and the learning rate "
            f"{schedule.peak:.3g}: the cosine would rise"
        )
        hint = f"{where}.min_lr below it, or min_lr_scaled"
        raise RecipeError(msg, where=f"{where}.min_lr", hint=hint)


def doubtful(
    recipe: Recipe,
    verb: str,
    section: TrainingSection,
    schedule: Schedule,
    split: BatchSplit,
    samples: int,
) -> list[str]:
    """Say which settings of a run do not do what they seem to.

    Args:
        recipe: the whole one.
        verb: which section is meant.
        section: it.
        schedule: of its learning rate.
        split: of its batch.
        samples: of data.train.
    """
    found = [
        *_of_rates(section, schedule),
        *_of_budget(section, schedule, split, samples),
        *_beyond_the_end(section, schedule.steps, measured=recipe.data.val is not None),
        *_without_effect(recipe, section, split),
    ]
    return [f"{verb}: {text}" for text in found]


def _of_rates(section: TrainingSection, schedule: Schedule) -> Iterator[str]:
    steps, warmup = schedule.steps, schedule.warmup
    if max(schedule.lr(step) for step in range(min(steps, _FEW_UPDATES))) == 0 and (
        steps <= _FEW_UPDATES or schedule.peak == 0
    ):
        yield f"the learning rate of all {steps} updates is 0 (warmup): nothing is learned"
    elif warmup >= steps > 1:
        yield f"the warm-up takes all {steps} updates: the learning rate never falls"
    decay = getattr(section.optimizer, "weight_decay", 0) * schedule.peak
    if decay >= 1 and isinstance(section.optimizer, AdamW):
        yield (
            f"weight_decay x learning rate is {decay:.3g}: an update takes more than all of a "
            "weight away, and turns its sign"
        )
    average = getattr(section, "ema", None)
    if average is not None and average**steps > _LEFT_OF_START:
        yield (
            f"ema {average:g} over {steps} updates leaves {average**steps:.0%} of the first "
            "weights in what is judged"
        )


def _of_budget(
    section: TrainingSection, schedule: Schedule, split: BatchSplit, samples: int
) -> Iterator[str]:
    steps, batch = schedule.steps, split.effective
    if section.epochs is not None and section.epochs * samples < batch:
        yield (
            f"{section.epochs:g} epochs of {samples:,} samples are less than one update of "
            f"{batch:,}: one is made, over {batch / samples:.3g} epochs"
        )
    elif section.samples is not None and section.samples < batch:
        yield f"{section.samples:,} samples are less than one update of {batch:,}: one is made"
    elif batch > samples:
        yield (
            f"a batch of {batch:,} is larger than the {samples:,} samples there are: each comes "
            f"{batch / samples:.3g} times in it, and there are {steps:,} updates; batch.global of "
            f"at most {samples:,} makes more"
        )


def _beyond_the_end(section: TrainingSection, steps: int, *, measured: bool) -> Iterator[str]:
    given = {"checkpoint.steps": section.checkpoint.steps}
    measurements = {
        "validate.every": _given(getattr(section, "validate_", None), "every"),
        "pictures.every": _given(getattr(section, "pictures", None), "every"),
        "online_probe.every": _given(getattr(section, "online_probe", None), "every"),
    }
    given |= measurements if measured else {}
    late = [
        f"{key} {every:,}" for key, every in given.items() if every is not None and every > steps
    ]
    if late:
        yield f"{', '.join(late)}: beyond the end of {steps:,} updates"


def _given(section: object, key: str) -> Any:  # noqa: ANN401
    """Return a key that the recipe gives; None for a default."""
    fields: set[str] = getattr(section, "model_fields_set", set())
    return getattr(section, key) if key in fields else None


def _without_effect(recipe: Recipe, section: TrainingSection, split: BatchSplit) -> Iterator[str]:
    data, repeats = recipe.data, getattr(section, "repeats", 1)
    if repeats == 1 and _given(section, "repeat_from") == "same-frames":
        yield "repeat_from has no effect without repeats"
    if repeats == 1 and _given(section.optimizer, "lr_counts_repeats"):
        yield "optimizer.lr_counts_repeats has no effect without repeats"
    if data.shuffle == "window" and data.shuffle_window <= split.effective:
        yield (
            f"data.shuffle_window {data.shuffle_window:,} is no more than a batch of "
            f"{split.effective:,}: batches stay in the order of the set"
        )
    if data.shuffle == "full" and _given(data, "shuffle_window") is not None:
        yield "data.shuffle_window has no effect with data.shuffle: full"
    if section.optimizer.min_lr == 0 and section.optimizer.min_lr_scaled:
        yield "optimizer.min_lr_scaled has no effect without min_lr"
    if section.warmup.endpoint and not (section.warmup.epochs or section.warmup.steps):
        yield "warmup.endpoint has no effect without a warm-up"
