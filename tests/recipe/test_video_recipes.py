"""The shipped VideoMAE recipes, against the numbers of the official scripts."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from maekit.engine.build import describe
from maekit.recipe.load import load
from maekit.recipe.schema import Recipe
from maekit.recipe.sections import MultiScaleCrop
from maekit.registry import resolve


class Published(NamedTuple):
    """One column of the scripts."""

    stride: int
    epochs: int
    global_batch: int
    base_lr: float
    visible: int  # of 1,568 tokens
    parameters: int
    decoder: tuple[int, int, int]  # width, depth, heads


BASE = (384, 4, 6)
PUBLISHED = {
    "videomae_k400": Published(4, 800, 64 * 32, 1.5e-4, 160, 94_210_944, BASE),
    "videomae_k400_s": Published(4, 1600, 32 * 32, 1.5e-4, 160, 24_029_376, (192, 4, 3)),
    "videomae_k400_l": Published(4, 1600, 64 * 8, 1.5e-4, 160, 342_996_992, (512, 12, 8)),
    "videomae_k400_h": Published(4, 1600, 64 * 16, 1.5e-4, 160, 692_487_296, (640, 12, 8)),
    "videomae_ssv2": Published(2, 800, 64 * 32, 1.5e-4, 160, 94_210_944, BASE),
    "videomae_ucf101": Published(4, 3200, 8 * 24, 3e-4, 392, 94_210_944, BASE),
    "videomae_hmdb51": Published(2, 4800, 192, 3e-4, 392, 94_210_944, BASE),
}


def recipe(name: str) -> Recipe:
    return resolve(load(name), "pretrain")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_numbers_of_its_script(name: str) -> None:
    published, ours = PUBLISHED[name], recipe(name)
    assert ours.name == name
    for spec in (ours.data.train, ours.data.val):
        assert spec is not None
        assert (spec.name, spec.sampling) == ("videos", "dense")
        assert (spec.frames, spec.stride) == (16, published.stride)
    assert ours.pretrain is not None
    assert ours.pretrain.epochs == published.epochs
    assert ours.pretrain.batch.global_ == published.global_batch
    assert ours.pretrain.optimizer.base_lr == published.base_lr
    decoder = ours.model.decoder
    assert decoder is not None
    sizes = tuple(decoder.written[key] for key in ("width", "depth", "heads"))
    assert sizes == published.decoder
    model = describe(ours)
    assert model.parameters == published.parameters
    assert model.grid.tokens == 1568
    assert model.grid.tokens - model.hidden == published.visible


def masked(name: str) -> float:
    """Return the scripts' --mask_ratio."""
    return 0.75 if name in ("videomae_ucf101", "videomae_hmdb51") else 0.9


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_scripts_share(name: str) -> None:
    ours = recipe(name)
    pretrain = ours.pretrain
    assert pretrain is not None
    assert pretrain.masker.name == "tube"
    assert pretrain.masker.options.model_dump(mode="json") == {
        "ratio": masked(name),
        "rounding": "hidden",
    }
    assert pretrain.target.name == "norm-pixel"
    assert pretrain.target.options.model_dump(mode="json") == {
        "space": "unit", "statistics": "per-channel", "eps": "outside", "loss": "mse",
        "frames": "same",
    }  # fmt: skip
    optimizer = pretrain.optimizer
    assert (optimizer.betas, optimizer.eps, optimizer.weight_decay) == ((0.9, 0.95), 1e-8, 0.05)
    assert (optimizer.min_lr, optimizer.min_lr_scaled, optimizer.decay_tokens) == (
        1e-5,
        True,
        False,
    )
    assert (pretrain.warmup.epochs, pretrain.warmup.endpoint) == (40, True)
    assert pretrain.clip_grad is None
    assert pretrain.repeats == 1
    assert pretrain.augment == MultiScaleCrop(
        name="multi-scale-crop", scales=(1, 0.875, 0.75, 0.66), max_distort=1, flip=0
    )
    assert ours.data.height_width == (224, 224)
    assert ours.data.stats == "imagenet"


def test_each_data_set_has_its_own_lists() -> None:
    places = {recipe(name).data.train.written["path"] for name in PUBLISHED}
    assert len(places) == 4  # the sizes of Kinetics-400 share one


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_encoder_is_its_size_and_nothing_else(name: str) -> None:
    backbone = recipe(name).model.backbone
    options = backbone.written
    assert backbone.name == "video-vit"
    assert options["heads"] is options["width"] is options["depth"] is None
    assert tuple(options["patch"]) == (2, 16, 16)
    assert (options["mlp_ratio"], options["qkv_bias"], options["init"]) == (4, "qv", "videomae")
    assert (options["positions"], options["class_token"]) == ("sincos-1d", False)
    assert not options["mask_token"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_decoder_starts_and_counts_as_the_encoder(name: str) -> None:
    decoder = recipe(name).model.decoder
    assert decoder is not None
    options = decoder.written
    assert decoder.name == "vit"
    assert (options["mlp_ratio"], options["qkv_bias"], options["init"]) == (4, "qv", "videomae")
    assert (options["positions"], options["embed_bias"]) == ("sincos-1d", False)
