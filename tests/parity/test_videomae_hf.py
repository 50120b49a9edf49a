"""Our VideoMAE against transformers' VideoMAEForPreTraining: same weights, same numbers.

Theirs must be told: LayerNorm's epsilon (1e-12 and 1e-5 by default, 1e-6 in VideoMAE), and a
normalization with the statistics that it undoes the target with.
"""

from __future__ import annotations

from typing import Any

import hf_names
import pytest
import torch
from agreement import (
    GRADIENT_TOLERANCE,
    IMAGENET,
    assert_agree,
    gradients,
    output_of,
    random_hidden,
    randomize,
    uneven_pixels,
)

from maekit.backbones.vit import Shape
from maekit.engine.build import build_model
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header

Size = tuple[tuple[int, int, int], tuple[int, int, int], Shape, Shape]

SMALL: Size = ((4, 16, 24), (2, 8, 8), Shape(48, 2, 4), Shape(32, 2, 2))
TALL: Size = ((6, 32, 16), (3, 8, 8), Shape(48, 2, 4), Shape(32, 1, 4))
BASE: Size = ((16, 224, 224), (2, 16, 16), Shape(768, 12, 12), Shape(384, 4, 6))


def theirs(size: Size, norm_pixels: bool) -> Any:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    clip, patch, encoder, decoder = size
    config = VideoMAEConfig(
        image_size=clip[1:], num_frames=clip[0], patch_size=patch[1], tubelet_size=patch[0],
        layer_norm_eps=1e-6, use_mean_pooling=False, norm_pix_loss=norm_pixels,
        hidden_size=encoder.width, num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads, intermediate_size=4 * encoder.width,
        decoder_hidden_size=decoder.width, decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads, decoder_intermediate_size=4 * decoder.width,
    )  # fmt: skip
    model: Any = VideoMAEForPreTraining(config)
    model.eval()
    model.decoder.norm.eps = 1e-6
    randomize(model, std=encoder.width**-0.5)
    return model


def ours(size: Size, norm_pixels: bool) -> MaskedAutoencoder:
    clip, patch, encoder, decoder = size
    per_channel = {"statistics": "per-channel", "eps": "outside"} if norm_pixels else {}
    target = {"name": "norm-pixel" if norm_pixels else "pixel", "space": "unit"} | per_channel
    header = Header(
        backbone={"name": "video-vit", **vars(encoder), "patch": list(patch)},
        decoder={"name": "vit", **vars(decoder), "qkv_bias": "qv", "embed_bias": False},
        target=target, clip=clip, channels=3, mean=IMAGENET.mean, std=IMAGENET.std,
    )  # fmt: skip
    return build_model(header).eval()


def pair(size: Size, norm_pixels: bool) -> tuple[Any, MaskedAutoencoder]:
    reference, model = theirs(size, norm_pixels), ours(size, norm_pixels)
    model.load_state_dict(hf_names.videomae(reference.state_dict()), strict=True)
    return reference, model


def compare(size: Size, norm_pixels: bool, batch: int = 3) -> None:
    """Loss, prediction, encoder output and all gradients."""
    reference, model = pair(size, norm_pixels)
    pixels = model.normalize(uneven_pixels(batch, 3, *size[0]))
    tokens = model.grid.tokens
    hidden = random_hidden(batch, tokens, tokens * 2 // 3)
    out = model(pixels, hidden)
    out.loss.backward()
    with output_of(reference.videomae, lambda output: output.last_hidden_state) as encoded:
        expected: Any = reference(pixels.transpose(1, 2), bool_masked_pos=hidden)
    expected.loss.backward()
    assert_agree(
        {"loss": out.loss, "pred": out.pred, "encoded": out.encoded},
        {"loss": expected.loss, "pred": expected.logits, "encoded": encoded[0]},
    )
    assert_agree(gradients(model), hf_names.videomae(gradients(reference)), GRADIENT_TOLERANCE)


@pytest.mark.parametrize("size", [SMALL, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("norm_pixels", [True, False], ids=["normalized", "raw"])
def test_same_weights_same_numbers(size: Size, norm_pixels: bool) -> None:
    compare(size, norm_pixels)


@pytest.mark.slow
def test_same_weights_same_numbers_at_vit_b() -> None:
    compare(BASE, norm_pixels=True, batch=1)


def test_features_of_a_whole_clip() -> None:
    reference, model = pair(SMALL, norm_pixels=True)
    pixels = torch.randn(2, 3, *SMALL[0], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference.videomae(pixels.transpose(1, 2)).last_hidden_state
        assert_agree({"features": model.encode(pixels)}, {"features": expected})
