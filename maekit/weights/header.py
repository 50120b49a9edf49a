"""What a weights file says of itself: enough to rebuild the model without its recipe."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from maekit.contracts import Grid
from maekit.version import __version__

FORMAT = 1


class Header(BaseModel):
    """The description of a model, kept in the metadata of its safetensors file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    maekit: str = __version__
    backbone: dict[str, Any]  # the part's name and all its options
    decoder: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    # Values per token that the decoder predicts, where the target is unknown.
    out_dim: int | None = None
    masker: dict[str, Any] | None = None
    clip: tuple[int, int, int]  # the model's own input in pixels: (T, H, W)
    channels: int
    mean: tuple[float, ...]  # of the [0, 1] pixels, per channel
    std: tuple[float, ...]
    grid: Grid | None = None  # filled in when the model is built
    source: str | None = None  # where the weights come from: recipe, steps
    licence: str | None = None
