"""Weights for another structure: cubes from patches, channels, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resized_models import (
    FIXED,
    IMAGE,
    VIDEO,
    bicubic,
    header,
    moved,
    run,
    trained,
)

from maekit.engine.build import build_model, compatible_header, load_into, load_model
from maekit.errors import PartError, WeightsError
from maekit.grid import Grid
from maekit.layers import Positions
from maekit.model import MaskedAutoencoder
from maekit.weights.importer import ImportReport, Weights
from maekit.weights.resize import change_channels, inflate
from maekit.weights.safetensors_io import model_tensors, write_weights


@pytest.mark.parametrize("how", ["average", "center"])
def test_a_cube_from_a_patch(how: Any) -> None:
    weight = torch.randn(5, 3, 1, 4, 4)
    cube = inflate(weight, 4, how)
    assert cube.shape == (5, 3, 4, 4, 4)
    torch.testing.assert_close(cube.sum(dim=2), weight[:, :, 0])  # a still clip embeds alike
    seen = [bool(frame.any()) for frame in cube.unbind(2)]
    assert seen == ([True] * 4 if how == "average" else [False, False, True, False])
    assert torch.equal(inflate(weight, 1, how), weight)


@pytest.mark.parametrize(("before", "after"), [(3, 7), (7, 3), (3, 1), (1, 3)])
def test_other_channels_keep_the_sum(before: int, after: int) -> None:
    weight = torch.randn(5, before, 2, 4, 4)
    changed = change_channels(weight, after)
    assert changed.shape == (5, after, 2, 4, 4)
    torch.testing.assert_close(changed.sum(1), weight.sum(1))
    assert torch.equal(change_channels(weight, before), weight)


@pytest.mark.parametrize("kind", ["sincos-2d", "learned", "learned-separable"])
def test_a_video_model_from_an_image_model(kind: str) -> None:
    """A still clip gives, slot by slot, what the picture gives: the encoder is the same."""
    image = header(
        (1, 16, 24), IMAGE | {"positions": "learned" if kind == "learned" else "sincos-2d"}
    )
    plain = VIDEO | {"class_token": True, "qkv_bias": "all", "positions": kind}
    video = moved(image, header((4, 16, 24), plain))
    picture = trained(image)
    pixels = torch.rand(1, 3, 1, 16, 24)
    with torch.no_grad():
        still = video.backbone.patch_embed(patches(pixels.expand(-1, -1, 4, -1, -1), video))
        alone = picture.backbone.patch_embed(patches(pixels, picture))
    torch.testing.assert_close(still, alone.repeat(1, 2, 1), atol=1e-5, rtol=1e-5)
    table, rows = video.backbone.positions(), picture.backbone.positions()
    assert torch.equal(table, torch.cat([rows[:1], rows[1:], rows[1:]]))
    run(video)


def patches(pixels: torch.Tensor, model: MaskedAutoencoder) -> torch.Tensor:
    from maekit.tokens import patchify

    return patchify(pixels, model.backbone.patch)


def test_a_decoder_that_cannot_be_kept_is_fresh_and_said_so() -> None:
    image = header((1, 16, 24), IMAGE)
    weights = Weights(image, model_tensors(trained(image)), "weights", ImportReport("maekit", 0))
    options = {"class_token": True, "qkv_bias": "all", "positions": "sincos-2d"}
    asks = {
        "an image's patches": header((4, 16, 24), VIDEO | options),
        "3 channels, not 4": header(
            (1, 16, 24), IMAGE, channels=4, mean=(0.5,) * 4, std=(0.5,) * 4
        ),
    }
    for why, asked in asks.items():
        agreed, fresh = compatible_header(image, asked, "weights")
        assert fresh is not None
        assert why in fresh
        model = build_model(agreed, seed=3)
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        changes = load_into(model, weights, fresh)
        assert str(changes[0]) == f"decoder: the weights' to a fresh one, {fresh}"
        filled = model.state_dict()
        decoder = [name for name in own if name.startswith("decoder.")]
        assert all(torch.equal(filled[name], own[name]) for name in decoder)
        norm = "backbone.norm.weight"
        assert torch.equal(filled[norm], weights.tensors[norm])
        run(model)


@pytest.mark.parametrize("kind", ["sincos-1d", "sincos-2d", "sincos-3d", "learned-separable"])
def test_any_positions_can_be_trained_on(kind: str) -> None:
    described = header((4, 16, 24), VIDEO | {"positions": kind, "class_token": True})
    asked = header((8, 32, 24), VIDEO | {"positions": "learned", "class_token": True})
    was = trained(described).backbone.positions()
    now = moved(described, asked).backbone.positions()
    expected = torch.cat([was[:1], bicubic(was[1:], Grid(2, 2, 3), Grid(4, 4, 3))])
    torch.testing.assert_close(now, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"positions": "sincos-3d"}, "sincos-3d ones cannot be made"),
        ({"positions": "learned-separable"}, "learned-separable ones cannot be made"),
        ({"positions_grid": [1, 2, 3]}, "backbone.positions_grid: [2, 2, 3] in the weights"),
        ({"heads": 4}, "backbone.heads: 2 in the weights, 4 requested"),
        ({"patch": [1, 8, 8]}, "backbone.patch: [2, 8, 8] in the weights, [1, 8, 8] requested"),
        ({"patch": [2, 4, 8]}, "backbone.patch: [2, 8, 8] in the weights, [2, 4, 8] requested"),
        ({"name": "image-vit", "patch": 8}, "backbone.name: 'video-vit' in the weights"),
    ],
)
def test_what_is_not_of_load_time_is_refused(change: dict[str, Any], said: str) -> None:
    described = header((4, 16, 24), VIDEO)
    clip = (1, 16, 24) if change.get("name") else (4, 16, 24)
    backbone = VIDEO | change
    if change.get("name"):
        backbone["positions"] = "sincos-2d"
    with pytest.raises(WeightsError) as caught:
        moved(described, header(clip, backbone))
    assert said in str(caught.value)


def test_a_video_model_with_an_image_models_options_must_match() -> None:
    image = header((1, 16, 24), IMAGE)
    with pytest.raises(
        WeightsError, match=r"backbone\.qkv_bias: 'all' in the weights, 'qv' requested"
    ):
        moved(image, header((4, 16, 24), VIDEO | {"qkv_bias": "qv", "class_token": True}))


def test_tensors_that_contradict_their_header_are_named(tmp_path: Path) -> None:
    described = header((4, 16, 24), VIDEO | {"positions": "learned"})
    tensors = model_tensors(trained(described))
    table = "backbone.positions.table"
    for damaged, said in (
        ({table: tensors[table][:, 1:]}, f"{table} is [1, 11, 24] in the file"),
        ({"backbone.patch_embed.weight": torch.zeros(2)}, "patch_embed.weight is [2] in the file"),
    ):
        path = tmp_path / "w.safetensors"
        write_weights(path, tensors | damaged, described)
        with pytest.raises(WeightsError) as caught:
            load_model(path, clip=(8, 16, 24))
        assert said in str(caught.value)
    write_weights(path, {n: t for n, t in tensors.items() if n != table}, described)
    with pytest.raises(WeightsError, match=r"1 missing: backbone\.positions\.table"):
        load_model(path, clip=(8, 16, 24))


@pytest.mark.parametrize("kind", FIXED)
def test_a_fixed_table_is_made_for_a_grid(kind: Any) -> None:
    old, new = Grid(2, 4, 4), Grid(3, 5, 6)
    expected = bicubic(FIXED[kind](old, 12), old, new)
    table = Positions(kind, new, 12, 1, old)()
    assert torch.equal(table[0], torch.zeros(12))
    torch.testing.assert_close(table[1:], expected, atol=1e-5, rtol=1e-5)


def test_trained_positions_have_no_grid_to_be_made_for() -> None:
    with pytest.raises(PartError, match="learned positions are trained"):
        Positions("learned", Grid(1, 2, 2), 8, 0, Grid(1, 1, 1))


def test_half_precision_weights_are_resized_in_float32(tmp_path: Path) -> None:
    described = header((1, 32, 32), IMAGE | {"positions": "learned"})
    tensors = {n: t.half() for n, t in model_tensors(trained(described)).items()}
    write_weights(tmp_path / "h.safetensors", tensors, described)
    model, _ = load_model(tmp_path / "h.safetensors", clip=(1, 16, 48))
    assert model.backbone.norm.weight.dtype == torch.float32
    rows = tensors["backbone.positions.table"][0, 1:].float()
    expected = bicubic(rows, Grid(1, 4, 4), Grid(1, 2, 6))
    torch.testing.assert_close(model.backbone.positions()[1:], expected, atol=1e-3, rtol=1e-3)
