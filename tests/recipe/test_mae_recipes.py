"""The shipped MAE, mae_st and VideoMAEv2 recipes, against the numbers of the official code."""

from __future__ import annotations

import pytest

from maekit.data.masks import MaskDraw
from maekit.engine.build import describe
from maekit.grid import Grid
from maekit.recipe.load import load
from maekit.recipe.schema import Pretrain, Recipe
from maekit.recipe.sections import RandomResizedCrop
from maekit.registry import build, resolve

# Encoder and whole model (MAE's code, counted; mmpretrain's metafile has the same), tokens, seen.
IN1K = {
    "mae_in1k_vit_b": (85_798_656, 111_907_840, 196, 49),
    "mae_in1k_vit_l": (303_301_632, 329_541_888, 196, 49),
    "mae_in1k_vit_h": (630_764_800, 657_074_508, 256, 64),
}


def recipe(name: str) -> tuple[Recipe, Pretrain]:
    found = resolve(load(name), "pretrain")
    assert found.name == name
    assert found.pretrain is not None
    return found, found.pretrain


@pytest.mark.parametrize("name", IN1K)
def test_imagenet_recipes_are_the_released_weights(name: str) -> None:
    encoder, whole, tokens, seen = IN1K[name]
    ours, pretrain = recipe(name)
    model = describe(ours)
    assert (model.encoder_parameters, model.parameters) == (encoder, whole)
    assert model.grid.tokens == tokens
    assert model.grid.tokens - model.hidden == seen
    assert pretrain.target.name == "norm-pixel"
    assert pretrain.target.written["statistics"] == "joint"
    assert (pretrain.epochs, pretrain.warmup.epochs) == (1600, 40)
    assert pretrain.warmup.endpoint is False
    assert pretrain.batch.global_ == 4096
    optimizer = pretrain.optimizer
    assert (optimizer.base_lr, optimizer.betas, optimizer.eps) == (1.5e-4, (0.9, 0.95), 1e-8)
    assert (optimizer.weight_decay, optimizer.decay_tokens) == (0.05, True)
    assert (optimizer.min_lr, optimizer.min_lr_scaled) == (0, False)
    assert pretrain.clip_grad is None
    assert pretrain.repeats == 1
    assert pretrain.augment == RandomResizedCrop(
        name="random-resized-crop", scale=(0.2, 1), ratio=(3 / 4, 4 / 3), flip=0.5
    )
    assert ours.data.height_width == (224, 224)
    assert ours.data.stats == "imagenet"


def test_what_is_expected_says_of_which_verb_and_who_measured_it() -> None:
    found = {name: recipe(name)[0].expected for name in IN1K}
    values = {name: [each.value for each in several] for name, several in found.items()}
    assert values == {
        "mae_in1k_vit_b": [0.836, 0.68],
        "mae_in1k_vit_l": [0.859, 0.758],
        "mae_in1k_vit_h": [0.869, 0.766],
    }
    for several in found.values():
        assert [each.metric for each in several] == ["finetune.top1", "probe.top1"]
        assert all("table" in each.source for each in several)


def test_cifar10_fits_its_pictures() -> None:
    ours, _ = recipe("mae_cifar10")
    model = describe(ours)
    assert model.grid == Grid(1, 8, 8)
    assert model.grid.tokens - model.hidden == 16
    assert ours.data.stats == "auto"


def test_mae_st_is_its_command() -> None:
    ours, pretrain = recipe("mae_st_k400")
    model = describe(ours)
    assert model.grid.tokens == 1568
    assert model.grid.tokens - model.hidden == 156
    assert (ours.data.train.frames, ours.data.train.stride) == (16, 4)
    assert (ours.data.train.sampling, ours.data.train.rate) == ("timed", 30)
    assert pretrain.target.written["frames"] == 8
    assert (pretrain.repeats, pretrain.repeat_from) == (4, "new-clip")
    assert (pretrain.epochs, pretrain.warmup.epochs, pretrain.clip_grad) == (100, 5, 0.02)
    assert pretrain.optimizer.base_lr == 1.6e-3
    assert pretrain.optimizer.lr_counts_repeats is False
    assert pretrain.precision == "fp32"
    assert ours.model.decoder is not None
    decoder = ours.model.decoder.written
    assert [decoder[key] for key in ("width", "depth", "heads")] == [512, 4, 16]
    assert decoder["positions"] == ours.model.backbone.written["positions"] == "learned-separable"


def test_videomaev2_predicts_half_of_what_there_is() -> None:
    ours, pretrain = recipe("videomae_v2_b")
    model = describe(ours)
    assert model.grid.tokens - model.hidden == 160
    assert pretrain.decoder_masker is not None
    clip = (16, 224, 224, 3)
    first = MaskDraw(build(pretrain.masker), model.grid, (1, 1, 1), clip)
    second = MaskDraw(build(pretrain.decoder_masker), model.grid, (1, 1, 1), clip, after=first)
    assert second.count == 784
    assert (pretrain.repeats, pretrain.repeat_from) == (4, "same-frames")
    assert (pretrain.epochs, pretrain.warmup.epochs) == (200, 20)
    assert pretrain.batch.global_ == 1024
    assert pretrain.optimizer.base_lr == 1e-3


def test_videomaev2s_large_one_keeps_four_decoder_blocks() -> None:
    ours, pretrain = recipe("videomae_v2_l")
    assert ours.model.decoder is not None
    decoder = ours.model.decoder.written
    assert [decoder[key] for key in ("width", "depth", "heads")] == [512, 4, 8]
    assert (pretrain.epochs, pretrain.warmup.epochs, pretrain.batch.global_) == (300, 30, 1536)
    assert pretrain.optimizer.base_lr == 1e-3
    assert describe(ours).grid == Grid(8, 14, 14)
