"""The shipped recipes of dVAEs, and of the target that they are for, against their sources."""

from __future__ import annotations

import pytest
from dalle_shapes import encoder_tensors

from maekit.engine.build import describe
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.tokenizer.train import describe as describe_dvae


def test_dalles_size_and_settings() -> None:
    ours = resolve(load("dvae_dalle"), "tokenizer")
    assert ours.tokenizer is not None
    encoder = sum(tensor.numel() for tensor in encoder_tensors().values())
    lines = describe_dvae(ours)
    assert f"encoder {encoder:,}" in lines[0]
    assert "32x32 codes of 8192" in lines[1]
    section = ours.tokenizer
    heat, weight, optimizer = section.temperature, section.kl_weight, section.optimizer
    assert (heat.start, heat.end, heat.steps) == (1, 1 / 16, 150_000)
    assert (weight.start, weight.end, weight.steps) == (0, 6.6, 5_000)
    assert optimizer.base_lr * section.batch.global_ / 256 == pytest.approx(1e-4)
    assert (optimizer.betas, optimizer.eps, optimizer.weight_decay) == ((0.9, 0.999), 1e-8, 1e-4)
    assert (optimizer.min_lr, section.batch.global_, section.steps) == (1.25e-6, 512, 3_000_000)


def test_the_mae_recipe_changes_its_parents_target_only() -> None:
    parent, ours = (
        resolve(load(name), "pretrain") for name in ("mae_in1k_vit_b", "mae_in1k_vit_b_dvae")
    )
    assert parent.pretrain is not None
    assert ours.pretrain is not None
    assert ours.pretrain.model_copy(update={"target": parent.pretrain.target}) == parent.pretrain
    assert (ours.model, ours.data) == (parent.model, parent.data)
    assert ours.pretrain.target.written["vocabulary"] == 8192
    assert [(each.metric, each.value) for each in ours.expected] == [("finetune.top1", 0.836)]
    # The decoder's last layer predicts 8192 codes where the parent's predicts 768 values.
    more = describe(ours).parameters - describe(parent).parameters
    assert more == (8192 - 768) * (512 + 1)
