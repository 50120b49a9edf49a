"""ConvNeXt V2: equal to timm's, and as if convolutions were sparse where something is hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import maekit
from maekit.contracts import Encoded, Grid, PartContext, PartError
from maekit.testing import check_backbone, check_decoder
from maekit.tokens import Mask
from maekit_convnext.backbone import ConvNeXt
from maekit_convnext.block import Block, ResponseNorm
from maekit_convnext.decoder import ConvDecoder

CONTEXT = PartContext((1, 32, 48), 3, (0.5,) * 3, (0.2,) * 3)
GRID = Grid(1, 4, 6)


def small(**options: object) -> ConvNeXt:
    torch.manual_seed(0)
    wanted = {"width": 8, "stages": (1, 2), "stride": 4, **options}
    model = ConvNeXt(ConvNeXt.Options.model_validate(wanted), CONTEXT).eval()
    for name, parameter in model.named_parameters():  # response norms that do something
        if "response" in name:
            torch.nn.init.normal_(parameter)
    return model


def a_mask() -> Mask:
    order = torch.rand(2, 24, generator=torch.Generator().manual_seed(0)).argsort(1)
    return Mask.build(order < 14)


def test_outputs_equal_timms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(
        "convnextv2_atto", depths=(1, 2, 1, 1), dims=(8, 16, 32, 64), num_classes=5
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 10)
    found = ConvNeXt.foreign(theirs.state_dict())
    assert found is not None
    assert found.options == {"width": 8, "stages": (1, 2, 1, 1), "stride": 4}
    assert found.left_out == {"of the head": 2}
    context = PartContext((1, 64, 96), 3, (0.5,) * 3, (0.2,) * 3)
    mine = ConvNeXt(ConvNeXt.Options.model_validate(found.options), context).eval()
    mine.load_state_dict(found.tensors)
    pixels = torch.randn(2, 3, 1, 64, 96)
    with torch.no_grad():
        expected = theirs.head.norm(theirs.forward_features(pixels[:, :, 0]))
        got = mine(pixels, Mask.nothing_hidden(2, 6)).tokens
    # Float32 sums in another order.
    torch.testing.assert_close(got, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    loaded = maekit.load(tmp_path / "net.pth", clip=(1, 64, 96))
    with torch.no_grad():
        assert torch.equal(loaded.encode(pixels), got)
    assert ConvNeXt.foreign({"stem.0.weight": torch.zeros(8, 3, 4, 4)}) is None


@torch.no_grad()
def test_a_block_sees_hidden_places_as_a_sparse_convolution_does() -> None:
    torch.manual_seed(0)
    block = Block(4)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    seen = (torch.rand(1, 5, 6, 1) < 0.5).float()
    x = torch.randn(1, 5, 6, 4) * seen
    got = block(x, seen)
    assert not got[seen[..., 0] == 0].any()
    # By places that are seen alone: each sums over seen neighbors; the norm is over seen places.
    places = [(int(r), int(c)) for _, r, c in torch.nonzero(seen[..., 0])]
    rows = []
    for row, column in places:
        total = block.conv.bias.clone()
        for r, c in places:
            dy, dx = r - row + 3, c - column + 3
            if 0 <= dy < 7 and 0 <= dx < 7:
                total += block.conv.weight[:, 0, dy, dx] * x[0, r, c]
        rows.append(total)
    inner = torch.nn.functional.gelu(block.fc1(block.norm(torch.stack(rows))))
    length = inner.norm(dim=0)
    share = length / (length.mean() + 1e-6)
    inner = inner + block.response.weight * (inner * share) + block.response.bias
    expected = torch.stack([x[0, r, c] for r, c in places]) + block.fc2(inner)
    torch.testing.assert_close(torch.stack([got[0, r, c] for r, c in places]), expected)


def test_the_response_norm_starts_as_nothing() -> None:
    x = torch.randn(1, 2, 3, 5)
    assert torch.equal(ResponseNorm(5)(x), x)


@torch.no_grad()
def test_it_sees_nothing_hidden_and_keeps_the_order() -> None:
    model, mask = small(), a_mask()
    assert model.grid(CONTEXT.shape) == GRID
    pixels = torch.randn(2, 3, *CONTEXT.shape)
    encoded = model(pixels, mask, layers=(0, 2))
    assert encoded.tokens.shape == (2, 10, 16)
    assert [tuple(layer.shape) for layer in encoded.layers] == [(2, 10, 8), (2, 10, 16)]
    torch.testing.assert_close(model.norm(encoded.layers[1]), encoded.tokens)
    hidden = mask.hidden().view(2, 1, 1, 4, 6).repeat_interleave(8, 3).repeat_interleave(8, 4)
    other = torch.where(hidden, torch.randn_like(pixels), pixels)
    assert torch.equal(model(other, mask).tokens, encoded.tokens)
    row, column = divmod(int(mask.visible[0, 4]), 6)
    other = pixels.clone()
    other[0, :, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
    moved = (model(other, mask).tokens - encoded.tokens).square().sum(-1)
    assert int(moved[0].argmax()) == 4
    assert not moved[1].any()


def test_layers_are_numbered_with_what_shrinks_the_map_before_them() -> None:
    model = small(stages=(2, 1, 1), stride=2)
    assert model.patch == (1, 8, 8)
    layers = {name.rpartition(".")[0]: model.layer_of(name) for name, _ in model.named_parameters()}
    assert layers["stem"] == layers["stem_norm"] == 0
    assert layers["main.0.conv"] == 1
    assert layers["main.2.fc1"] == layers["main.2.shrink.conv"] == 3
    assert layers["main.3.fc1"] == layers["main.3.shrink.norm"] == 4
    assert layers["norm"] == 5


def decoder(**changes: object) -> ConvDecoder:
    facts = {"grid": GRID, "patch": (1, 8, 8), "width": 16, "out_dim": 12, **changes}
    torch.manual_seed(0)
    context = PartContext(**vars(CONTEXT) | facts)
    return ConvDecoder(ConvDecoder.Options(width=8), context).eval()


@torch.no_grad()
def test_the_decoder_predicts_in_the_order_of_the_queries() -> None:
    mask = a_mask()
    tokens = torch.randn(2, 10, 16)
    whole = decoder()(Encoded(tokens), mask, GRID)
    assert whole.shape == (2, 14, 12)
    order = torch.tensor([[3, 0], [5, 5]])
    few = Mask(mask.visible, mask.queries.gather(1, order), mask.weight[:, :2], 24)
    expected = torch.stack([row[at] for row, at in zip(whole, order, strict=True)])
    torch.testing.assert_close(decoder()(Encoded(tokens), few, GRID), expected)
    everything = torch.zeros(2, 24, 16).scatter(
        1, mask.visible[..., None].expand(-1, -1, 16), tokens
    )
    plain = decoder(returns="all")
    assert plain.mask_token is None
    assert plain(Encoded(everything), mask, GRID).shape == (2, 14, 12)
    with pytest.raises(PartError, match="map of one time slot"):
        decoder(grid=Grid(2, 4, 6))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PartError, match="do not divide into patches of 32x32"):
        small(stages=(1, 1, 1, 1))
    clip = PartContext((2, 32, 48), 3, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(PartError, match="takes one frame"):
        ConvNeXt(ConvNeXt.Options(), clip)


def test_the_backbone_keeps_its_promises() -> None:
    check_backbone(ConvNeXt, {"width": 8, "stages": [1, 2]})


def test_the_decoder_keeps_its_promises() -> None:
    check_decoder(ConvDecoder, {"width": 16})
