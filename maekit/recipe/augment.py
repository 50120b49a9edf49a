"""How crops are drawn: the closed list that ``pretrain.augment`` chooses from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from maekit.recipe.section import Section


class NoAugment(Section):
    """Resize the short side and cut the center; no flip unless asked for."""

    name: Literal["none"]
    flip: float = Field(0.0, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class FixedCrop(Section):
    """Resize the short side and cut a random place out, of fixed size (MAE table 1e)."""

    name: Literal["fixed-crop"]
    enlarge: float = Field(
        8 / 7,
        ge=1,
        description="the resized short side over the crop's; 8/7: 256 pixels for 224 (the paper "
        "does not say)",
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class RandomCrop(Section):
    """What the crops of random size have in common."""

    name: str
    scale: tuple[float, float] = Field((0.2, 1.0), description="range of the area, as a fraction")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="range of width / height")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be a range within (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio must be a range of positive numbers")
        return self


class RandomResizedCrop(RandomCrop):
    """A random box of random area and aspect, resized (Inception crop, as torchvision)."""

    name: Literal["random-resized-crop"]


class SingleTryCrop(RandomCrop):
    """As random-resized-crop, but a box that does not fit is cut to the picture (MAE's linear
    probe, after TensorFlow's): util/crop.py:22-42 tries once and takes the smaller sides."""

    name: Literal["single-try-crop"]


class ColorJitter(RandomCrop):
    """The random resized crop, then brightness, contrast, saturation and hue, in random order.

    One draw for a clip, the same for every frame; as torchvision's. The strengths are MoCo's
    (arXiv 1911.05722), as MAE's table 1e does not give its own.
    """

    name: Literal["color-jitter"]
    brightness: float = Field(0.4, ge=0, description="factor within 1 +- this, not below 0")
    contrast: float = Field(0.4, ge=0, description="factor within 1 +- this, not below 0")
    saturation: float = Field(0.4, ge=0, description="factor within 1 +- this, not below 0")
    hue: float = Field(0.1, ge=0, le=0.5, description="shift within +- this, of the whole circle")


class MultiScaleCrop(Section):
    """One of a few box sizes at one of 13 places, resized (VideoMAE's, from TSN)."""

    name: Literal["multi-scale-crop"]
    scales: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0, 0.875, 0.75, 0.66),
        min_length=1,
        description="height and width of the box, as fractions of the largest that fits",
    )
    max_distort: int = Field(
        1, ge=0, description="how many places in scales height and width may be apart"
    )
    flip: float = Field(
        0.0, ge=0, le=1, description="probability of a horizontal flip; VideoMAE's code has none"
    )
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"


Augment = Annotated[
    NoAugment | FixedCrop | RandomResizedCrop | SingleTryCrop | ColorJitter | MultiScaleCrop,
    Field(discriminator="name"),
]
