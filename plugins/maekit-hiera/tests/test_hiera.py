"""Hiera and HiViT: equal to timm's, blind to what is hidden, in the order of the mask."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import maekit
from maekit.contracts import Grid, PartContext, PartError, WeightsError
from maekit.engine.build import build_model, compatible_header, load_into
from maekit.testing import check_backbone
from maekit.tokens import Mask
from maekit.weights.header import Header
from maekit.weights.importer import ImportReport, Weights
from maekit.weights.safetensors_io import model_tensors
from maekit_hiera.hiera import Hiera
from maekit_hiera.hivit import HiViT
from maekit_hiera.names import ours
from maekit_hiera.order import by_unit, within

PICTURE = PartContext((1, 64, 96), 3, (0.5,) * 3, (0.2,) * 3)
SMALL = {"width": 16, "heads": 1, "stages": (1, 1, 1), "stride": 4}


def hidden_units(units: torch.Tensor, side: int) -> torch.Tensor:
    """Return bool ``[B, N]`` of bool ``[B, h, w]`` units of ``side`` x ``side`` tokens."""
    return units.repeat_interleave(side, 1).repeat_interleave(side, 2).flatten(1)


def test_pooled_tokens_stand_side_by_side() -> None:
    assert within(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert within(4)[:5].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]]
    assert within(8).unique(dim=0).shape == (64, 2)
    assert by_unit(Grid(1, 2, 4), 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert by_unit(Grid(1, 2, 3), 1).tolist() == [[0], [1], [2], [3], [4], [5]]


@pytest.mark.parametrize("q_pool", [3, 2])
def test_outputs_equal_timms(q_pool: int) -> None:
    timm_hiera = pytest.importorskip("timm.models.hiera")
    torch.manual_seed(0)
    theirs = timm_hiera.Hiera(
        img_size=(64, 64), embed_dim=96, stages=(1, 2, 1, 1), q_pool=q_pool, num_classes=7
    ).eval()
    with torch.no_grad():  # norms that do something
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) / 10)
    found = Hiera.foreign(theirs.state_dict())
    assert found is not None
    assert (found.options["stages"], found.options["heads"]) == ((1, 2, 1, 1), 1)
    assert found.left_out == {"of heads and decoders": 2}  # head.fc
    context = PartContext(found.shape, found.channels, (0.5,) * 3, (0.2,) * 3)
    options = Hiera.Options.model_validate({**found.options, "q_pool": q_pool})
    mine = Hiera(options, context).eval()
    mine.load_state_dict(found.tensors)
    pixels = torch.randn(2, 3, 1, 64, 64)
    last, left = len(theirs.blocks) - 1, 2 ** (3 - q_pool)
    # Float32, and sums of up to 768 values in another order, over five blocks.
    close = {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        whole = theirs.reroll(theirs.forward_features(pixels[:, :, 0]), last)
        expected = theirs.head.norm(whole.flatten(1, 2))
        nothing = Mask.nothing_hidden(2, mine.clip_grid.tokens)
        torch.testing.assert_close(mine(pixels, nothing).tokens, expected, **close)
        keep = torch.tensor([[True, False, False, True], [False, True, True, False]])
        some = theirs.reroll(theirs.forward_features(pixels[:, :, 0], mask=keep), last, mask=keep)
        mask = Mask.build(hidden_units(~keep.view(2, 2, 2), left))
        placed = torch.zeros(2, 4, left, left, mine.width)
        placed[keep] = some.reshape(-1, left, left, mine.width)
        raster = placed.view(2, 2, 2, left, left, -1).transpose(2, 3).reshape(2, -1, mine.width)
        expected = torch.stack([row[seen] for row, seen in zip(raster, mask.visible, strict=True)])
        got = mine(pixels, mask).tokens
        torch.testing.assert_close(got, theirs.head.norm(expected), **close)


def test_a_file_of_timms_loads_by_its_path_and_at_another_size(tmp_path: Path) -> None:
    timm_hiera = pytest.importorskip("timm.models.hiera")
    torch.manual_seed(0)
    theirs = timm_hiera.Hiera(img_size=(64, 64), embed_dim=96, stages=(1, 1, 1, 1)).eval()
    torch.save(theirs.state_dict(), tmp_path / "hiera.pth")
    model = maekit.load(tmp_path / "hiera.pth")
    pixels = torch.randn(2, 3, 1, 64, 64)
    with torch.no_grad():
        expected = theirs.head.norm(theirs.forward_features(pixels[:, :, 0]))
        torch.testing.assert_close(model.encode(pixels), expected, rtol=1e-4, atol=1e-4)
    wider = maekit.load(tmp_path / "hiera.pth", clip=(1, 64, 96))
    assert wider.encode(torch.zeros(1, 3, 1, 64, 96)).shape == (1, 6, 768)


def test_other_state_dicts_are_left_to_others() -> None:
    vit = {
        "pos_embed": torch.zeros(1, 197, 96),
        "patch_embed.proj.weight": torch.zeros(96, 3, 16, 16),
    }
    assert ours(vit) is None
    assert ours({}) is None
    clip = {
        "pos_embed_spatial": torch.zeros(1, 9, 96),
        "patch_embed.proj.weight": torch.zeros(96, 3, 3, 7, 7),
    }
    assert ours(clip) is None


@pytest.mark.parametrize(
    ("options", "patch", "unit"),
    [
        (SMALL, 16, 1),
        (SMALL | {"q_pool": 1}, 8, 2),
        (SMALL | {"q_pool": 0, "kernel": 4}, 4, 4),
        (SMALL | {"stages": (2,), "windowed": 0}, 4, 1),
        (SMALL | {"stride": 2, "kernel": 3, "windowed": 3, "last_norm": False}, 8, 1),
    ],
)
def test_hiera_sees_nothing_hidden_and_keeps_the_order(
    options: dict[str, object], patch: int, unit: int
) -> None:
    torch.manual_seed(0)
    model = Hiera(Hiera.Options.model_validate(options), PICTURE).eval()
    assert (model.patch, model.mask_unit) == ((1, patch, patch), (1, unit, unit))
    check_blind_and_in_order(model, unit)


@pytest.mark.parametrize("positions", ["sincos-2d", "learned"])
def test_hivit_sees_nothing_hidden_and_keeps_the_order(positions: str) -> None:
    torch.manual_seed(0)
    options = {"width": 32, "heads": 2, "stages": (1, 2, 2), "patch": 16, "positions": positions}
    model = HiViT(HiViT.Options.model_validate(options), PICTURE).eval()
    assert model.layer_widths == (16, 16, 32, 32, 32)
    check_blind_and_in_order(model, 1)


@torch.no_grad()
def check_blind_and_in_order(model: Hiera | HiViT, unit: int) -> None:
    grid = model.grid(PICTURE.shape)
    units = torch.rand(2, grid.h // unit, grid.w // unit).flatten(1).argsort(1)
    hide = (units < units.shape[1] // 2).view(2, grid.h // unit, grid.w // unit)
    mask = Mask.build(hidden_units(hide, unit))
    pixels = torch.randn(2, 3, *PICTURE.shape)
    encoded = model(pixels, mask, layers=(0, len(model.blocks()) - 1))
    assert encoded.tokens.shape == (2, mask.visible.shape[1], model.width)
    assert [x.shape[1:] for x in encoded.layers] == [
        (mask.visible.shape[1], width) for width in (model.layer_widths[0], model.width)
    ]
    norm = model.last_norm()
    last = encoded.layers[-1]
    torch.testing.assert_close(last if norm is None else norm(last), encoded.tokens)
    pixel_mask = mask.hidden().view(2, 1, 1, grid.h, grid.w)
    scale = (model.patch[1], model.patch[2])
    pixel_mask = pixel_mask.repeat_interleave(scale[0], 3).repeat_interleave(scale[1], 4)
    other = torch.where(pixel_mask, torch.randn_like(pixels), pixels)
    assert torch.equal(model(other, mask).tokens, encoded.tokens)
    # A change in one visible patch changes its own token most.
    place = mask.visible.shape[1] // 2
    row, column = divmod(int(mask.visible[0, place]), grid.w)
    at = (
        slice(row * scale[0], (row + 1) * scale[0]),
        slice(column * scale[1], (column + 1) * scale[1]),
    )
    other = pixels.clone()
    other[0, :, 0, at[0], at[1]] = torch.randn_like(other[0, :, 0, at[0], at[1]])
    moved = (model(other, mask).tokens - encoded.tokens).square().sum(-1)
    assert int(moved[0].argmax()) == place
    assert not moved[1].any()
    # Each block's parameters are of its own layer.
    for index, block in enumerate(model.blocks()):
        own = {id(parameter) for parameter in block.parameters()}
        names = [name for name, parameter in model.named_parameters() if id(parameter) in own]
        assert {model.layer_of(name) for name in names} == {index + 1}


def test_what_does_not_fit_is_refused() -> None:
    for size in ((1, 60, 96), (2, 64, 96)):
        with pytest.raises(PartError):
            Hiera(Hiera.Options.model_validate(SMALL), PartContext(size, 3, (0.5,) * 3, (0.2,) * 3))
        with pytest.raises(PartError):
            HiViT(HiViT.Options(), PartContext(size, 3, (0.5,) * 3, (0.2,) * 3))
    for wrong in ({"q_pool": 3}, {"kernel": 3}, {"stages": (1, 0)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Hiera.Options.model_validate(SMALL | wrong)


def test_weights_of_one_q_pool_load_at_another() -> None:
    """The paper pre-trains with one pooling less than it fine-tunes with."""

    def header(q_pool: int) -> Header:
        backbone = {"name": "maekit-hiera/hiera", **SMALL, "q_pool": q_pool}
        decoder = {"name": "vit", "width": 16, "depth": 1, "heads": 2}
        return Header.model_validate(
            {
                "clip": (1, 32, 48), "channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3,
                "backbone": backbone, "target": {"name": "pixel"}, "decoder": decoder,
            }
        )  # fmt: skip

    trained, asked = header(1), header(2)
    model = build_model(trained, 1)
    agreed, why = compatible_header(trained, asked, "weights")
    assert why == "it predicts patches of (1, 8, 8), not (1, 16, 16)"
    other = build_model(agreed, 2)
    weights = Weights(trained, model_tensors(model), "weights", ImportReport("maekit", 0))
    load_into(other, weights, why)
    before, after = model.backbone.state_dict(), other.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert other.grid == Grid(1, 2, 3) != model.grid
    narrow = asked.model_copy(
        update={"backbone": asked.backbone.with_options(Hiera.Options(**SMALL | {"stride": 2}))}
    )
    with pytest.raises(WeightsError, match=r"backbone\.stride: 4 in the weights, 2 requested"):
        compatible_header(trained, narrow, "weights")


def test_it_begins_as_timms() -> None:
    model = Hiera(Hiera.Options.model_validate(SMALL), PICTURE)
    linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    assert all(bool((part.bias == 0.02).all()) for part in linear)
    assert float(model.patch_embed.bias.detach().std()) > 0


@pytest.mark.parametrize("q_pool", [0, 1])
def test_hiera_keeps_its_promises(q_pool: int) -> None:
    check_backbone(Hiera, {"width": 16, "heads": 1, "stages": [1, 2], "q_pool": q_pool})


def test_hivit_keeps_its_promises() -> None:
    check_backbone(HiViT, {"width": 32, "heads": 2, "stages": [1, 1, 2], "patch": 8})
