"""The cross-attention decoder and partial prediction: exact, and each query by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maekit.contracts import Encoded, Grid, PartContext, PartError
from maekit.maskers.random import Random
from maekit.testing import check_decoder, check_masker
from maekit.tokens import Mask, gather
from maekit_crossmae.decoder import Cross, CrossBlock
from maekit_crossmae.masker import Partial

CONTEXT = PartContext(
    (1, 32, 48), 3, (0.5,) * 3, (0.2,) * 3, grid=Grid(1, 4, 6), patch=(1, 8, 8), width=32,
    prefix_tokens=1, layer_widths=(32,) * 4, out_dim=12,
)  # fmt: skip


def cross(**options: object) -> Cross:
    torch.manual_seed(0)
    small = {"width": 16, "depth": 2, "heads": 2, **options}
    return Cross(Cross.Options.model_validate(small), CONTEXT).eval()


def seen(mask: Mask, layers: int = 0) -> Encoded:
    shape = (len(mask.visible), 1 + mask.visible.shape[1], 32)
    generator = torch.Generator().manual_seed(1)
    each = [torch.randn(shape, generator=generator) for _ in range(layers + 1)]
    return Encoded(each[0], tuple(each[1:]))


def a_mask(seed: int = 0) -> Mask:
    order = torch.rand(2, 24, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return Mask.build(order < 18)


@torch.no_grad()
def test_a_query_is_predicted_the_same_alone_and_in_any_order() -> None:
    decoder, mask = cross(), a_mask()
    whole = decoder(seen(mask), mask, CONTEXT.grid)
    assert whole.shape == (2, 18, 12)
    order = torch.randperm(18).expand(2, -1)[:, :5]
    few = Mask(mask.visible, mask.queries.gather(1, order), mask.weight[:, :5], mask.tokens)
    # Sums over 16 values, of another batch shape.
    torch.testing.assert_close(decoder(seen(mask), few, CONTEXT.grid), gather(whole, order))
    assert not torch.allclose(whole[:, 0], whole[:, 1])  # positions tell queries apart


@torch.no_grad()
def test_attention_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    block = CrossBlock(4, 6, 2, 2.0)
    x, tokens = torch.randn(1, 3, 4), torch.randn(1, 5, 6)
    q = block.q(block.norm1(x))
    k, v = block.kv(tokens)[..., :4], block.kv(tokens)[..., 4:]
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        weights = (q[..., head] @ k[..., head].transpose(1, 2) / 2**0.5).softmax(-1)
        heads.append(weights @ v[..., head])
    after = x + block.proj(torch.cat(heads, -1))
    torch.testing.assert_close(block(x, tokens), after + block.mlp(block.norm2(after)))


@torch.no_grad()
def test_each_block_weighs_layers_of_its_own() -> None:
    assert cross().layers == ()
    assert cross(weighted=4).layers == (0, 1, 2, 3)
    assert cross(weighted=2).layers == (1, 3)
    assert cross(weighted=1).layers == (3,)
    decoder, mask = cross(weighted=2), a_mask()
    encoded = seen(mask, layers=2)
    assert decoder.weigh is not None
    decoder.weigh.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 2.0]]))
    first, second = encoded.layers
    for index, mixed in enumerate((first, 0.5 * first + 2 * second)):
        expected = torch.nn.functional.layer_norm(mixed, (32,), eps=1e-6)
        torch.testing.assert_close(decoder._seen(encoded, index), expected)
    before = decoder(encoded, mask, CONTEXT.grid)
    other = Encoded(encoded.tokens + 1, encoded.layers)  # the output itself is not looked at
    assert torch.equal(decoder(other, mask, CONTEXT.grid), before)


def test_every_parameter_gets_a_gradient() -> None:
    decoder, mask = cross(weighted=3), a_mask()
    decoder(seen(mask, layers=3), mask, CONTEXT.grid).square().sum().backward()
    still = [n for n, p in decoder.named_parameters() if p.requires_grad and p.grad is None]
    assert still == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PartError, match="the encoder has 4 blocks"):
        cross(weighted=5)
    with pytest.raises(PartError, match="does not divide into 3 heads"):
        cross(heads=3)
    for change, words in (
        ({"layer_widths": (16, 32)}, "widths from 16 to 32"),
        ({"returns": "all"}, "returns hidden tokens too"),
    ):
        context = PartContext(**vars(CONTEXT) | change)
        with pytest.raises(PartError, match=words):
            Cross(Cross.Options(width=16, heads=2, weighted=2), context)


@pytest.mark.parametrize(("share", "wanted"), [(0.25, 36), (1.0, 147), (1 / 3, 49)])
def test_exactly_a_share_of_the_hidden_is_predicted(share: float, wanted: int) -> None:
    # 14 x 14 tokens of which 147 are hidden: a quarter is 36.75, so 36, in every draw. A masker
    # that cannot see what is hidden asks for 49 and gets 30 to 44 of them.
    grid = Grid(1, 14, 14)
    hide, choose = Random(Random.Options()), Partial(Partial.Options(share=share))
    chosen_before = None
    for seed in range(50):
        rng = np.random.default_rng(seed)
        hidden = hide(grid, rng)
        chosen = choose(grid, rng, hidden=hidden)
        assert chosen.sum() == wanted
        assert not (chosen & ~hidden).any()
        assert chosen_before is None or not np.array_equal(chosen, chosen_before)
        chosen_before = chosen


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(PartError, match="is none"):
        Partial(Partial.Options(share=0.1))(
            Grid(1, 2, 2), np.random.default_rng(0), hidden=np.array([[[True, True], [False] * 2]])
        )


@pytest.mark.parametrize("weighted", [0, 1, 2])
def test_the_decoder_keeps_its_promises(weighted: int) -> None:
    check_decoder(Cross, {"width": 16, "depth": 2, "heads": 2, "weighted": weighted})


def test_the_masker_keeps_its_promises() -> None:
    check_masker(Partial, {"share": 0.4})
