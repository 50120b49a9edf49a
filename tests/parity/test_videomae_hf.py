"""Our VideoMAE against transformers' VideoMAEForPreTraining: same weights, same numbers.

Theirs must be told: LayerNorm's epsilon (1e-12 and 1e-5 by default, 1e-6 in VideoMAE), and a
normalisation with the statistics that it undoes the target with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from maekit.engine.build import build_model
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # IMAGENET_DEFAULT_MEAN and _STD
CLIP = (4, 16, 24)
TOKENS, HIDDEN = 12, 8
TOLERANCE = 1e-5


def theirs(norm_pixels: bool) -> VideoMAEForPreTraining:
    config = VideoMAEConfig(
        image_size=CLIP[1:], num_frames=CLIP[0], patch_size=8, tubelet_size=2,
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=128, layer_norm_eps=1e-6, use_mean_pooling=False,
        norm_pix_loss=norm_pixels,
    )  # fmt: skip
    torch.manual_seed(0)
    model = VideoMAEForPreTraining(config).eval()
    model.decoder.norm.eps = 1e-6
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model's zeros would hide a mix-up
            parameter.normal_(std=0.15)
    return model


def ours(norm_pixels: bool) -> MaskedAutoencoder:
    per_channel = {"statistics": "per-channel", "eps": "outside"} if norm_pixels else {}
    target = {"name": "norm-pixel" if norm_pixels else "pixel", "space": "unit"} | per_channel
    header = Header(
        backbone={"name": "video-vit", "width": 48, "depth": 2, "heads": 4, "patch": [2, 8, 8]},
        decoder={
            "name": "vit", "width": 32, "depth": 2, "heads": 2, "qkv_bias": "qv",
            "embed_bias": False, "init": "videomae",
        },
        target=target, clip=CLIP, channels=3, mean=MEAN, std=STD,
    )  # fmt: skip
    return build_model(header).eval()


def block(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """One block's tensors under our names."""
    attention = f"{theirs}.attention.attention"
    kinds = ("query", "key", "value")
    mapped = {
        f"{ours}.attn.qkv.weight": torch.cat([state[f"{attention}.{k}.weight"] for k in kinds]),
        f"{ours}.attn.q_bias": state[f"{attention}.query.bias"],
        f"{ours}.attn.v_bias": state[f"{attention}.value.bias"],
    }
    layers = {
        "norm1": "layernorm_before", "attn.proj": "attention.output.dense",
        "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    for our_name, their_name in layers.items():
        for kind in ("weight", "bias"):
            mapped[f"{ours}.{our_name}.{kind}"] = state[f"{theirs}.{their_name}.{kind}"]
    return mapped


def mapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of their tensors under our names; strict loading sees that none is left out."""
    result = {
        "decoder.mask_token": state["mask_token"],
        "decoder.embed.weight": state["encoder_to_decoder.weight"],
    }
    layers = {
        "backbone.patch_embed": "videomae.embeddings.patch_embeddings.projection",
        "backbone.norm": "videomae.layernorm",
        "decoder.norm": "decoder.norm",
        "decoder.head": "decoder.head",
    }
    for our_name, their_name in layers.items():
        for kind in ("weight", "bias"):
            result[f"{our_name}.{kind}"] = state[f"{their_name}.{kind}"]
    for i in range(2):
        result |= block(state, f"videomae.encoder.layer.{i}", f"backbone.transformer.{i}")
        result |= block(state, f"decoder.decoder_layers.{i}", f"decoder.blocks.{i}")
    return result


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_same_weights_same_prediction_loss_and_gradient(norm_pixels: bool) -> None:
    reference, model = theirs(norm_pixels), ours(norm_pixels)
    model.load_state_dict(mapped(reference.state_dict()), strict=True)
    torch.manual_seed(1)
    unit = torch.rand(3, 3, *CLIP)
    # Each sample hides other tokens, so that a mixed-up order cannot pass.
    hidden = torch.rand(3, TOKENS).argsort(1) < HIDDEN
    pixels = model.normalise(unit)
    out = model(pixels, hidden)
    expected: Any = reference(pixels.transpose(1, 2), bool_masked_pos=hidden)
    assert out.pred.shape == expected.logits.shape == (3, HIDDEN, 2 * 8 * 8 * 3)
    assert float(expected.logits.detach().std()) > 0.1
    torch.testing.assert_close(out.pred, expected.logits, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(out.loss, expected.loss, atol=TOLERANCE, rtol=TOLERANCE)
    out.loss.backward()
    expected.loss.backward()
    projection = reference.videomae.embeddings.patch_embeddings.projection
    mine = model.backbone.patch_embed.weight.grad  # type: ignore[attr-defined]
    torch.testing.assert_close(mine, projection.weight.grad, atol=TOLERANCE, rtol=1e-3)


def test_features_of_a_whole_clip() -> None:
    reference, model = theirs(norm_pixels=True), ours(norm_pixels=True)
    model.load_state_dict(mapped(reference.state_dict()), strict=True)
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, *CLIP)
    with torch.no_grad():
        expected = reference.videomae(pixels.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(model.encode(pixels), expected, atol=TOLERANCE, rtol=TOLERANCE)
