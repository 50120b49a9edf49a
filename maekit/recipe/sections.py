"""Sections that others share: crops, test views, and the base of every training."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

# bilinear-aliased reads four pixels however much a picture shrinks, as cv2 and torch's own
# interpolate do; the others widen with it.
Interpolation = Literal["bicubic", "bilinear", "bilinear-aliased"]
RESIZED = "how pixels are resized; bilinear-aliased: without widening for smaller pictures, as cv2"
CROPS = "how crops are drawn"

# Of views that are not drawn at random, and samples of another aspect.
Fit = Literal["crop", "pad", "stretch"]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )

    # Keys that say the same thing in different units: at most one is given, and one that a child
    # or the command line gives removes the others.
    alternatives: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        given = [key for key in self.alternatives if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one")
        return self


class NoAugment(Section):
    """Show each sample as data.fit says: its center, or all of it; no flip unless one is set."""

    name: Literal["none"] = Field(description=CROPS)
    flip: float = Field(0.0, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Interpolation = Field("bicubic", description=RESIZED)


Share180 = Annotated[int, Field(ge=0, le=90)]
Share255 = Annotated[int, Field(ge=0, le=255)]


class FixedCrop(Section):
    """Resize the short side and cut a random place out, of fixed size (MAE table 1e)."""

    name: Literal["fixed-crop"] = Field(description=CROPS)
    enlarge: float = Field(
        8 / 7,
        ge=1,
        description="the resized short side over the crop's; 8/7: 256 pixels for 224 (the paper "
        "does not say)",
    )
    enlarge_most: float | None = Field(
        None,
        ge=1,
        description="enlarge is drawn from its value up to this, at whole pixels; 10/7: up to 320 "
        "pixels for 224 (SlowFast on AVA); unset: always enlarge",
    )
    hsv: tuple[Share180, Share255, Share255] | None = Field(
        None,
        description="hue (of 180), saturation and value (of 255) move by whole numbers within +- "
        "these, alike for all frames: [10, 26, 26] is VideoMAE's on AVA; unset: colors stay",
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Interpolation = Field("bicubic", description=RESIZED)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.enlarge_most is not None and self.enlarge_most < self.enlarge:
            raise ValueError("enlarge_most is less than enlarge")
        return self


class RandomCrop(Section):
    """Base of the crops of random size."""

    name: str = Field(description=CROPS)
    scale: tuple[float, float] = Field((0.2, 1.0), description="range of the area, as a fraction")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="range of width / height")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    interpolation: Interpolation = Field("bicubic", description=RESIZED)

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be a range within (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio must be a range of positive numbers")
        return self


class RandomResizedCrop(RandomCrop):
    """A random box of random area and aspect, resized (Inception crop, as torchvision)."""

    name: Literal["random-resized-crop"] = Field(description=CROPS)


class SingleTryCrop(RandomCrop):
    """As random-resized-crop, but a box that does not fit is cut to the picture.

    So does MAE's linear probe, after TensorFlow's: util/crop.py:22-42 tries once and takes the
    smaller sides.
    """

    name: Literal["single-try-crop"] = Field(description=CROPS)


class ColorJitter(RandomCrop):
    """The random resized crop, then brightness, contrast, saturation and hue, in random order.

    One draw for a clip, the same for every frame; as torchvision's. The strengths are MoCo's
    (arXiv 1911.05722), as MAE's table 1e does not give its own.
    """

    name: Literal["color-jitter"] = Field(description=CROPS)
    brightness: float = Field(0.4, ge=0, description="factor within 1 +- this, not below 0")
    contrast: float = Field(0.4, ge=0, description="factor within 1 +- this, not below 0")
    saturation: float = Field(0.4, ge=0, description="factor within 1 +- this, not below 0")
    hue: float = Field(0.1, ge=0, le=0.5, description="shift within +- this, of the whole circle")


class MultiScaleCrop(Section):
    """One of a few box sizes at one of 13 places, resized (VideoMAE's, from TSN)."""

    name: Literal["multi-scale-crop"] = Field(description=CROPS)
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
    interpolation: Interpolation = Field("bilinear", description=RESIZED)


Augment = Annotated[
    NoAugment | FixedCrop | RandomResizedCrop | SingleTryCrop | ColorJitter | MultiScaleCrop,
    Field(discriminator="name"),
]


class Views(Section):
    """Clips x crops of each test sample, whose scores are averaged; 1 x 1 is the center clip.

    Where there are more, the center clip is read besides them and does not enter their mean. The
    numbers of a single view come from it, both while training and at the end.
    """

    clips: int = Field(1, ge=1, description="over time, evenly spaced; an image has one")
    crops: int = Field(1, ge=1, description="along the longer side, evenly spaced")
    enlarge: float = Field(
        1.0,
        ge=1,
        description="the resized short side over the crop's; 8/7: 256 pixels for 224 (MAE)",
    )
    interpolation: Interpolation = Field("bicubic", description=RESIZED)
    resize: Literal["exact", "whole-pixels"] = Field(
        "exact",
        description="exact: the crop is centered to fractions of a pixel; whole-pixels: the long "
        "side is resized to whole pixels and crops begin at one, as torchvision's Resize and "
        "CenterCrop do (MAE, VideoMAE)",
    )

    @property
    def center(self) -> Views:
        """The one view that single-view numbers are of."""
        return self.model_copy(update={"clips": 1, "crops": 1})

    @property
    def read(self) -> int:
        """How many views of a sample are read: all of them, and the center where it is not all."""
        count = self.clips * self.crops
        return count if count == 1 else count + 1


class Warmup(Section):
    """Linear warm-up of the learning rate from 0."""

    alternatives = ("epochs", "steps")

    epochs: float | None = Field(None, ge=0, description="passes over data.train")
    steps: int | None = Field(None, ge=0, description="updates of the weights")
    endpoint: bool = Field(
        False,
        description="true: the last warm-up step already has the full rate (VideoMAE's linspace); "
        "false: the first step after it (MAE)",
    )


Samples = Annotated[int, Field(ge=1)]


class Batch(Section):
    """The effective batch, in decoded samples."""

    global_: Samples | Literal["auto"] = Field(
        256,
        alias="global",
        description="samples per update, all devices; auto: a power of two from 8 to 256, for 30 "
        "updates or more in a pass over data.train",
    )
    per_device: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None,
        description="samples per device and micro-batch; auto, in pre-training: as many as memory "
        "has room for",
    )
    accumulation: int | None = Field(None, ge=1, description="micro-batches per update")

    @property
    def given_per_device(self) -> int | None:
        """What is given as a number."""
        return None if self.per_device == "auto" else self.per_device

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.per_device == "auto" and self.accumulation is not None:
            raise ValueError("accumulation follows from per_device: auto; give one of both")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]
PositiveRate = Annotated[float, Field(gt=0)]


class Rate(Section):
    """Base of every optimizer: lr = base_lr * batch.global / 256, and the cosine's end."""

    base_lr: PositiveRate | Literal["auto"] = Field(
        1.5e-4, description="learning rate per 256 samples"
    )
    min_lr: float = Field(0.0, ge=0, description="where the cosine ends")
    min_lr_scaled: bool = Field(False, description="min_lr is per 256 samples too (VideoMAE)")


class AdamW(Rate):
    """AdamW."""

    name: Literal["adamw"] = Field("adamw", description="the optimizer; there is no other here")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="[beta1, beta2], in [0, 1)")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.05, ge=0, description="decoupled, per unit of learning rate")


class Checkpoint(Section):
    """When a run is saved, besides its end and every interruption."""

    alternatives = ("steps", "minutes")

    steps: int | None = Field(None, ge=1, description="updates between two checkpoints")
    minutes: float | None = Field(None, gt=0, description="minutes between two checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints kept, newest first")


class Sharding(Section):
    """How several devices keep one model."""

    name: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: each has all of it; fsdp: each has a share of parameters, gradients and "
        "moments (FSDP2), for models that are too large for one",
    )


class Validate(Section):
    """The held-out error: fixed views (and fixed masks), so that steps compare."""

    every: int = Field(500, ge=1, description="steps")
    samples: int = Field(256, ge=1, description="held-out samples, evenly spaced in data.val")


class Pictures(Section):
    """Reconstructions of fixed held-out samples, drawn while training."""

    every: int = Field(1000, ge=1, description="steps")
    samples: int = Field(8, ge=1, le=64, description="held-out samples, evenly spaced in data.val")


class TrainingSection(Section):
    """The words that all sections of verbs that train share."""

    alternatives = ("epochs", "steps", "samples")
    default_epochs: ClassVar[float | None] = None  # where no budget is given; None: one must be

    data: dict[str, Any] | None = Field(None, description="overlay on data for this verb")
    augment: Augment = Field(
        default_factory=lambda: RandomResizedCrop(name="random-resized-crop"),
        description="how crops are drawn: {name: random-resized-crop, color-jitter, fixed-crop, "
        "multi-scale-crop or none, ...}",
    )
    epochs: float | None = Field(None, gt=0, description="passes over data.train")
    steps: int | None = Field(None, ge=1, description="updates of the weights")
    samples: int | None = Field(None, ge=1, description="decoded samples")
    warmup: Warmup = Field(Warmup(), description="of the learning rate, linear from 0")
    batch: Batch = Field(Batch(), description="samples per update")
    optimizer: Rate = Field(description="how weights are updated")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where native, fp16 on older GPUs, fp32 on the CPU"
    )
    compile: bool | Literal["auto"] = Field(
        False, description="torch.compile the model; auto: on a GPU"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    sharding: Sharding = Field(Sharding(), description="how several devices keep the model")
    clip_grad: float | None = Field(None, gt=0, description="largest gradient norm")
    max_nonfinite: int = Field(10, ge=1, description="non-finite steps in a row before exit 4")
    checkpoint: Checkpoint = Field(Checkpoint(), description="when the run is saved")

    # Whether numbers depend on how a batch is split: by what is mixed, or batch statistics.
    split_matters: ClassVar[bool] = True

    @model_validator(mode="after")
    def _split_is_given(self) -> Self:
        if self.split_matters and self.batch.per_device == "auto":
            raise ValueError(
                "batch.per_device: auto is for pre-training: here the result depends on how a "
                "batch is split; give a number"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.default_epochs is None and not self._has_budget:
            raise ValueError(f"give exactly one of {', '.join(self.alternatives)}")
        return self

    def compiles(self, device: str) -> bool:
        """Return whether the model is compiled on a device of a type."""
        return device == "cuda" if self.compile == "auto" else bool(self.compile)

    @property
    def _has_budget(self) -> bool:
        return any(getattr(self, key) is not None for key in self.alternatives)

    def with_budget(self) -> Self:
        """Return the section with the verb's own budget, where none is given."""
        if self._has_budget:
            return self
        return self.model_copy(update={"epochs": self.default_epochs})


class HeldOutSection(TrainingSection):
    """Base of verbs whose error on fixed held-out samples is measured."""

    validate_: Validate = Field(
        Validate(), alias="validate", description="when the held-out error is measured"
    )
    pictures: Pictures | None = Field(
        Pictures(), description="of held-out samples, drawn while training; null: none"
    )


# Option and value as weights' headers and recipes from before 0.1 spell them, and today's value.
BRITISH: dict[tuple[str | int, str], str] = {
    ("inflate", "centre"): "center",
    ("space", "normalised"): "normalized",
}


def american(value: object, info: ValidationInfo) -> object:
    """Return an option's value in today's spelling, for a Pydantic ``BeforeValidator``."""
    return BRITISH.get((str(info.field_name), value), value) if isinstance(value, str) else value
