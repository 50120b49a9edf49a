"""``dvae-token``: codes of a second view, from DALL-E's and from our own files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dalle_shapes import encoder_tensors, logits
from safetensors.torch import save_file
from torch import nn

from maekit.contracts import Grid, PartContext
from maekit.errors import DataError, RecipeError, WeightsError
from maekit.recipe.tokenizer import DVAESizes
from maekit.targets.dvae import DVAEToken
from maekit.targets.dvae_networks import DVAE, Decoder, Encoder, map_pixels, unmap_pixels
from maekit.targets.dvae_weights import read_encoder
from maekit.tokens import Mask
from maekit.weights.header import DVAEHeader, Header
from maekit.weights.safetensors_io import sha256, write_weights

SMALL = {"width": 8, "vocabulary": 16, "blocks": 1}


GRID = Grid(1, 4, 6)


def context(grid: Grid = GRID, channels: int = 3) -> PartContext:
    shape = (grid.t * 2, grid.h * 16, grid.w * 16)
    mean = (0.5,) * channels
    return PartContext(shape, channels, mean, mean, grid=grid, patch=(2, 16, 16))


@pytest.fixture
def dalle(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.pth"
    torch.save(encoder_tensors(**SMALL), path)
    return path


def target(path: Path, ours: PartContext | None = None, **options: Any) -> DVAEToken:
    settings = DVAEToken.Options(weights=path, **{"vocabulary": 16, **options})
    return DVAEToken(settings, ours or context())


def mask(tokens: int = 24, batch: int = 2) -> Mask:
    hidden = torch.arange(tokens).expand(batch, -1) % 3 > 0
    return Mask.build(hidden)


def test_dalles_own_size_has_its_names_and_shapes() -> None:
    theirs = {name: tuple(tensor.shape) for name, tensor in encoder_tensors().items()}
    with torch.device("meta"):
        encoder, decoder = Encoder(DVAESizes(), 3), Decoder(DVAESizes(), 3)
    assert {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()} == theirs
    # The decoder's, of which the source names some.
    state = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    assert state["blocks.input.w"] == (128, 8192, 1, 1)
    assert state["blocks.group_1.block_1.id_path.w"] == (2048, 128, 1, 1)
    assert state["blocks.group_1.block_1.res_path.conv_1.w"] == (512, 128, 1, 1)
    assert state["blocks.group_1.block_1.res_path.conv_4.w"] == (2048, 512, 3, 3)
    assert "blocks.group_1.block_2.id_path.w" not in state
    assert state["blocks.output.conv.w"] == (6, 256, 1, 1)


def test_the_encoder_computes_what_its_description_says(dalle: Path) -> None:
    encoder, sizes, channels = read_encoder(dalle)
    assert (sizes.vocabulary, sizes.width, sizes.groups, sizes.blocks) == (16, 8, 4, 1)
    assert (sizes.stride, channels) == (8, 3)
    pixels = torch.rand(2, 3, 16, 24)
    expected = logits(encoder_tensors(**SMALL), pixels)
    torch.testing.assert_close(encoder(map_pixels(pixels)), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(encoder.codes(pixels), expected.argmax(dim=1))


def test_mapped_pixels_keep_clear_of_both_ends() -> None:
    assert map_pixels(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.1, 0.5, 0.9])
    pixels = torch.rand(5)
    torch.testing.assert_close(unmap_pixels(map_pixels(pixels)), pixels)


def test_one_code_stands_for_one_token(dalle: Path) -> None:
    ours = target(dalle)
    assert [tuple(view) for view in ours.views] == [("dvae", (32, 48), "bicubic", 1)]
    assert target(dalle, context(Grid(1, 14, 14))).views[0].size == (112, 112)
    assert ours.out_dim == 16
    view = torch.rand(2, 3, 1, 32, 48)
    asked = mask()
    codes = ours.encode([torch.rand(2, 3, 2, 64, 96), view], asked)
    expected = logits(encoder_tensors(**SMALL), view[:, :, 0]).argmax(dim=1).flatten(1)
    assert torch.equal(codes, expected.gather(1, asked.queries))


def test_a_clip_has_a_code_for_each_of_its_slots(dalle: Path) -> None:
    ours = target(dalle, context(Grid(3, 2, 4)))
    assert tuple(ours.views[0]) == ("dvae", (16, 32), "bicubic", 3)
    view = torch.rand(2, 3, 3, 16, 32)
    hidden = torch.ones(2, 24, dtype=torch.bool)
    hidden[:, 0] = False
    codes = ours.encode([view, view], Mask.build(hidden))
    frames = [logits(encoder_tensors(**SMALL), view[:, :, slot]).argmax(dim=1) for slot in range(3)]
    assert torch.equal(codes, torch.stack(frames, dim=1).flatten(1)[:, 1:])


def test_the_loss_is_cross_entropy(dalle: Path) -> None:
    rng = np.random.default_rng(0)
    pred, codes = rng.normal(size=(2, 5, 16)), rng.integers(0, 16, (2, 5))
    expected = np.log(np.exp(pred).sum(-1)) - np.take_along_axis(pred, codes[..., None], -1)[..., 0]
    found = target(dalle).loss(torch.tensor(pred), torch.tensor(codes))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_our_own_weights_and_a_state_dict_in_safetensors(tmp_path: Path) -> None:
    sizes = DVAESizes(vocabulary=16, width=4, groups=3, blocks=2, init_width=5)
    model = DVAE(sizes, 2)
    path = tmp_path / "dvae.safetensors"
    header = DVAEHeader(dvae=sizes.model_dump(), channels=2)
    write_weights(path, model.state_dict(), header)
    encoder, found, channels = read_encoder(path)
    assert (found, channels) == (sizes, 2)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor)
    plain = tmp_path / "plain.safetensors"
    save_file(encoder_tensors(**SMALL), plain)
    assert read_encoder(plain)[1].vocabulary == 16
    # Without their header, both networks' tensors still say what they are of.
    save_file(dict(model.state_dict()), plain)
    assert read_encoder(plain)[1].model_dump(exclude={"init_width"}) == sizes.model_dump(
        exclude={"init_width"}
    )


def test_the_file_is_pinned(dalle: Path, tmp_path: Path) -> None:
    digest = sha256(dalle)
    assert target(dalle).open() == {"sha256": digest}
    assert target(dalle, sha256=digest).open() == {"sha256": digest}
    with pytest.raises(WeightsError, match=digest):
        target(dalle, sha256="0" * 64).open()
    with pytest.raises(RecipeError, match=r"pretrain\.target\.weights: no such"):
        target(tmp_path / "nowhere.pth").open()


@pytest.mark.parametrize(
    ("options", "channels", "said"),
    [
        ({"vocabulary": 32}, 3, "vocabulary: 16 in the weights, 32 in the recipe"),
        ({"stride": 4}, 3, "stride: 8 in the weights, 4 in the recipe"),
        ({}, 1, "channels: 3 in the weights, 1 in the recipe"),
    ],
)
def test_another_dvae_is_refused(
    dalle: Path, options: dict[str, Any], channels: int, said: str
) -> None:
    with pytest.raises(WeightsError, match=said):
        target(dalle, context(channels=channels), **options).open()


class Module(nn.Module):
    """Stands for OpenAI's encoder.pkl, which is a pickled module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def test_a_pickled_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pkl"
    torch.save(Module(), path)
    with pytest.raises(WeightsError) as caught:
        read_encoder(path)
    told = str(caught.value)
    assert "import torch\n" in told
    line = 'torch.save(torch.load({!r}, "cpu", weights_only=False).state_dict(), "encoder.pth")'
    assert line.format("encoder.pkl") in told
    assert caught.value.exit_code == 3


def test_what_is_told_to_do_makes_a_state_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two lines themselves, run on a module with DALL-E's names."""
    monkeypatch.chdir(tmp_path)
    torch.save(Encoder(DVAESizes(vocabulary=16, width=8, blocks=1), 3), "encoder.pkl")
    with pytest.raises(WeightsError) as caught:
        read_encoder(Path("encoder.pkl"))
    lines = [line.strip() for line in str(caught.value).splitlines()]
    code = [line for line in lines if line.startswith(("import torch", "torch.save"))]
    assert len(code) == 2
    exec("\n".join(code), {})
    assert read_encoder(Path("encoder.pth"))[1].vocabulary == 16


@pytest.mark.parametrize("case", ["bytes", "code", "list", "other", "missing", "shape", "header"])
def test_files_that_hold_no_dvae(case: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    tensors = encoder_tensors(**SMALL)
    if case == "bytes":
        path.write_bytes(b"not a file of torch's")
    elif case == "code":
        path.write_bytes(pickle.dumps(print))
    elif case == "list":
        torch.save([torch.zeros(1)], path)
    elif case == "other":
        torch.save({"weight": torch.zeros(2, 2)}, path)
    elif case == "missing":
        del tensors["blocks.group_2.block_1.id_path.b"]
        torch.save(tensors, path)
    elif case == "shape":
        tensors["blocks.group_3.block_1.res_path.conv_2.w"] = torch.zeros(1, 1, 3, 3)
        torch.save(tensors, path)
    else:
        path = path.with_suffix(".safetensors")
        backbone = {"name": "image-vit"}
        header = Header(backbone=backbone, clip=(1, 8, 8), channels=1, mean=(0.0,), std=(1.0,))
        write_weights(path, tensors, header)
    with pytest.raises(WeightsError, match=path.name):
        read_encoder(path)


def test_pixels_outside_the_unit_range_are_refused(dalle: Path) -> None:
    view = torch.rand(2, 3, 1, 32, 48) * 3
    with pytest.raises(DataError, match="reads pixels in"):
        target(dalle).encode([view, view], mask())


def test_rounding_is_not_out_of_range(dalle: Path) -> None:
    view = torch.ones(2, 3, 1, 32, 48).nextafter(torch.tensor(2.0))
    assert target(dalle).encode([view, view], mask()).dtype == torch.int64


@pytest.mark.parametrize("content", [b"", b"name: recipe\n"])
def test_only_a_pickle_is_told_to_be_unpickled(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"nor one that torch\.save wrote") as caught:
        read_encoder(path)
    assert "weights_only" not in str(caught.value)


def test_a_pickle_is_not_told_in_pytorchs_words(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pkl"
    for old in (False, True):
        torch.save(Module(), path, _use_new_zipfile_serialization=not old)
        with pytest.raises(WeightsError, match="runs code when it is read") as caught:
            read_encoder(path)
        assert "will likely succeed" not in str(caught.value)


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_collapsed_dvae_is_warned_of(
    dalle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, collapsed: bool
) -> None:
    made = target(dalle)

    def codes(_views: Any) -> torch.Tensor:
        spread = (torch.arange(96) % 8).view(4, 24)
        return torch.where(spread > 0, 5, spread) if collapsed else spread

    monkeypatch.setattr(made, "_codes", codes)
    with caplog.at_level("WARNING"):
        made.fit([[torch.zeros(4, 3, 1, 8, 8)] * 2] * 3)
    if collapsed:  # 7/8 and 1/8: exp(0.377) = 1.46
        assert "uses 2 of its" in caplog.text
        assert "1.5 codes in equal shares" in caplog.text
    else:
        assert not caplog.text
    made.fit([])
