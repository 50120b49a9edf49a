"""What conversions refuse, leave unsaid, and keep of what they read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maekit
from maekit.engine.build import build_model, load_model
from maekit.targets.pca import PCA
from maekit.weights.header import Header
from maekit.weights.safetensors_io import model_tensors, read_header, write_weights

Cli = Callable[..., Any]
SMALL = {"size": "tiny", "depth": 1}
IMAGE = {"name": "image-vit", "patch": 8} | SMALL
VIDEO = {"name": "video-vit", "patch": [2, 8, 8]} | SMALL
NORM = {"name": "norm-pixel"}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def write(path: str, **said: Any) -> Header:
    """Weights of a small model with random values, under its header."""
    settings: dict[str, Any] = {
        "backbone": IMAGE, "decoder": {"name": "vit", "width": 32, "depth": 1, "heads": 2},
        "target": NORM, "clip": (1, 32, 32), "channels": 3, **IMAGENET, **said,
    }  # fmt: skip
    header = Header(**settings)
    torch.manual_seed(0)
    model = build_model(header)
    if isinstance(model.target, PCA):  # what it fits
        shapes = {"mean": (192,), "components": (4, 192), "variance": (4,)}
        model.target.load_state({name: torch.ones(shape) for name, shape in shapes.items()})
    tensors = model_tensors(model)
    noisy = {name: t + 0.05 * torch.randn_like(t) for name, t in tensors.items()}
    write_weights(Path(path), noisy, header)
    return header


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def converted(cli: Cli, *words: str) -> dict[str, Any]:
    done = cli("weights", "convert", *words, "--json")
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


@pytest.mark.parametrize("to", ["maekit", "mae", "videomae", "timm", "onnx"])
def test_a_folder_is_not_replaced_by_a_file(cli: Cli, to: str) -> None:
    write("own.safetensors")
    Path("folder").mkdir()
    Path("folder/mine").write_text("mine")
    words = ("weights", "convert", "own.safetensors", "folder", "--to", to)
    for done in (cli(*words), cli(*words, "--overwrite")):
        assert (done.code, "folder: expected a file here" in done.err) == (2, True), done.err
    assert sorted(each.name for each in Path().iterdir()) == ["folder", "own.safetensors"]


def test_nor_a_file_by_a_folder(cli: Cli) -> None:
    write("own.safetensors")
    words = ("weights", "convert", "own.safetensors", "own.safetensors", "--to", "hf")
    done = cli(*words, "--overwrite")
    assert (done.code, "expected a folder here" in done.err) == (2, True)
    assert read_header(Path("own.safetensors")).decoder is not None


def test_onnx_from_the_command_line(cli: Cli) -> None:
    import onnxruntime

    header = write("own.safetensors", clip=(1, 32, 48))
    result = converted(cli, "own.safetensors", "encoder.onnx", "--to", "onnx")
    notes = " ".join(result["written"])
    model, _ = load_model("own.safetensors")
    encoder = [name for name in model_tensors(model) if name.startswith("backbone.")]
    decoder = len(model_tensors(model)) - len(encoder)
    assert result["tensors"] == len(encoder)
    assert f"left out: {decoder} tensors that are not the encoder's" in notes
    assert "onnxruntime's tokens differ by" in notes
    pixels = torch.randn(3, 3, *header.clip)
    session = onnxruntime.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])
    (tokens,) = session.run(None, {"pixels": pixels.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(tokens, model.encode(pixels), atol=1e-4, rtol=1e-4)
    assert cli("weights", "convert", "own.safetensors", "encoder.onnx", "--to", "onnx").code == 2


def test_what_a_pth_cannot_say_is_listed_with_the_flags_that_say_it(cli: Cli) -> None:
    own = {"backbone": IMAGE | {"heads": 4}, "mean": (0.1, 0.2, 0.3)}
    write("own.safetensors", target=NORM | {"statistics": "per-channel"}, **own)
    notes = " ".join(converted(cli, "own.safetensors", "a.pth", "--to", "mae")["written"])
    assert "give --heads 4 --decoder-heads 2 to read it again" in notes
    assert "does not say its mean [0.1, 0.2, 0.3]" in notes
    assert "its target: norm-pixel, with statistics per-channel, unlike mae's" in notes
    back = ("a.pth", "back.safetensors", "--to", "maekit", "--heads", "4", "--decoder-heads", "2")
    converted(cli, *back)
    assert read_header(Path("back.safetensors")).backbone.written["heads"] == 4
    write("pca.safetensors", target={"name": "pca", "components": 4})
    notes = " ".join(converted(cli, "pca.safetensors", "b.pth", "--to", "mae")["written"])
    assert "its target: pca, which mae's code does not know" in notes
    published = {"name": "vit", "width": 512, "depth": 1, "heads": 16}
    write("plain.safetensors", decoder=published)
    written = converted(cli, "plain.safetensors", "c.pth", "--to", "mae")["written"]
    assert written == ["the file does not say its target: norm-pixel"]
    write("alone.safetensors", decoder=None, target=None)
    assert converted(cli, "alone.safetensors", "d.pth", "--to", "mae")["written"] == []


@pytest.mark.parametrize("to", ["videomae", "hf"])
def test_a_table_made_for_another_grid_is_not_lost(cli: Cli, to: str) -> None:
    """VideoMAE's files hold no positions: their readers make them for the grid that they run at."""
    decoder = {
        "name": "vit", "width": 32, "depth": 1, "heads": 2, "qkv_bias": "qv", "embed_bias": False,
    }  # fmt: skip
    target = NORM | {"statistics": "per-channel", "eps": "outside", "space": "unit"}
    parts = {"backbone": VIDEO, "decoder": decoder, "target": target}
    write("own.safetensors", clip=(4, 32, 32), **parts)
    converted(cli, "own.safetensors", "same", "--to", to)
    model, header = load_model("own.safetensors", (8, 32, 48))
    write_weights(Path("resized.safetensors"), model_tensors(model), header)
    done = cli("weights", "convert", "resized.safetensors", "other", "--to", to)
    assert done.code == 3
    for part in ("backbone", "decoder"):
        assert f"{part}.positions_grid (2, 4, 4) (unset)" in done.err
    assert not Path("other").exists()


def test_reconstruct_says_that_the_target_is_unknown_and_takes_it_told(cli: Cli) -> None:
    write("own.safetensors", decoder={"name": "vit", "width": 512, "depth": 1, "heads": 16})
    converted(cli, "own.safetensors", "full.pth", "--to", "mae")
    Image.new("RGB", (32, 32), (200, 30, 90)).save("a.png")
    done = cli("reconstruct", "a.png", "--from", "full.pth")
    assert done.code == 3
    assert "do not say what their decoder predicts" in done.err
    assert "--target norm-pixel" in done.err
    assert "no decoder" not in done.err
    converted(cli, "full.pth", "told.safetensors", "--to", "maekit", "--target", "norm-pixel")
    assert cli("reconstruct", "a.png", "--from", "told.safetensors").code == 0
    # A folder of transformers' is known without hf: too.
    converted(cli, "told.safetensors", "folder", "--to", "hf")
    for source in ("folder", "hf:folder"):
        done = cli("reconstruct", "a.png", "--from", source)
        assert done.code == 0, done.err


def test_a_folder_of_timms_hub_says_its_size_and_statistics(cli: Cli) -> None:
    write("own.safetensors", decoder=None, target=None, clip=(1, 16, 64))
    Path("hub").mkdir()
    converted(cli, "own.safetensors", "hub/model.safetensors", "--to", "timm")
    said = {"input_size": [3, 16, 64], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "pretrained_cfg": said}
    Path("hub/config.json").write_text(json.dumps(config))
    converted(cli, "hf:hub", "back.safetensors", "--to", "maekit")
    header = read_header(Path("back.safetensors"))
    assert header.grid == (1, 2, 8)
    assert (header.mean, header.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert maekit.load("hub").grid == (1, 2, 8)


def test_the_license_goes_along(cli: Cli) -> None:
    write("own.safetensors", decoder=None, target=None)
    converted(cli, "own.safetensors", "encoder.pth", "--to", "mae")
    converted(cli, "encoder.pth", "back.safetensors", "--to", "maekit")
    found = read_header(Path("back.safetensors")).license
    assert found is not None
    assert "CC BY-NC 4.0" in found
    assert found in cli("weights", "inspect", "back.safetensors").out


def test_blocks_are_inspected_in_their_order(cli: Cli) -> None:
    write("own.safetensors", backbone=IMAGE | {"depth": 11})
    shown = json.loads(cli("weights", "inspect", "own.safetensors", "--json").out)["tensors"]
    blocks = [each["name"].split(".")[2] for each in shown if ".transformer." in each["name"]]
    assert list(dict.fromkeys(blocks)) == [str(number) for number in range(11)]
    assert len(shown) == len({each["name"] for each in shown}) > 11


def test_only_what_is_not_read_is_said_to_be_not_read(cli: Cli) -> None:
    write("own.safetensors")
    converted(cli, "own.safetensors", "a.pth", "--to", "mae")
    args = argparse.Namespace(norm_pix_loss=True, input_size=32)
    saved = torch.load("a.pth") | {"optimizer": {}, "args": args}
    torch.save(saved, "run.pth")
    words = ("run.pth", "b.safetensors", "--to", "maekit", "--heads", "3", "--decoder-heads", "2")
    notes = converted(cli, *words)["report"]["notes"]
    assert "not weights of the model, not read: optimizer" in notes
    assert read_header(Path("b.safetensors")).target is not None
