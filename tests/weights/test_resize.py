"""Weights at another size: positions, cubes from patches, channels, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

import maekit
from maekit.engine.build import agreed_header, build_model, fill, load_model
from maekit.errors import PartError, WeightsError
from maekit.grid import Grid
from maekit.layers import Positions, resample_rows, sincos_1d, sincos_2d, sincos_3d
from maekit.model import MaskedAutoencoder
from maekit.weights.adopt import Weights
from maekit.weights.file import read_header, write_weights
from maekit.weights.header import Header
from maekit.weights.model import model_tensors
from maekit.weights.report import Report
from maekit.weights.resize import change_channels, inflate

SMALL = {"size": "tiny", "width": 24, "depth": 1, "heads": 2}
IMAGE = {"name": "image-vit", "patch": 8} | SMALL
VIDEO = {"name": "video-vit", "patch": [2, 8, 8]} | SMALL
DECODER = {"name": "vit", "width": 12, "depth": 1, "heads": 2}
KINDS = ["sincos-1d", "sincos-2d", "sincos-3d", "learned", "learned-separable"]
FIXED = {"sincos-1d": sincos_1d, "sincos-2d": sincos_2d, "sincos-3d": sincos_3d}


def header(clip: tuple[int, int, int], backbone: dict[str, Any], **more: Any) -> Header:
    fields: dict[str, Any] = {
        "decoder": DECODER, "target": {"name": "pixel"}, "channels": 3,
        "mean": (0.5,) * 3, "std": (0.5,) * 3,
    }  # fmt: skip
    return Header(clip=clip, backbone=backbone, **(fields | more))


def trained(described: Header, seed: int = 1) -> MaskedAutoencoder:
    """A model none of whose tensors has its first value, where it is trained."""
    model = build_model(described, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def saved(path: Path, described: Header, model: MaskedAutoencoder | None = None) -> Path:
    model = model or trained(described)
    write_weights(path, model_tensors(model), described)
    return path


def moved(described: Header, asked: Header, seed: int = 0) -> MaskedAutoencoder:
    """The model asked for, with the tensors of a trained one."""
    weights = Weights(described, model_tensors(trained(described)), "weights", Report("maekit", 0))
    agreed, fresh = agreed_header(described, asked, "weights")
    model = build_model(agreed, seed)
    fill(model, weights, fresh)
    return model.eval()


def everything(model: MaskedAutoencoder) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def run(model: MaskedAutoencoder) -> torch.Tensor:
    """The prediction for half of the tokens of a fixed clip."""
    torch.manual_seed(0)
    channels = len(model.statistics.mean)
    pixels = torch.rand(2, channels, *model.clip)
    hidden = torch.arange(model.grid.tokens).expand(2, -1) % 2 == 0
    with torch.no_grad():
        pred = model(pixels, hidden).pred
    assert bool(pred.isfinite().all())
    return pred


def bicubic(rows: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    """The reference: torch's own, slot by slot, then linear between slots by hand."""
    slots = []
    for slot in rows.detach().reshape(old.t, old.h, old.w, -1):
        image = slot.permute(2, 0, 1)[None]
        image = F.interpolate(image, size=(new.h, new.w), mode="bicubic", align_corners=False)
        slots.append(image[0].permute(1, 2, 0).double().numpy())
    stack = np.stack(slots).reshape(old.t, -1)
    centres = (np.arange(new.t) + 0.5) * old.t / new.t - 0.5
    columns = [np.interp(centres, np.arange(old.t), column) for column in stack.T]
    return torch.tensor(np.stack(columns, axis=1)).reshape(new.tokens, -1).float()


grids = st.builds(Grid, st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))


@given(old=grids, new=grids, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rows_are_resampled_as_torch_does_it(old: Grid, new: Grid, seed: int) -> None:
    rows = torch.randn(old.tokens, 3, generator=torch.Generator().manual_seed(seed))
    ours = resample_rows(rows, old, new)
    torch.testing.assert_close(ours, bicubic(rows, old, new), atol=1e-5, rtol=1e-5)


def test_rows_are_resampled_as_timm_does_it() -> None:
    """timm smooths unless told not to; then it is MAE's interpolation, prefix kept."""
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, 1 + 14 * 14, 8)
    theirs = resample_abs_pos_embed(table, new_size=[10, 18], old_size=[14, 14], antialias=False)
    ours = resample_rows(table[0, 1:], Grid(1, 14, 14), Grid(1, 10, 18))
    torch.testing.assert_close(ours, theirs[0, 1:], atol=1e-6, rtol=1e-5)
    assert torch.equal(theirs[0, :1], table[0, :1])


@given(
    clip=st.tuples(*(st.integers(1, 3),) * 3),
    patch=st.tuples(*(st.integers(1, 3),) * 3),
    kind=st.sampled_from(KINDS),
    class_token=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_the_same_size_is_bit_equal(
    clip: tuple[int, int, int], patch: tuple[int, int, int], kind: str, class_token: bool
) -> None:
    pixels = tuple(4 * cells * size for cells, size in zip(clip, patch, strict=True))
    options = {"patch": list(patch), "positions": kind, "class_token": class_token}
    described = header(pixels, VIDEO | options, decoder=DECODER | {"positions": kind})  # type: ignore[arg-type]
    before = trained(described)
    agreed, fresh = agreed_header(described, described, "weights")
    assert fresh is None
    for part in (agreed.backbone, agreed.decoder):
        assert part is not None
        assert part.get("positions_grid") is None
    after = build_model(agreed, seed=5)
    assert (
        fill(after, Weights(described, model_tensors(before), "weights", Report("maekit", 0)), None)
        == []
    )
    ours, theirs = everything(after), everything(before)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [False, True])
def test_a_clip_of_another_size_and_length(tmp_path: Path, kind: str, prefix: bool) -> None:
    """224 x 224 to 160 x 288 and 16 to 32 frames; saved and loaded again, bit-equal."""
    backbone = VIDEO | {"patch": [2, 16, 16], "positions": kind, "class_token": prefix}
    described = header((16, 224, 224), backbone, decoder=DECODER | {"positions": kind})
    source = trained(described)
    path = saved(tmp_path / "old.safetensors", described, source)
    model, resized = load_model(path, clip=(32, 160, 288))
    old, new = Grid(8, 14, 14), Grid(16, 10, 18)
    assert model.grid == resized.grid == new
    for part in ("backbone", "decoder"):
        table = getattr(model, part).positions()
        was = getattr(source, part).positions()
        expected = torch.cat([was[:prefix], bicubic(was[prefix:], old, new)])
        torch.testing.assert_close(table, expected, atol=1e-5, rtol=1e-5)
    again_path = saved(tmp_path / "new.safetensors", resized, model)
    again, described_again = load_model(again_path)
    assert described_again == resized == read_header(again_path)
    ours, theirs = everything(again), everything(model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(run(again), run(model))


def test_an_image_model_at_another_size(tmp_path: Path) -> None:
    described = header((1, 224, 224), IMAGE | {"patch": 16})
    path = saved(tmp_path / "w.safetensors", described)
    model = maekit.load(path, clip=(1, 160, 288))
    assert model.grid == Grid(1, 10, 18)
    run(model)
    table = trained(described).state_dict()["backbone.positions.table"]
    resized = model.state_dict()["backbone.positions.table"]
    assert torch.equal(resized[:, :1], table[:, :1])
    expected = bicubic(table[0, 1:], Grid(1, 14, 14), Grid(1, 10, 18))
    torch.testing.assert_close(resized[0, 1:], expected, atol=1e-6, rtol=1e-5)


def test_a_chain_of_sizes_resizes_a_fixed_table_from_the_first(tmp_path: Path) -> None:
    described = header((8, 32, 48), VIDEO | {"positions": "sincos-1d"})
    path = saved(tmp_path / "a.safetensors", described)
    smaller, first = load_model(path, clip=(4, 16, 24))
    assert first.backbone["positions_grid"] == [4, 4, 6]
    assert first.decoder is not None
    assert first.decoder["positions_grid"] == [4, 4, 6]
    back, second = load_model(saved(tmp_path / "b.safetensors", first, smaller), clip=(8, 32, 48))
    assert second.backbone["positions_grid"] is None
    torch.testing.assert_close(
        back.backbone.positions(), sincos_1d(Grid(4, 4, 6), 24), atol=0, rtol=0
    )


def test_a_decoder_keeps_the_kind_that_followed_from_one_slot(tmp_path: Path) -> None:
    described = header((2, 16, 24), VIDEO)
    path = saved(tmp_path / "w.safetensors", described)
    model, resized = load_model(path, clip=(8, 16, 24))
    assert resized.decoder is not None
    assert resized.decoder["positions"] == "sincos-2d"
    assert model.decoder is not None
    run(model)


def test_changes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path / "w.safetensors", header((4, 16, 24), VIDEO))
    with caplog.at_level("INFO", logger="maekit"):
        load_model(path)
        assert caplog.messages == []
        load_model(path, clip=(8, 32, 24))
    assert caplog.messages == [
        f"{part}.positions: 2x2x3 to 4x4x3, bicubic in space, linear in time, "
        "from the table made for 2x2x3"
        for part in ("backbone", "decoder")
    ]


def test_a_clip_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", header((4, 16, 24), VIDEO))
    with pytest.raises(PartError, match="does not divide"):
        load_model(path, clip=(4, 17, 24))
    image = saved(tmp_path / "i.safetensors", header((1, 16, 24), IMAGE))
    with pytest.raises(PartError, match="one frame"):
        load_model(image, clip=(4, 16, 24))


@pytest.mark.parametrize("how", ["average", "centre"])
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
    weights = Weights(image, model_tensors(trained(image)), "weights", Report("maekit", 0))
    options = {"class_token": True, "qkv_bias": "all", "positions": "sincos-2d"}
    asks = {
        "an image's patches": header((4, 16, 24), VIDEO | options),
        "3 channels, not 4": header(
            (1, 16, 24), IMAGE, channels=4, mean=(0.5,) * 4, std=(0.5,) * 4
        ),
    }
    for why, asked in asks.items():
        agreed, fresh = agreed_header(image, asked, "weights")
        assert fresh is not None
        assert why in fresh
        model = build_model(agreed, seed=3)
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        changes = fill(model, weights, fresh)
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
        ({"heads": 4}, "backbone.heads: 2 in the weights, 4 asked"),
        ({"patch": [1, 8, 8]}, "backbone.patch: [2, 8, 8] in the weights, [1, 8, 8] asked"),
        ({"patch": [2, 4, 8]}, "backbone.patch: [2, 8, 8] in the weights, [2, 4, 8] asked"),
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
    with pytest.raises(WeightsError, match=r"backbone\.qkv_bias: 'all' in the weights, 'qv' asked"):
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
