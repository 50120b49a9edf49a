"""What is decayed and the learning rate of every step, from the shipped recipes to the optimizer.

MAE: timm 0.3.2's optim_factory.py, util/lr_sched.py. VideoMAE: optim_factory.py, utils.py
(cosine_scheduler). mae_st: util/misc.py; the rate as MAE's. tests/engine/test_schedule.py has the
formulas by themselves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from recipe_models import shallow_model, shipped

from maekit.engine.optim import make_optimizer, tokens_free_of_decay
from maekit.engine.schedule import make_schedule
from maekit.model import MaskedAutoencoder
from maekit.recipe.schema import PretrainAdamW

# Trained parameters that are neither weight matrices nor 1-D: decayed by MAE and mae_st.
TOKENS = {
    "mae_in1k_vit_b": {"backbone.class_token", "decoder.mask_token"},
    "videomae_k400": {"decoder.mask_token"},
    "mae_st_k400": {"backbone.class_token", "decoder.class_token", "decoder.mask_token"}
    | {
        f"{part}.positions.{which}"
        for part in ("backbone", "decoder")
        for which in ("spatial", "temporal", "prefix")
    },
}


def expected_decayed(recipe: str, trained: set[str]) -> set[str]:
    """By name alone: matrices are decayed, biases and norms are not, tokens as the paper has it."""
    one_dimensional = {
        name for name in trained if "norm" in name or name.endswith((".bias", ".q_bias", ".v_bias"))
    }
    free = TOKENS[recipe] if recipe == "videomae_k400" else set()
    return trained - one_dimensional - free


def _optimizer(model: MaskedAutoencoder, options: PretrainAdamW) -> torch.optim.AdamW:
    free = () if options.decay_tokens else tokens_free_of_decay(model)
    return make_optimizer(model, options, free)


@pytest.mark.parametrize("recipe", TOKENS)
def test_what_is_decayed(recipe: str) -> None:
    model, pretrain = shallow_model(recipe)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if not name.endswith(("weight", "bias"))} == TOKENS[recipe]
    optimizer = _optimizer(model, pretrain.optimizer)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decay = {names[p]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay.keys() == trained, "frozen tables are in no group, all else is in one"
    assert {name for name, each in decay.items() if each} == expected_decayed(recipe, trained)
    assert set(decay.values()) == {0.0, 0.05}
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.95), 1e-8)


def test_decay_shrinks_by_the_rate_times_itself() -> None:
    """Decoupled: without a gradient, one step takes 1 - lr * decay of what there was."""
    model, _ = shallow_model("videomae_k400")
    optimizer = _optimizer(model, PretrainAdamW(weight_decay=0.05, decay_tokens=False))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = expected_decayed("videomae_k400", set(before))
    for name, parameter in model.named_parameters():
        kept = 1 - 0.1 * 0.05 if name in decayed else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * kept)


class Rates(NamedTuple):
    """What a script asks for; its batch counts decoded samples."""

    base: float
    batch: int
    epochs: int
    warmup: int
    floor: float  # before it is scaled


FRACTIONAL = {
    "mae_in1k_vit_b": Rates(1.5e-4, 4096, 1600, 40, 0.0),
    "mae_st_k400": Rates(1.6e-3, 512, 100, 5, 0.0),
}
PRECOMPUTED = {
    "videomae_k400": Rates(1.5e-4, 2048, 800, 40, 1e-5),
    "videomae_k400_l": Rates(1.5e-4, 512, 1600, 40, 1e-5),
    "videomae_ucf101": Rates(3e-4, 192, 3200, 40, 1e-5),
    "videomae_v2_b": Rates(1e-3, 1024, 200, 20, 1e-5),
}
PER_EPOCH = 7  # updates


def rates(name: str, epochs: int) -> list[float]:
    """Of every update of a shipped recipe, over a data set of 7 batches."""
    _, pretrain = shipped(name)
    assert pretrain.epochs == epochs
    assert not pretrain.optimizer.lr_counts_repeats
    schedule, notes = make_schedule(
        pretrain.optimizer,
        pretrain.warmup,
        steps=epochs * PER_EPOCH,
        per_epoch=PER_EPOCH,
        batch=pretrain.batch.global_,
    )
    assert not notes
    return [schedule.lr(step) for step in range(schedule.steps)]


@pytest.mark.parametrize("name", FRACTIONAL)
def test_maes_rate_of_every_step(name: str) -> None:
    """By fractional epoch, set before each update."""
    asked = FRACTIONAL[name]
    peak = asked.base * asked.batch / 256
    expected = []
    for epoch in range(asked.epochs):
        for iteration in range(PER_EPOCH):
            now = iteration / PER_EPOCH + epoch
            if now < asked.warmup:
                expected.append(peak * now / asked.warmup)
            else:
                turn = math.pi * (now - asked.warmup) / (asked.epochs - asked.warmup)
                expected.append(asked.floor + (peak - asked.floor) * 0.5 * (1 + math.cos(turn)))
    np.testing.assert_allclose(rates(name, asked.epochs), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", PRECOMPUTED)
def test_videomaes_rate_of_every_step(name: str) -> None:
    """An array made beforehand; the floor is scaled with the batch as the peak is."""
    asked = PRECOMPUTED[name]
    peak, floor = (rate * asked.batch / 256 for rate in (asked.base, asked.floor))
    warmup = np.linspace(0, peak, asked.warmup * PER_EPOCH)
    count = asked.epochs * PER_EPOCH - len(warmup)
    cosine = [
        floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * i / count)) for i in range(count)
    ]
    expected = np.concatenate([warmup, cosine])
    np.testing.assert_allclose(rates(name, asked.epochs), expected, rtol=1e-9, atol=1e-15)
