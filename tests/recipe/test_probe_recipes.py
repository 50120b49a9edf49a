"""The shipped probe sections, against main_linprobe.py and FINETUNE.md of facebookresearch/mae,
and the VideoMAE paper's table 11."""

from __future__ import annotations

import pytest

from maekit.recipe.load import load
from maekit.recipe.probe import Lars, Sgd
from maekit.recipe.sections import MultiScaleCrop, SingleTryCrop
from maekit.registry import resolve


@pytest.mark.parametrize("name", ["mae_in1k_vit_b", "mae_in1k_vit_l", "mae_in1k_vit_h"])
def test_maes_linear_probe(name: str) -> None:
    probe = resolve(load(name), "probe").probe
    assert probe is not None
    assert (probe.kind, probe.protocol, probe.pool, probe.layer) == ("linear", "paper", "cls", None)
    assert (probe.epochs, probe.warmup.epochs) == (90, 10)
    optimizer = probe.optimizer
    assert isinstance(optimizer, Lars)
    assert optimizer.base_lr * probe.batch.global_ / 256 == pytest.approx(6.4)
    assert (optimizer.momentum, optimizer.trust, optimizer.weight_decay) == (0.9, 0.001, 0)
    assert optimizer.min_lr == 0
    assert isinstance(probe.augment, SingleTryCrop)
    assert probe.augment.scale == (0.08, 1.0)
    assert probe.augment.ratio == pytest.approx((3 / 4, 4 / 3))
    assert (probe.augment.flip, probe.augment.interpolation) == (0.5, "bicubic")
    assert (probe.views.clips, probe.views.crops) == (1, 1)
    assert probe.views.enlarge * 224 == pytest.approx(256)


def test_maes_probe_by_sgd() -> None:
    """The paper's table 10: "SGD works similarly with a 4096 batch"."""
    words = ["probe.optimizer.name=sgd", "probe.batch.global=4096"]
    probe = resolve(load("mae_in1k_vit_b", words), "probe").probe
    assert probe is not None
    assert probe.optimizer == Sgd()  # what LARS was given is not kept


def test_videomaes_linear_probe() -> None:
    ours = resolve(load("videomae_ssv2"), "probe")
    probe = ours.probe
    assert probe is not None
    assert (probe.kind, probe.protocol, probe.layer) == ("linear", "paper", None)
    assert (probe.epochs, probe.warmup.epochs, probe.batch.global_) == (100, 10, 1024)
    assert probe.optimizer == Sgd(base_lr=0.1, momentum=0.9, weight_decay=0, min_lr=0)
    assert isinstance(probe.augment, MultiScaleCrop)
    assert probe.augment.flip == 0  # its labels say left and right
    assert probe.pixels == 8  # a floor of 3,072 numbers, not 49,152: SGD's rate is not scaled by it
    # What the table does not say is as in fine-tuning.
    tuned = resolve(load("videomae_ssv2"), "finetune")
    assert tuned.finetune is not None
    assert (probe.pool, probe.views) == (tuned.finetune.pool, tuned.finetune.views)
    assert ours.data == tuned.data
    assert any(each.metric == "probe.top1" and each.value == 0.389 for each in ours.expected)
