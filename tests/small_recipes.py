"""Small recipes for every test that runs a verb, and pictures and clips for them to read.

A test lays what it needs over ``IMAGES`` or ``VIDEOS`` and writes the result as YAML::

    path = write_recipe(tmp_path / "own.yaml", IMAGES, {"pretrain": {"steps": 12}})
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from PIL import Image

Recipe = dict[str, Any]
IMAGES: Recipe = {
    "name": "small",
    "data": {
        "train": {"name": "images", "path": "pictures/train"},
        "val": {"name": "images", "path": "pictures/val"},
        "size": [16, 24],
        "workers": 0,
    },
    "model": {
        "backbone": {
            "name": "image-vit", "size": "tiny", "width": 32, "depth": 2, "heads": 2, "patch": 8,
        },
        "decoder": {"name": "vit", "width": 16, "depth": 1, "heads": 2},
    },
    "pretrain": {
        "masker": {"name": "random", "ratio": 0.5},
        "target": {"name": "norm-pixel"},
        "steps": 3,
        "batch": {"global": 8},
        "pictures": None,  # drawing them is half of a small run's time
    },
}  # fmt: skip

VIDEOS: Recipe = {
    "name": "small",
    "data": {
        "train": {"name": "videos", "path": "clips/train", "frames": 4},
        "val": {"name": "videos", "path": "clips/val"},
        "size": 16,
        "workers": 0,
    },
    "model": {
        "backbone": {
            "name": "video-vit", "size": "tiny", "width": 32, "depth": 1, "heads": 2,
            "patch": [2, 8, 8],
        },
        "decoder": {"name": "vit", "width": 16, "depth": 1, "heads": 2, "positions": "sincos-3d"},
    },
    "pretrain": {
        "masker": {"name": "tube", "ratio": 0.75},
        "target": {"name": "norm-pixel"},
        "steps": 1,
        "batch": {"global": 2},
        "pictures": None,
    },
}  # fmt: skip


def laid_over(base: Recipe, *layers: Recipe, without: tuple[str, ...] = ()) -> Recipe:
    """Merge layers over a recipe, section by section; the last one wins.

    Args:
        base: stays as it is.
        layers: mappings are merged, all else replaces what was there.
        without: keys that are taken out, with dots between sections.
    """
    merged = deepcopy(base)
    for layer in layers:
        _merge(merged, layer)
    for key in without:
        *sections, last = key.split(".")
        section = merged
        for name in sections:
            section = section[name]
        del section[last]
    return merged


def _merge(into: Recipe, layer: Recipe) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = deepcopy(value)


def write_recipe(path: Path, base: Recipe, *layers: Recipe, without: tuple[str, ...] = ()) -> str:
    """Write a recipe, merged as by ``laid_over``; returns its path as the command line takes it."""
    merged = laid_over(base, *layers, without=without)
    path.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    return str(path)


def sets(folder: Path | str, val: Path | str | None = None) -> Recipe:
    """Return the layer that has a recipe read other sets.

    Args:
        folder: holds ``train`` and ``val``; with ``val`` given, it is the training set itself.
        val: the held-out set.
    """
    train = Path(folder, "train") if val is None else folder
    val = Path(folder, "val") if val is None else val
    return {"data": {"train": {"path": str(train)}, "val": {"path": str(val)}}}


def draw_smooth(folder: Path, count: int, seed: int) -> None:
    """Draw pictures of smooth colors, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((40, 30), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")


def draw_tints(folder: Path, each: int, seed: int) -> None:
    """Draw noise of a random tint, in which the channel of a class is a little stronger."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(("red", "green", "blue")):
        for number in range(each):
            pixels = rng.integers(40, 160, (20 + number % 5, 30, 3)) + rng.integers(0, 60, 3)
            pixels[..., channel] += 25
            path = folder / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def draw_sides(folder: Path, count: int, seed: int) -> None:
    """Draw two classes that differ by the side that is bright, not by color."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = "lr"[number % 2]
        pixels = rng.integers(0, 120, (20, 30, 3))
        half = slice(0, 15) if kind == "l" else slice(15, 30)
        pixels[:, half] += rng.integers(60, 130)
        path = folder / kind / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Encode uint8 frames ``[T, H, W, 3]``, 10 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_noise(path: Path, frames: int) -> None:
    """Encode a clip of 48 x 32 pixels of noise."""
    rng = np.random.default_rng(frames)
    write_clip(path, rng.integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8))
