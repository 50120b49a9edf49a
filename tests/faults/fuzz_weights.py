"""Weights, damaged: maekit's own with another header, safetensors, and what torch.save writes."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from fuzz import damaged, odd_record
from safetensors.torch import save

from maekit.engine.build import build_model, load_model
from maekit.recipe.schema import BackboneSpec, DecoderSpec, TargetSpec
from maekit.registry import spec_of
from maekit.weights.header import Header
from maekit.weights.safetensors_io import KEY, header_text, model_tensors


@functools.cache
def own() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and the header of a small model."""
    sizes = {"width": 16, "depth": 1, "heads": 2}
    header = Header(
        backbone=spec_of(BackboneSpec, {"name": "image-vit", "patch": 8, **sizes}),
        decoder=spec_of(DecoderSpec, {"name": "vit", **sizes}),
        target=spec_of(TargetSpec, {"name": "pixel"}),
        clip=(1, 16, 16),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    return model_tensors(build_model(header)), json.loads(header_text(header))


@functools.cache
def pickled() -> bytes:
    """Return what torch.save writes of the same tensors, under a foreign model's names."""
    file = io.BytesIO()
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight")
    shapes = ((1, 1, 16), (1, 5, 16), (16, 3, 8, 8), (16,))
    state = {name: torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)}
    torch.save({"model": state, "epoch": 3}, file)
    return file.getvalue()


def _load_intact() -> None:
    """Load an intact file: what torch imports on the way is no case's time."""
    tensors, header = own()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        path.write_bytes(save(tensors, {KEY: json.dumps(header), "format": "pt"}))
        load_model(path)


_load_intact()


def case(rng: random.Random, folder: Path) -> None:
    """Load a damaged file as a model."""
    path = folder / rng.choice(("w.safetensors", "w.pth"))
    kind = rng.random()
    if kind < 0.5:
        tensors, header = own()
        header = header if rng.random() < 0.05 else odd_record(rng, header)
        text = json.dumps(header)
        path.write_bytes(save(tensors, {KEY: text, "format": "pt"}))
    elif kind < 0.7:
        tensors, header = own()
        data = save(tensors, {KEY: json.dumps(header), "format": "pt"})
        (length,) = struct.unpack("<Q", data[:8])
        head = damaged(rng, data[8 : 8 + length])
        size = len(head) if rng.random() < 0.8 else rng.choice((0, 2**63, 2**40, length))
        path.write_bytes(struct.pack("<Q", size) + head + data[8 + length :])
    else:
        path.write_bytes(damaged(rng, pickled()))
    load_model(path)
