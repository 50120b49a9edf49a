"""Our MAE against transformers' ViTMAEForPreTraining: same weights, same numbers.

Theirs builds square grids only and, from scratch, no positions: it gets ours. Its LayerNorm must be
told MAE's epsilon (1e-12 by default).
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
    randomize,
    uneven_pixels,
)

from maekit.backbones.vit import Shape
from maekit.engine.build import build_model
from maekit.grid import Grid
from maekit.maskers.random import Random
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header

SMALL = (32, 8, Shape(48, 2, 4), Shape(32, 2, 2))
BASE = (224, 16, Shape(768, 12, 12), Shape(512, 8, 16))
RATIO = 0.75


def theirs(side: int, patch: int, encoder: Shape, decoder: Shape, norm_pixels: bool) -> Any:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=side, patch_size=patch, layer_norm_eps=1e-6, mask_ratio=RATIO,
        norm_pix_loss=norm_pixels,
        hidden_size=encoder.width, num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads, intermediate_size=4 * encoder.width,
        decoder_hidden_size=decoder.width, decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads, decoder_intermediate_size=4 * decoder.width,
    )  # fmt: skip
    model: Any = ViTMAEForPreTraining(config)
    return model.eval()


def ours(
    side: int, patch: int, encoder: Shape, decoder: Shape, norm_pixels: bool
) -> MaskedAutoencoder:
    header = Header(
        backbone={"name": "image-vit", **vars(encoder), "patch": patch},
        decoder={"name": "vit", **vars(decoder)},
        target={"name": "norm-pixel" if norm_pixels else "pixel"},
        clip=(1, side, side), channels=3, mean=IMAGENET.mean, std=IMAGENET.std,
    )  # fmt: skip
    return build_model(header).eval()


def compare(size: tuple[int, int, Shape, Shape], norm_pixels: bool, quiet: bool) -> None:
    """Loss, prediction, encoder output and all gradients."""
    side, patch, encoder, _ = size
    reference, model = theirs(*size, norm_pixels), ours(*size, norm_pixels)
    own: Any = model
    with torch.no_grad():
        reference.vit.embeddings.position_embeddings.copy_(own.backbone.positions.table)
        reference.decoder.decoder_pos_embed.copy_(own.decoder.positions.table)
    randomize(reference, std=encoder.width**-0.5, quiet=quiet)
    model.load_state_dict(hf_names.vit_mae(reference.state_dict()), strict=True)
    images = model.normalize(uneven_pixels(2, 3, 1, side, side))
    tokens = (side // patch) ** 2
    noise = torch.rand(2, tokens, generator=torch.Generator().manual_seed(1))
    keep = int(tokens * (1 - RATIO))
    kept = noise.argsort(1)[:, :keep]  # the smallest noise is kept
    hidden = torch.ones(2, tokens, dtype=torch.bool).scatter(1, kept, value=False)

    out = model(images, hidden)
    out.loss.backward()
    with output_of(reference.vit.layernorm, lambda output: output) as encoded:
        expected: Any = reference(images.squeeze(2), noise=noise)
    expected.loss.backward()
    assert torch.equal(hidden, expected.mask.bool())
    # Theirs encodes in the order of the noise, after the class token; ours in raster order. Theirs
    # predicts every token in raster order; ours the hidden ones.
    raster = torch.cat([torch.zeros(2, 1, dtype=torch.int64), 1 + kept.argsort(1)], dim=1)
    in_order = encoded[0].gather(1, raster[..., None].expand(-1, -1, encoder.width))
    predicted = expected.logits[hidden].reshape(2, tokens - keep, -1)
    assert_agree(
        {"loss": out.loss, "pred": out.pred, "encoded": out.encoded},
        {"loss": expected.loss, "pred": predicted, "encoded": in_order},
    )
    assert_agree(gradients(model), hf_names.vit_mae(gradients(reference)), GRADIENT_TOLERANCE)


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
@pytest.mark.parametrize("norm_pixels", [True, False], ids=["normalized", "raw"])
def test_same_weights_same_numbers(norm_pixels: bool, quiet: bool) -> None:
    compare(SMALL, norm_pixels, quiet)


@pytest.mark.slow
def test_same_weights_same_numbers_at_vit_b() -> None:
    compare(BASE, norm_pixels=True, quiet=False)


def test_the_mask_ratio_keeps_as_many_as_the_masker() -> None:
    reference = theirs(*SMALL, norm_pixels=False)
    for ratio in (0.25, 0.5, 0.6, 0.75, 0.9):
        reference.vit.embeddings.config.mask_ratio = ratio
        with torch.no_grad():
            encoded = reference.vit(torch.zeros(1, 3, 32, 32)).last_hidden_state
        visible = 16 - Random(Random.Options(ratio=ratio)).count(Grid(1, 4, 4))
        assert encoded.shape[1] == 1 + visible
