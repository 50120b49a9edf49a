"""Small models with weights of their own, before and after they are resized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from maekit.engine.build import build_model, compatible_header, load_into
from maekit.grid import Grid
from maekit.layers import sincos_1d, sincos_2d, sincos_3d
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header
from maekit.weights.importer import ImportReport, Weights
from maekit.weights.safetensors_io import model_tensors, write_weights

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
    """Build a model none of whose tensors has its first value, where it is trained."""
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
    """Build the model asked for, with the tensors of a trained one."""
    weights = Weights(
        described, model_tensors(trained(described)), "weights", ImportReport("maekit", 0)
    )
    agreed, fresh = compatible_header(described, asked, "weights")
    model = build_model(agreed, seed)
    load_into(model, weights, fresh)
    return model.eval()


def everything(model: MaskedAutoencoder) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def run(model: MaskedAutoencoder) -> torch.Tensor:
    """Return the prediction for half of the tokens of a fixed clip."""
    torch.manual_seed(0)
    channels = len(model.statistics.mean)
    pixels = torch.rand(2, channels, *model.clip)
    hidden = torch.arange(model.grid.tokens).expand(2, -1) % 2 == 0
    with torch.no_grad():
        pred = model(pixels, hidden).pred
    assert bool(pred.isfinite().all())
    return pred


def bicubic(rows: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    """Resample as torch does, slot by slot, then linear between slots by hand."""
    slots = []
    for slot in rows.detach().reshape(old.t, old.h, old.w, -1):
        image = slot.permute(2, 0, 1)[None]
        image = F.interpolate(image, size=(new.h, new.w), mode="bicubic", align_corners=False)
        slots.append(image[0].permute(1, 2, 0).double().numpy())
    stack = np.stack(slots).reshape(old.t, -1)
    centers = (np.arange(new.t) + 0.5) * old.t / new.t - 0.5
    columns = [np.interp(centers, np.arange(old.t), column) for column in stack.T]
    return torch.tensor(np.stack(columns, axis=1)).reshape(new.tokens, -1).float()
