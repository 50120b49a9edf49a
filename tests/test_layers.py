"""Attention, position tables and initialization, against formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from maekit.errors import PartError
from maekit.grid import Grid
from maekit.layers import (
    Attention,
    Block,
    PatchEmbedding,
    attend,
    attention_weights,
    init_patch_embedding,
    init_transformer,
    sincos_2d,
)
from maekit.tokens import patchify


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [7, 50, 600])
def test_attend_is_softmax_attention_forward_and_backward(dtype: torch.dtype, tokens: int) -> None:
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in "qkv"]
    q, k, v = exact
    reference = ((q @ k.transpose(-2, -1)) / math.sqrt(8)).softmax(-1) @ v
    reference.square().sum().backward()
    ours = [x.detach().to(dtype).requires_grad_() for x in exact]
    out = attend(*ours)
    out.float().square().sum().backward()
    bound = 1e-5 if dtype == torch.float32 else 3e-2
    for mine, true in [
        (out, reference),
        *((a.grad, b.grad) for a, b in zip(ours, exact, strict=True)),
    ]:
        assert mine is not None
        assert true is not None
        assert float((mine.double() - true).norm() / true.norm()) < bound


@pytest.mark.parametrize(("dtype", "tokens"), [(torch.bfloat16, 50), (torch.bfloat16, 600)])
def test_attend_without_gradients_is_the_same(dtype: torch.dtype, tokens: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 8, dtype=dtype) for _ in "qkv")
    with torch.no_grad():
        judged = attend(q, k, v).float()
    trained = attend(q, k, v).float()
    assert float((judged - trained).norm() / trained.norm()) < 1e-2  # a few roundings of 2^-8


def test_qv_bias_has_no_key_bias() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3, "qv")
    with torch.no_grad():
        attention.q_bias.normal_()
        attention.v_bias.normal_()
    x = torch.randn(2, 5, 12)
    out, _ = attention(x)
    fused = Attention(12, 3, "all")
    fused.load_state_dict(
        {
            "qkv.weight": attention.qkv.weight,
            "qkv.bias": torch.cat([attention.q_bias, torch.zeros(12), attention.v_bias]),
            "proj.weight": attention.proj.weight,
            "proj.bias": attention.proj.bias,
        }
    )
    assert torch.equal(out, fused(x)[0])
    assert "q_bias" not in dict(Attention(12, 3, "none").named_parameters())


def test_asking_for_weights_does_not_change_the_output() -> None:
    torch.manual_seed(0)
    block = Block(16, 4)
    x = torch.randn(2, 9, 16)
    plain, none = block(x)
    watched, weights = block(x, want_weights=True)
    assert none is None
    assert weights.shape == (2, 4, 9, 9)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 9), atol=1e-6)
    assert torch.allclose(plain, watched, atol=1e-5)


def test_attention_weights_are_stable_in_bfloat16() -> None:
    q = torch.full((1, 1, 4, 8), 30.0, dtype=torch.bfloat16)
    assert bool(attention_weights(q, q).isfinite().all())


def test_sincos_table_is_maes() -> None:
    grid, width = Grid(1, 3, 5), 16
    table = sincos_2d(grid, width)
    for row in range(3):
        for column in range(5):
            expected = []
            for position in (column, row):  # the column first
                angles = [position / 10000 ** (k / (width / 4)) for k in range(width // 4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            np.testing.assert_allclose(table[row * 5 + column], expected, atol=1e-6)
    with pytest.raises(PartError, match="divisible by 4"):
        sincos_2d(grid, 6)


def test_patch_embedding_equals_the_convolution_of_its_weight() -> None:
    torch.manual_seed(0)
    embed = PatchEmbedding(3, 8, (2, 4, 4))
    pixels = torch.randn(2, 3, 4, 8, 12)
    convolved = torch.nn.functional.conv3d(pixels, embed.weight, embed.bias, stride=(2, 4, 4))
    tokens = embed(patchify(pixels, (2, 4, 4)))
    assert torch.allclose(tokens, convolved.flatten(2).transpose(1, 2), atol=1e-5)


def test_initialization_statistics() -> None:
    torch.manual_seed(0)
    block = Block(192, 3)
    init_transformer(block)
    qkv = block.attn.qkv.weight
    bound = math.sqrt(6 / (192 + 3 * 192))  # xavier uniform on the fused [3D, D] matrix
    assert float(qkv.abs().max()) <= bound
    assert float(qkv.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert float(block.mlp.fc1.bias.abs().max()) == 0
    embed = PatchEmbedding(3, 192, (1, 16, 16))
    init_patch_embedding(embed, "mae")
    bound = math.sqrt(6 / (192 + 3 * 256))
    assert float(embed.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert float(embed.bias.abs().max()) > 0  # the convolution's default, not zero
