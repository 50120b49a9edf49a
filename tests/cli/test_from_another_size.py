"""``--from`` weights of another size: resized, said, and kept over a resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from small_runs import result_of, same_weights, weights

import maekit
from maekit.weights.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

WORDS = ["model.decoder.positions=sincos-1d", "pretrain.pictures.every=99"]
LARGER = [*WORDS, "data.size=[24,40]", "pretrain.checkpoint.keep=3"]


def test_another_size_is_said_and_survives_a_resume(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, *WORDS, "--out", "first", "-q").code == 0
    done = cli("pretrain", small, *LARGER, "--from", "first", "--out", "second")
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "starting from first/weights.safetensors" in told
    assert "backbone.positions: 1x2x3 to 1x3x5, bicubic in space" in told
    assert "decoder.positions: 1x2x3 to 1x3x5, bicubic in space, from the table made for" in told
    header = read_header(Path("second/weights.safetensors"))
    assert header.decoder is not None
    assert header.decoder.written["positions_grid"] == [1, 2, 3]
    # Stopped after step 5 and gone on with, it ends with the same weights.
    shutil.copytree("second", "third")
    for step in (10, 12):
        shutil.rmtree(f"third/checkpoints/step-{step:08d}")
    for file in ("result.json", "weights.safetensors"):
        Path("third", file).unlink()
    resumed = cli("pretrain", small, *LARGER, "--resume", "--out", "third")
    assert resumed.code == 0, resumed.err
    assert "resuming third at step 5" in resumed.err
    assert same_weights("second", "third")
    assert result_of("second")["holdout"] == result_of("third")["holdout"]


def test_a_video_model_starts_from_an_image_run(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "image", "-q").code == 0
    words = [
        "model.backbone.name=video-vit",
        "model.backbone={size: tiny, width: 32, depth: 2, heads: 2, patch: [2, 8, 8]}",
        "model.backbone.qkv_bias=all",
        "model.backbone.class_token=true",
        "data.train.frames=4",
        "pretrain.steps=1",
    ]
    refused = cli("pretrain", small, *words, "--from", "image", "--out", "one")
    assert refused.code == 3
    assert "sincos-1d ones cannot be made of them" in refused.err
    words.append("model.backbone.positions=sincos-2d")
    words.append("pretrain.optimizer.base_lr=1e-20")
    done = cli("pretrain", small, *words, "--from", "image", "--out", "two")
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "1 frame to 2, averaged over them" in told
    assert "decoder: the weights' to a fresh one, it predicts an image's patches" in told
    key = "backbone.patch_embed.weight"
    cube, patch = weights("two")[key], weights("image")[key]
    torch.testing.assert_close(cube, patch.expand(-1, -1, 2, -1, -1) / 2)
    assert maekit.load("two").grid == (2, 2, 3)


def test_other_channels(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "rgb", "-q").code == 0
    words = ["data.channels=1", "data.stats={mean: [0.5], std: [0.2]}", "pretrain.steps=1"]
    words.append("pretrain.optimizer.base_lr=1e-20")
    done = cli("pretrain", small, *words, "--from", "rgb", "--out", "gray")
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "3 channels to 1, the sum over channels kept" in told
    assert "it predicts 3 channels, not 1" in told
    key = "backbone.patch_embed.weight"
    torch.testing.assert_close(weights("gray")[key], weights("rgb")[key].sum(1, keepdim=True))
