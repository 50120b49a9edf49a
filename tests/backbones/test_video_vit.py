"""The video model: VideoMAE's counts, positions and initialization, and what is an option."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numerics import close

from maekit.backbones.video_vit import VideoViT
from maekit.contracts import PartContext
from maekit.decoders.vit import ViTDecoder
from maekit.errors import PartError
from maekit.grid import Grid
from maekit.layers import Positions, Statistics, sincos_1d, sincos_2d, sincos_3d
from maekit.model import MaskedAutoencoder
from maekit.targets.pixel import NormPixel
from maekit.tokens import Mask

STATISTICS = Statistics((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
VIDEOMAE = {"qkv_bias": "qv", "embed_bias": False, "init": "videomae"}
SMALL = {"size": "tiny", "width": 32, "depth": 2, "heads": 4, "patch": [2, 4, 4]}
CLIP = (4, 8, 12)
GRID = Grid(2, 2, 3)


def make(
    clip: tuple[int, int, int] = CLIP, decoder: dict[str, Any] | None = None, **backbone: Any
) -> MaskedAutoencoder:
    torch.manual_seed(0)
    context = PartContext(clip, 3, *STATISTICS)
    encoder = VideoViT(VideoViT.Options.model_validate(SMALL | backbone), context)
    context = replace(
        context,
        grid=encoder.clip_grid,
        patch=encoder.patch,
        width=encoder.width,
        prefix_tokens=encoder.prefix_tokens,
        returns=encoder.returns,
    )
    target = NormPixel(NormPixel.Options(statistics="per-channel"), context)
    settings = {"width": 16, "depth": 1, "heads": 2} | VIDEOMAE | (decoder or {})
    head = ViTDecoder(
        ViTDecoder.Options.model_validate(settings), replace(context, out_dim=target.out_dim)
    )
    return MaskedAutoencoder(encoder, head, target, clip, STATISTICS).eval()


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Counted from the official code, in millions to the digits given; 4 decoder blocks for S and B.
SIZES = [
    ("small", {"width": 192, "heads": 3, "depth": 4}, 24.03),
    ("base", {"width": 384, "heads": 6, "depth": 4}, 94.210944),
    ("large", {"width": 512, "heads": 8, "depth": 12}, 343.0),
    ("huge", {"width": 640, "heads": 8, "depth": 12}, 692.5),
]


@pytest.mark.parametrize(("size", "decoder", "millions"), SIZES)
def test_parameter_counts_are_videomaes(
    size: str, decoder: dict[str, Any], millions: float
) -> None:
    with torch.device("meta"):
        model = make((16, 224, 224), decoder, **sized(size))
    digits = len(str(millions).split(".")[1])
    assert round(count(model) / 1e6, digits) == millions


def sized(size: str) -> dict[str, Any]:
    return {"size": size, "width": None, "depth": None, "heads": None, "patch": [2, 16, 16]}


def test_the_base_encoder_is_that_of_the_fine_tuned_model() -> None:
    """86,534,800 with Kinetics-400's head of 400 classes; fc_norm stands for the norm."""
    with torch.device("meta"):
        encoder = make((16, 224, 224), **sized("base")).backbone
    assert count(encoder) == 86_534_800 - 400 * (768 + 1)  # type: ignore[arg-type]


def test_small_has_six_heads() -> None:
    with torch.device("meta"):
        encoder = make((16, 224, 224), **sized("small")).backbone
    assert encoder.transformer[0].attn.heads == 6  # type: ignore[attr-defined]


def test_the_tables_are_constants() -> None:
    model = make()
    assert not [name for name in model.state_dict() if "positions" in name]
    assert "positions.table" in dict(model.backbone.named_buffers())  # type: ignore[attr-defined]
    frozen = make(positions="sincos-2d", decoder={"positions": "sincos-2d"})
    assert {name for name in frozen.state_dict() if "positions" in name} == {
        "backbone.positions.table",
        "decoder.positions.table",
    }


def test_the_1d_table_is_videomaes() -> None:
    width = 10
    table = sincos_1d(GRID, width)
    assert table.dtype == torch.float32
    for position in range(12):
        angles = [position / 10000 ** (2 * (j // 2) / width) for j in range(width)]
        expected = [math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(angles)]
        close(table[position], expected, terms=1)


def test_the_2d_table_is_the_same_in_every_time_slot() -> None:
    table = sincos_2d(GRID, 16).unflatten(0, GRID)
    assert torch.equal(table[0], table[1])
    assert torch.equal(table[0].flatten(0, 1), sincos_2d(Grid(1, 2, 3), 16))


@pytest.mark.parametrize("width", [12, 16])  # with and without a rest of the thirds
def test_the_3d_table_tells_each_axis_apart(width: int) -> None:
    grid = Grid(3, 4, 5)
    table = sincos_3d(grid, width).unflatten(0, grid)
    assert table.shape == (*grid, width)
    third = math.ceil(width / 6) * 2
    for axis in range(3):
        own = table[..., axis * third : (axis + 1) * third].movedim(axis, 0)
        others = own.flatten(1, 2)
        assert bool((others == others[:, :1]).all())  # it depends on its own axis only
        position = grid[axis] - 1
        angles = [position / 10000 ** (k / (third / 2)) for k in range(third // 2)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        np.testing.assert_allclose(own[-1, 0, 0], expected[: own.shape[-1]], atol=1e-6)


def test_separable_positions_are_space_plus_time() -> None:
    torch.manual_seed(0)
    positions = Positions("learned-separable", GRID, 8, prefix=1)
    rows = positions()
    assert rows.shape == (13, 8)
    assert torch.equal(rows[0], positions.prefix[0, 0])  # type: ignore[index]
    for t in range(2):
        for place in range(6):
            expected = positions.spatial[0, place] + positions.temporal[0, t]
            assert torch.equal(rows[1 + t * 6 + place], expected)
    rows.sum().backward()
    assert {name for name, p in positions.named_parameters() if p.grad is not None} == {
        "spatial",
        "temporal",
        "prefix",
    }


def test_unset_positions_of_the_decoder_follow_the_grid() -> None:
    clip, image = make(), make((1, 8, 12), patch=[1, 4, 4])
    assert torch.equal(clip.decoder.positions(), sincos_1d(GRID, 16))  # type: ignore[union-attr,operator]
    assert torch.equal(image.decoder.positions(), sincos_2d(Grid(1, 2, 3), 16))  # type: ignore[union-attr,operator]


def test_videomaes_initialization() -> None:
    model = make(width=192, mask_token=True)
    encoder: Any = model.backbone
    # PyTorch's convolution and linear layers: uniform within 1 / sqrt(inputs).
    weight = encoder.patch_embed.weight
    bound = 1 / math.sqrt(3 * 2 * 4 * 4)
    assert float(weight.detach().abs().max()) <= bound
    assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    embed: Any = model.decoder.embed  # type: ignore[union-attr]
    assert embed.bias is None
    bound = 1 / math.sqrt(192)
    assert float(embed.weight.detach().abs().max()) <= bound
    assert float(embed.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    # Everything else as MAE: xavier on the fused matrix, no biases.
    qkv = encoder.transformer[0].attn
    bound = math.sqrt(6 / (192 + 3 * 192))
    assert float(qkv.qkv.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not qkv.q_bias.any()
    assert not qkv.v_bias.any()
    assert not model.decoder.head.bias.any()  # type: ignore[union-attr]


def test_videomaes_tokens_are_cut_at_one_deviation() -> None:
    for init, inside in (("videomae", 1.0), ("mae", 0.683)):
        model = make(decoder={"init": init, "width": 1024, "heads": 8, "depth": 0})
        token = model.decoder.mask_token  # type: ignore[union-attr]
        share = float((token.abs() <= 0.02).float().mean())  # type: ignore[union-attr,operator]
        assert share == pytest.approx(inside, abs=0.05)


def test_hidden_pixels_never_reach_the_encoder() -> None:
    model = make()
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, *CLIP)
    hidden = torch.rand(2, 12).argsort(1) < 9
    where = hidden.reshape(2, 1, *GRID)
    for axis, step in zip((2, 3, 4), (2, 4, 4), strict=True):
        where = where.repeat_interleave(step, axis)
    other = torch.where(where, torch.randn_like(pixels), pixels)
    seen, changed = model(pixels, hidden), model(other, hidden)
    assert torch.equal(seen.encoded, changed.encoded)
    assert torch.equal(seen.pred, changed.pred)
    assert seen.encoded.shape == (2, 3, 32)
    assert seen.pred.shape == (2, 9, 96)
    seen_elsewhere = model(torch.where(where, pixels, other * 2), hidden)
    assert not torch.equal(seen_elsewhere.pred, seen.pred)


def test_tubes_are_told_apart_in_time() -> None:
    """Two hidden tokens of one tube differ in time only: their predictions must too."""
    model = make()
    hidden = torch.tensor([[True, True, True, False, False, False] * 2])
    pred = model(torch.randn(1, 3, *CLIP), hidden).pred
    assert not torch.allclose(pred[:, :3], pred[:, 3:], atol=1e-3)


def test_attention_is_over_time_and_space() -> None:
    model = make()
    mask = Mask.nothing_hidden(1, 12)
    pixels = torch.randn(1, 3, *CLIP)
    other = pixels.clone()
    other[:, :, 2:] += 1  # the second time slot
    first, second = (model.encode_visible(p, mask, layers=(0,)).layers[0] for p in (pixels, other))
    assert not torch.allclose(first[:, :6], second[:, :6], atol=1e-4)


def test_tokens_and_positions_can_be_kept_from_decay() -> None:
    model = make(class_token=True, positions="learned-separable")
    assert set(model.backbone.no_decay()) == {
        "class_token",
        "positions.spatial",
        "positions.temporal",
        "positions.prefix",
    }
    assert list(model.decoder.no_decay()) == ["mask_token"]  # type: ignore[union-attr]
    layers = {name: model.backbone.layer_of(name) for name in model.backbone.no_decay()}
    assert set(layers.values()) == {0}


def test_clips_that_do_not_divide_are_part_errors() -> None:
    with pytest.raises(PartError, match="divide into 2x4x4 patches"):
        make((3, 8, 12))
