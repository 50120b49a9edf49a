"""Our MAE against transformers' ViTMAEForPreTraining: same weights, same numbers.

Theirs builds square grids only and, from scratch, no positions: it gets ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from maekit.engine.build import build_model
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, TOKENS, HIDDEN = 32, 16, 12
TOLERANCE = 1e-5


def theirs(norm_pixels: bool) -> ViTMAEForPreTraining:
    config = ViTMAEConfig(
        image_size=SIDE, patch_size=8,
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=128, layer_norm_eps=1e-6, mask_ratio=HIDDEN / TOKENS,
        norm_pix_loss=norm_pixels,
    )  # fmt: skip
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15)
    return model


def ours(norm_pixels: bool) -> MaskedAutoencoder:
    header = Header(
        backbone={"name": "image-vit", "width": 48, "depth": 2, "heads": 4, "patch": 8},
        decoder={"name": "vit", "width": 32, "depth": 2, "heads": 2},
        target={"name": "norm-pixel" if norm_pixels else "pixel"},
        clip=(1, SIDE, SIDE), channels=3, mean=MEAN, std=STD,
    )  # fmt: skip
    return build_model(header).eval()


def block(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """One block's tensors under our names."""
    mapped = {}
    for kind in ("weight", "bias"):
        fused = [state[f"{theirs}.attention.{which}_proj.{kind}"] for which in "qkv"]
        mapped[f"{ours}.attn.qkv.{kind}"] = torch.cat(fused)
        layers = {
            "norm1": "layernorm_before", "attn.proj": "attention.o_proj",
            "norm2": "layernorm_after", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
        }  # fmt: skip
        for our_name, their_name in layers.items():
            mapped[f"{ours}.{our_name}.{kind}"] = state[f"{theirs}.{their_name}.{kind}"]
    return mapped


def mapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of their tensors under our names; strict loading sees that none is left out."""
    result = {
        "backbone.class_token": state["vit.embeddings.cls_token"],
        "backbone.positions.table": state["vit.embeddings.position_embeddings"],
        "decoder.mask_token": state["decoder.mask_token"],
        "decoder.positions.table": state["decoder.decoder_pos_embed"],
    }
    projection = "vit.embeddings.patch_embeddings.projection"
    result["backbone.patch_embed.weight"] = state[f"{projection}.weight"].unsqueeze(2)
    result["backbone.patch_embed.bias"] = state[f"{projection}.bias"]
    layers = {
        "backbone.norm": "vit.layernorm", "decoder.embed": "decoder.decoder_embed",
        "decoder.norm": "decoder.decoder_norm", "decoder.head": "decoder.decoder_pred",
    }  # fmt: skip
    for our_name, their_name in layers.items():
        for kind in ("weight", "bias"):
            result[f"{our_name}.{kind}"] = state[f"{their_name}.{kind}"]
    for i in range(2):
        result |= block(state, f"vit.layers.{i}", f"backbone.transformer.{i}")
        result |= block(state, f"decoder.decoder_layers.{i}", f"decoder.blocks.{i}")
    return result


def pair(norm_pixels: bool) -> tuple[ViTMAEForPreTraining, MaskedAutoencoder]:
    """Two models with the same weights and our positions."""
    reference, model = theirs(norm_pixels), ours(norm_pixels)
    own: Any = model
    with torch.no_grad():
        reference.vit.embeddings.position_embeddings.copy_(own.backbone.positions.table)
        reference.decoder.decoder_pos_embed.copy_(own.decoder.positions.table)
    model.load_state_dict(mapped(reference.state_dict()), strict=True)
    return reference, model


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_same_weights_same_prediction_loss_and_gradient(norm_pixels: bool) -> None:
    reference, model = pair(norm_pixels)
    torch.manual_seed(1)
    images = torch.randn(3, 3, SIDE, SIDE)
    noise = torch.rand(3, TOKENS)
    hidden = noise.argsort(1).argsort(1) >= TOKENS - HIDDEN  # the smallest noise is kept
    out = model(images.unsqueeze(2), hidden)
    expected: Any = reference(images, noise=noise)
    assert torch.equal(hidden, expected.mask.bool())
    # Theirs predicts every token in raster order; ours the hidden ones.
    predicted = expected.logits[hidden].reshape(3, HIDDEN, -1)
    assert float(predicted.detach().std()) > 0.1
    torch.testing.assert_close(out.pred, predicted, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(out.loss, expected.loss, atol=TOLERANCE, rtol=TOLERANCE)
    out.loss.backward()
    expected.loss.backward()
    projection = reference.vit.embeddings.patch_embeddings.projection
    mine = model.backbone.patch_embed.weight.grad.squeeze(2)  # type: ignore[attr-defined]
    torch.testing.assert_close(mine, projection.weight.grad, atol=TOLERANCE, rtol=1e-3)


def test_the_mask_ratio_keeps_as_many_as_the_masker() -> None:
    from maekit.grid import Grid
    from maekit.maskers.random import Random

    reference, _ = pair(norm_pixels=False)
    for ratio in (0.25, 0.5, 0.6, 0.75, 0.9):
        reference.vit.embeddings.config.mask_ratio = ratio
        with torch.no_grad():
            encoded = reference.vit(torch.zeros(1, 3, SIDE, SIDE)).last_hidden_state
        visible = TOKENS - Random(Random.Options(ratio=ratio)).count(Grid(1, 4, 4))
        assert encoded.shape[1] == 1 + visible
