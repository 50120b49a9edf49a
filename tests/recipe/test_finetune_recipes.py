"""The shipped fine-tuning sections, against the numbers of the official codes and papers."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from maekit.evaluate.supervision import describe
from maekit.recipe.finetune import Finetune
from maekit.recipe.load import load
from maekit.recipe.schema import Recipe
from maekit.recipe.sections import RandomResizedCrop
from maekit.registry import resolve


def recipe(name: str) -> tuple[Recipe, Finetune]:
    found = resolve(load(name), "finetune")
    assert found.finetune is not None
    return found, found.finetune


def drop_path(found: Recipe) -> float:
    assert found.model is not None
    return float(found.model.backbone.written["drop_path"])


class Image(NamedTuple):
    """A column of FINETUNE.md, or of the paper's table 11."""

    epochs: int
    warmup: int
    batch: int
    base_lr: float
    betas: tuple[float, float]
    weight_decay: float
    layer_decay: float
    drop_path: float
    erase: float
    ema: float | None


IMAGES = {
    "mae_in1k_vit_b": Image(100, 5, 1024, 5e-4, (0.9, 0.999), 0.05, 0.65, 0.1, 0.25, None),
    "mae_in1k_vit_l": Image(50, 5, 1024, 1e-3, (0.9, 0.999), 0.05, 0.75, 0.2, 0.25, None),
    "mae_in1k_vit_h": Image(50, 5, 1024, 1e-3, (0.9, 0.999), 0.05, 0.75, 0.3, 0.25, None),
    "mae_scratch_vit_b": Image(300, 20, 4096, 1e-4, (0.9, 0.95), 0.3, 1.0, 0.1, 0.25, 0.9999),
    "mae_scratch_vit_l": Image(200, 20, 4096, 1e-4, (0.9, 0.95), 0.3, 1.0, 0.2, 0.25, 0.9999),
    "mae_scratch_vit_h": Image(200, 20, 4096, 1e-4, (0.9, 0.95), 0.3, 1.0, 0.2, 0.25, 0.9999),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str) -> None:
    ours, options = recipe(name)
    optimizer = options.optimizer
    assert optimizer.betas == IMAGES[name].betas
    assert IMAGES[name] == Image(
        options.epochs, options.warmup.epochs, options.batch.global_, optimizer.base_lr,
        optimizer.betas, optimizer.weight_decay, options.layer_decay, drop_path(ours),
        options.erase, options.ema,
    )  # fmt: skip
    assert (optimizer.min_lr, optimizer.min_lr_scaled) == (1e-6, False)
    assert (options.mixup, options.cutmix, options.label_smoothing) == (0.8, 1.0, 0.1)
    assert (options.mix_probability, options.mix_switch, options.mix_per) == (1, 0.5, "batch")
    assert (options.rand_augment, options.rand_augment_on) == ("rand-m9-mstd0.5-inc1", "crop")
    assert options.augment == RandomResizedCrop(
        name="random-resized-crop", scale=(0.08, 1), ratio=(3 / 4, 4 / 3), flip=0.5
    )
    assert (options.pool, options.norm, options.positions) == ("mean", "fresh", "trainable")
    assert options.head.classes == 1000
    # main_finetune.py makes the head smaller only where it loads weights (--finetune).
    std = 0.02 if name.startswith("mae_scratch") else 2e-5
    assert (options.head.init_std or 2e-5, options.head.init_scale) == (std, None)
    assert options.rand_augment_fill == "mean"
    assert options.views.resize == "whole-pixels"
    assert (options.views.clips, options.views.crops) == (1, 1)
    assert round(224 * options.views.enlarge) == 256
    assert options.clip_grad is None
    assert options.repeats == 1
    assert any(each.metric == "finetune.top1" for each in ours.expected)


class Video(NamedTuple):
    """A row of VideoMAE's fine-tuning scripts."""

    batch: int
    repeats: int
    base_lr: float
    layer_decay: float
    drop_path: float
    dropout: float
    epochs: int
    views: tuple[int, int]
    classes: int
    flip: float
    top1: float | None


VIDEOS = {
    "videomae_k400": Video(512, 1, 1e-3, 0.75, 0.1, 0, 100, (5, 3), 400, 0.5, 0.800),
    "videomae_k400_s": Video(384, 2, 5e-4, 0.75, 0.1, 0, 150, (5, 3), 400, 0.5, 0.790),
    "videomae_k400_l": Video(128, 2, 2e-3, 0.75, 0.1, 0, 35, (5, 3), 400, 0.5, 0.852),
    "videomae_k400_h": Video(512, 2, 1e-3, 0.75, 0.2, 0.5, 50, (5, 3), 400, 0.5, 0.866),
    "videomae_k400_b1600": Video(384, 2, 5e-4, 0.75, 0.1, 0, 75, (5, 3), 400, 0.5, 0.815),
    "videomae_ssv2_b2400": Video(384, 2, 5e-4, 0.75, 0.1, 0, 30, (2, 3), 174, 0.0, 0.708),
    "videomae_ssv2_s2400": Video(384, 2, 1e-3, 0.7, 0.1, 0, 40, (2, 3), 174, 0.0, 0.668),
    # docs/MODEL_ZOO.md has no number of these.
    "videomae_v2_b": Video(512, 2, 7e-4, 0.75, 0.1, 0, 90, (5, 3), 400, 0.5, None),
    "videomae_v2_l": Video(192, 2, 2e-3, 0.75, 0.2, 0, 35, (5, 3), 400, 0.5, None),
    "videomae_ssv2": Video(512, 1, 5e-4, 0.75, 0.1, 0, 50, (2, 3), 174, 0.0, 0.696),
    "videomae_ucf101": Video(128, 2, 5e-4, 0.7, 0.2, 0.5, 100, (5, 3), 101, 0.5, 0.913),
    "videomae_hmdb51": Video(128, 2, 1e-3, 0.7, 0.2, 0.5, 50, (10, 3), 51, 0.5, 0.626),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(name: str) -> None:
    ours, options = recipe(name)
    assert VIDEOS[name] == Video(
        options.batch.global_, options.repeats, options.optimizer.base_lr, options.layer_decay,
        drop_path(ours), options.head.dropout, options.epochs,
        (options.views.clips, options.views.crops), options.head.classes, options.augment.flip,
        next((each.value for each in ours.expected if each.metric == "finetune.top1"), None),
    )  # fmt: skip
    floor = 1e-5 if name in ("videomae_k400_h", "videomae_ucf101", "videomae_hmdb51") else 1e-6
    optimizer = options.optimizer
    assert (optimizer.min_lr, optimizer.min_lr_scaled) == (floor, True)
    assert (optimizer.betas, optimizer.weight_decay) == ((0.9, 0.999), 0.05)
    assert optimizer.lr_counts_repeats is False
    assert options.repeat_from == "same-frames"
    assert (options.warmup.epochs, options.warmup.endpoint) == (5, True)
    assert (options.mixup, options.cutmix, options.label_smoothing) == (0.8, 1.0, 0.1)
    assert options.erase == 0.25
    assert options.rand_augment == "rand-m7-n4-mstd0.5-inc1"
    assert options.rand_augment_on == "frames"
    assert isinstance(options.augment, RandomResizedCrop)
    assert (options.augment.scale, options.augment.interpolation) == ((0.08, 1), "bilinear-aliased")
    assert options.rand_augment_fill == "gray"
    assert (options.pool, options.norm, options.positions) == ("mean", "fresh", "fixed")
    assert options.head.init_scale == 0.001
    assert (options.views.enlarge, options.views.interpolation) == (1, "bilinear-aliased")
    assert options.views.resize == "whole-pixels"
    # Kinetics' training frames are spread by linspace, its test frames every stride-th.
    segments = name.startswith("videomae_ssv2")
    if name.startswith("videomae_v2"):  # pre-training reads a mix without labels
        assert str(ours.data.train.written["path"]).endswith("data/k400/train.csv")
    for spec, sampling in ((ours.data.train, "spread"), (ours.data.val, "dense")):
        assert spec is not None
        # The code's segments are shorter than the paper's; tests look at the whole video.
        sparse = {"spread": "segments-floor", "dense": "segments"}[sampling]
        assert spec.sampling == (sparse if segments else sampling)
        stride = 1 if segments else {"videomae_hmdb51": 2}.get(name, 4)
        assert (spec.frames, spec.stride) == (16, stride)


def test_videomaes_fine_tuned_model_has_its_parameters() -> None:
    """86,534,800 with 400 classes: computed from modeling_finetune.py, without the unused norm."""
    lines = describe(recipe("videomae_k400")[0])
    assert lines == ["finetune: 86,534,800 parameters with 400 classes, 86,534,800 trained"]


def test_mae_st_counts_repeats_and_keeps_its_norm() -> None:
    ours, options = recipe("mae_st_k400")
    assert (options.epochs, options.repeats, options.warmup.epochs) == (50, 2, 5)
    assert (options.optimizer.base_lr, options.optimizer.lr_counts_repeats) == (2.4e-3, True)
    assert (options.layer_decay, drop_path(ours), options.head.dropout) == (0.75, 0.2, 0.3)
    assert (options.clip_grad, options.norm, options.pool) == (5.0, "pretrained", "mean")
    assert options.rand_augment == "rand-m7-mstd0.5-inc1"
    assert (options.views.clips, options.views.crops) == (7, 3)
    assert options.precision == "fp32"
    for spec in (ours.data.train, ours.data.val):
        assert spec is not None
        assert (spec.sampling, spec.stride, spec.rate) == ("timed", 4, 30)


def test_pre_training_sees_no_drop_path() -> None:
    for name in ("mae_in1k_vit_h", "videomae_k400_h"):
        found = resolve(load(name), "pretrain")
        assert found.model is not None
        assert found.model.backbone.written["drop_path"] == 0
