"""What a weights file says of itself: enough to rebuild the model without its recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from maekit.contracts import Grid
from maekit.version import __version__

FORMAT = 1


class FileHeader(BaseModel):
    """What every weights file of maekit says, kept in the metadata of its safetensors file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    format: int = FORMAT
    maekit: str = __version__
    source: str | None = None  # where the weights come from: recipe, steps
    licence: str | None = None


class Header(FileHeader):
    """The description of a masked autoencoder."""

    kind: Literal["autoencoder"] = "autoencoder"
    backbone: dict[str, Any]  # the part's name and all its options
    decoder: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    masker: dict[str, Any] | None = None
    clip: tuple[int, int, int]  # the model's own input in pixels: (T, H, W)
    channels: int
    mean: tuple[float, ...]  # of the [0, 1] pixels, per channel
    std: tuple[float, ...]
    grid: Grid | None = None  # filled in when the model is built


class DVAEHeader(FileHeader):
    """The description of a discrete VAE."""

    kind: Literal["dvae"] = "dvae"
    dvae: dict[str, Any]  # its sizes, as the recipe's tokenizer.dvae
    channels: int
