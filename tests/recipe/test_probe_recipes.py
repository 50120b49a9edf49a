"""The shipped probe sections, against main_linprobe.py and FINETUNE.md of facebookresearch/mae."""

from __future__ import annotations

import pytest

from maekit.recipe.augment import SingleTryCrop
from maekit.recipe.load import load
from maekit.registry import resolve


@pytest.mark.parametrize("name", ["mae_in1k_vit_b", "mae_in1k_vit_l", "mae_in1k_vit_h"])
def test_maes_linear_probe(name: str) -> None:
    probe = resolve(load(name), "probe").probe
    assert probe is not None
    assert (probe.kind, probe.protocol, probe.pool, probe.layer) == ("linear", "paper", "cls", None)
    assert (probe.epochs, probe.warmup.epochs) == (90, 10)
    optimizer = probe.optimizer
    assert optimizer.base_lr * probe.batch.global_ / 256 == pytest.approx(6.4)
    assert (optimizer.momentum, optimizer.trust, optimizer.weight_decay) == (0.9, 0.001, 0)
    assert optimizer.min_lr == 0
    assert isinstance(probe.augment, SingleTryCrop)
    assert probe.augment.scale == (0.08, 1.0)
    assert probe.augment.ratio == pytest.approx((3 / 4, 4 / 3))
    assert (probe.augment.flip, probe.augment.interpolation) == (0.5, "bicubic")
    assert (probe.views.clips, probe.views.crops) == (1, 1)
    assert probe.views.enlarge * 224 == pytest.approx(256)
