"""Settings that do the opposite of what they say, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from maekit.engine.schedule import BatchSplit, make_schedule, total_steps
from maekit.engine.settings import check_schedule, doubtful
from maekit.errors import RecipeError
from maekit.recipe.finetune import Finetune
from maekit.recipe.schema import Data, Pretrain, Recipe

PARTS = {"masker": {"name": "random"}, "target": {"name": "pixel"}}
SETS = {"train": {"name": "images"}, "val": {"name": "images"}}
GOOD = {"epochs": 10, "warmup": {"epochs": 1}, "batch": {"global": 10}}


def said(
    section: dict[str, Any], data: dict[str, Any] | None = None, samples: int = 100, **more: Any
) -> str:
    verb = "finetune" if "ema" in section else "pretrain"
    words = {**GOOD, **section}
    if {"steps", "samples"} & section.keys():
        words.pop("epochs")
    parsed: Any = (Finetune if verb == "finetune" else Pretrain).model_validate(
        words if verb == "finetune" else PARTS | words
    )
    recipe = Recipe.model_construct(name="x", data=Data.model_validate(SETS | (data or {})))
    split = BatchSplit.of(parsed.batch, samples=samples)
    per_epoch = samples / split.effective
    steps = total_steps(
        epochs=parsed.epochs,
        steps=parsed.steps,
        samples=parsed.samples,
        batch=split.effective,
        per_epoch=per_epoch,
    )
    schedule, _ = make_schedule(
        parsed.optimizer, parsed.warmup, steps=steps, per_epoch=per_epoch, batch=split.effective
    )
    check_schedule(schedule, f"{verb}.optimizer")
    return "; ".join(doubtful(recipe, verb, parsed, schedule, split, samples))


def test_what_is_sound_is_not_talked_about() -> None:
    assert said({}) == ""
    assert said({"checkpoint": {"steps": 50}, "validate": {"every": 100}}) == ""
    assert said({"ema": 0.9}) == ""
    assert said({"validate": {"every": 500}}, {"val": None}) == ""
    window = {"shuffle": "window", "shuffle_window": 50}
    assert said({"repeats": 2, "repeat_from": "same-frames"}, window) == ""


@pytest.mark.parametrize(("section", "data", "expected"), [
    ({"steps": 5, "warmup": {"steps": 5}}, {}, "takes all 5 updates: the learning rate never"),
    ({"steps": 5, "warmup": {"steps": 50}}, {}, "takes all 5 updates"),
    ({"steps": 1, "warmup": {"steps": 1}}, {}, "rate of all 1 updates is 0"),
    ({"steps": 1, "warmup": {"steps": 1, "endpoint": True}}, {}, "nothing is learned"),
    ({"epochs": 0.05}, {}, "0.05 epochs of 100 samples are less than one update of 10"),
    ({"samples": 4}, {}, "4 samples are less than one update of 10"),
    ({"batch": {"global": 400}}, {}, "larger than the 100 samples there are: each comes 4 times"),
    ({"checkpoint": {"steps": 101}}, {}, "checkpoint.steps 101: beyond the end of 100 updates"),
    ({"validate": {"every": 500}}, {}, "validate.every 500: beyond the end"),
    ({"pictures": {"every": 500}}, {}, "pictures.every 500: beyond the end"),
    ({"optimizer": {"weight_decay": 20, "base_lr": 2}}, {}, "turns its sign"),
    ({"ema": 0.9999}, {}, "ema 0.9999 over 100 updates leaves 99% of the first weights"),
    ({"repeat_from": "same-frames"}, {}, "repeat_from has no effect without repeats"),
    ({"optimizer": {"lr_counts_repeats": True}}, {}, "lr_counts_repeats has no effect"),
    ({"optimizer": {"min_lr_scaled": True}}, {}, "min_lr_scaled has no effect without min_lr"),
    ({"warmup": {"endpoint": True}}, {}, "endpoint has no effect without a warm-up"),
    ({}, {"shuffle": "window", "shuffle_window": 10}, "stay in the order of the set"),
    ({}, {"shuffle_window": 10}, "has no effect with data.shuffle: full"),
])  # fmt: skip
def test_what_does_the_opposite_is_told(
    section: dict[str, Any], data: dict[str, Any], expected: str
) -> None:
    assert expected in said(section, data)


@pytest.mark.parametrize("optimizer", [
    {"base_lr": 1e-4, "min_lr": 1e-3},
    {"base_lr": 1e-4, "min_lr": 1e-5},  # of 256 samples; at 10 the rate is 3.9e-6
    {"base_lr": 1e-4, "min_lr": 2e-4, "min_lr_scaled": True},
])  # fmt: skip
def test_a_cosine_that_would_rise_is_refused(optimizer: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="the cosine would rise") as error:
        said({"optimizer": optimizer})
    assert error.value.where == "pretrain.optimizer.min_lr"
    assert (
        said({"optimizer": optimizer | {"min_lr": 1e-4 * 10 / 256, "min_lr_scaled": False}}) == ""
    )
