"""Learning rates against the papers' own formulas; batch splits; budgets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maekit.engine.schedule import (
    BatchSplit,
    Schedule,
    batch_for,
    floor_lr,
    make_schedule,
    peak_lr,
    total_steps,
)
from maekit.errors import RecipeError
from maekit.recipe.finetune import Finetune
from maekit.recipe.sections import AdamW, Batch, Warmup


def test_lr_is_maes_fractional_epoch_formula() -> None:
    epochs, warmup_epochs, per_epoch, peak = 20, 4, 13, 2.4e-3
    schedule = Schedule(epochs * per_epoch, warmup_epochs * per_epoch, peak, 0.0)
    for step in range(epochs * per_epoch):
        epoch = step / per_epoch
        if epoch < warmup_epochs:
            expected = peak * epoch / warmup_epochs
        else:
            turn = math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)
            expected = peak * 0.5 * (1.0 + math.cos(turn))
        assert schedule.lr(step) == pytest.approx(expected, rel=1e-12, abs=1e-18)
    assert schedule.lr(0) == 0.0


def test_lr_is_videomaes_array_with_its_end_point() -> None:
    epochs, warmup_epochs, per_epoch, peak, floor = 20, 4, 13, 1.2e-3, 8e-5
    warmup = np.linspace(0, peak, warmup_epochs * per_epoch)
    rest = np.arange(epochs * per_epoch - len(warmup))
    cosine = floor + 0.5 * (peak - floor) * (1 + np.cos(np.pi * rest / len(rest)))
    expected = np.concatenate([warmup, cosine])
    schedule = Schedule(epochs * per_epoch, len(warmup), peak, floor, endpoint=True)
    ours = [schedule.lr(step) for step in range(len(expected))]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_lr_rule_and_what_scales_with_the_batch() -> None:
    assert peak_lr(AdamW(base_lr=1.5e-4), 4096) == pytest.approx(2.4e-3)
    assert floor_lr(AdamW(min_lr=1e-5), 4096) == 1e-5
    assert floor_lr(AdamW(min_lr=1e-5, min_lr_scaled=True), 2048) == pytest.approx(8e-5)


@pytest.mark.parametrize(
    ("given", "world", "expected"),
    [
        ({"global": 64}, 1, (64, 1)),
        ({"global": 64}, 4, (16, 1)),
        ({"global": 64, "per_device": 8}, 2, (8, 4)),
        ({"global": 64, "accumulation": 4}, 2, (8, 4)),
        ({"global": 64, "per_device": 16, "accumulation": 4}, 1, (16, 4)),
    ],
)
def test_batch_split(given: dict[str, int], world: int, expected: tuple[int, int]) -> None:
    split = BatchSplit.of(Batch.model_validate(given), world, where="pretrain.batch")
    assert (split.per_device, split.accumulation) == expected


@pytest.mark.parametrize(
    ("given", "world", "advice"),
    [
        ({"global": 65, "per_device": 8}, 1, "global=64"),
        ({"global": 64}, 3, "global=63"),
        ({"global": 64, "per_device": 8, "accumulation": 4}, 1, "global=32"),
        ({"global": 2, "per_device": 8}, 1, "global=8"),
    ],
)
def test_batch_split_that_does_not_come_out(given: dict[str, int], world: int, advice: str) -> None:
    with pytest.raises(RecipeError) as caught:
        BatchSplit.of(Batch.model_validate(given), world, where="pretrain.batch")
    assert advice in str(caught.value)
    assert "pretrain.batch" in str(caught.value)


def test_budgets() -> None:
    asked = {"epochs": None, "steps": None, "samples": None, "batch": 64}
    assert total_steps(**asked | {"epochs": 3}, per_epoch=15) == 45  # type: ignore[arg-type]
    assert total_steps(**asked | {"epochs": 0.5}, per_epoch=15) == 7  # type: ignore[arg-type]
    assert total_steps(**asked | {"samples": 200}, per_epoch=15) == 3  # type: ignore[arg-type]
    assert total_steps(**asked | {"steps": 7}, per_epoch=15) == 7  # type: ignore[arg-type]
    assert total_steps(**asked | {"epochs": 1}, per_epoch=10 / 64) == 1  # type: ignore[arg-type]
    assert total_steps(**asked | {"epochs": 3}, per_epoch=1 / 3) == 1  # type: ignore[arg-type]


def test_a_warmup_longer_than_the_budget_is_cut_and_said() -> None:
    warmup = Warmup(epochs=40)
    settings = {"steps": 10, "per_epoch": 5.0, "batch": 256}
    schedule, notes = make_schedule(AdamW(), warmup, **settings)  # type: ignore[arg-type]
    assert schedule.warmup == 10
    assert "200" in notes[0]
    assert "10" in notes[0]


@pytest.mark.parametrize(
    ("samples", "batch"),
    [(20, 8), (300, 8), (479, 8), (480, 16), (5000, 128), (7680, 256), (1_281_167, 256)],
)
def test_auto_batches_leave_thirty_updates_a_pass(samples: int, batch: int) -> None:
    assert batch_for(samples) == batch
    assert BatchSplit.of(Finetune().batch, samples=samples).effective == batch


def test_auto_batches_divide_by_what_is_given() -> None:
    for keys, expected in (
        ({"per_device": 3}, (9, 3, 3)),
        ({"accumulation": 3}, (9, 3, 3)),
        ({"per_device": 3, "accumulation": 2}, (6, 3, 2)),
    ):
        split = BatchSplit.of(Batch.model_validate({"global": "auto", **keys}), samples=300)
        assert (split.effective, split.per_device, split.accumulation) == expected


def test_auto_rates_do_not_shrink_with_small_batches() -> None:
    optimizer = Finetune().optimizer
    rates = [peak_lr(optimizer, batch) for batch in (8, 64, 256, 1024)]
    assert rates == pytest.approx([5e-4, 5e-4, 5e-4, 2e-3], rel=1e-12)
