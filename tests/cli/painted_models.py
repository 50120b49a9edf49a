"""Weights of tiny untrained models, and pictures and clips to show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from small_recipes import write_clip

from maekit.engine.build import build_model
from maekit.weights.header import Header
from maekit.weights.safetensors_io import model_tensors, write_weights

IMAGE = (1, 16, 24)
CLIP = (4, 16, 16)


def save_model(
    path: Path,
    *,
    clip: tuple[int, int, int] = IMAGE,
    target: str = "norm-pixel",
    channels: int = 3,
    constant: float | None = None,
    decoder: bool = True,
) -> Path:
    """Write a model's weights; with ``constant`` its decoder predicts nothing else."""
    video = clip[0] > 1
    parts: dict[str, Any] = {
        "backbone": {"name": "video-vit" if video else "image-vit", "width": 16, "depth": 2,
                     "heads": 2, "patch": [2, 4, 4] if video else 4},
        "decoder": {"name": "vit", "width": 16, "depth": 1, "heads": 2} if decoder else None,
        "target": {"name": target} if decoder else None,
        "masker": {"name": "tube" if video else "random", "ratio": 0.75},
    }  # fmt: skip
    header = Header.model_validate(
        {**parts, "clip": clip, "channels": channels, "mean": [0.5] * channels,
         "std": [0.25] * channels}
    )  # fmt: skip
    model = build_model(header)
    if constant is not None:
        torch.nn.init.zeros_(model.decoder.head.weight)  # type: ignore[union-attr, arg-type]
        torch.nn.init.constant_(model.decoder.head.bias, constant)  # type: ignore[union-attr, arg-type]
    header = header.model_copy(update={"grid": model.grid})
    write_weights(path, model_tensors(model), header)
    return path


def draw_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 56)) -> Path:
    """Smooth colors with an edge and some noise, as natural pictures have them."""
    rng = np.random.default_rng(seed)
    # Light varies more than color does.
    cells = rng.integers(20, 200, (4, 5, 1)) + rng.integers(0, 40, (4, 5, 3))
    coarse = Image.fromarray(cells.astype(np.uint8))
    pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)).astype(float)
    edge = int(rng.integers(10, size[1] - 10))
    pixels[:, edge:] = pixels[:, edge:] * 0.6
    pixels += rng.normal(0, 8, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def draw_clip(path: Path, frames: int = 12, size: tuple[int, int] = (32, 48)) -> Path:
    """Film a square that moves to the right."""
    shots = np.full((frames, *size, 3), 60, np.uint8)
    for number in range(frames):
        shots[number, 8:20, 2 * number : 2 * number + 12] = (220, 180, 40)
    write_clip(path, shots)
    return path


def items(done: Any) -> list[dict[str, Any]]:
    """Return the items that a command printed as JSON."""
    found: list[dict[str, Any]] = json.loads(done.out)["items"]
    return found


def files(folder: str) -> list[str]:
    """List the names in a folder."""
    return sorted(each.name for each in Path(folder).iterdir())
