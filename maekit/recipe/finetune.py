"""The section ``finetune:``: how an encoder learns labels.

Changes of pixels or labels are off by default; the shipped recipes hold the papers' values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from maekit.recipe.detection import BoxPooling
from maekit.recipe.sections import (
    AdamW,
    Augment,
    Batch,
    Beta,
    PositiveRate,
    RandomResizedCrop,
    Section,
    TrainingSection,
    Views,
)

# Stricter than timm, which passes over words that it does not know.
_NUMBER = r"\d+(\.\d+)?"
_RAND_AUGMENT = (
    rf"^rand(-(m\d+|n[1-9]\d*|p{_NUMBER}|mstd{_NUMBER}|mmax\d+|inc[01]|t(weights|3aw?)))*$"
)

Blocks = Annotated[int, Field(ge=0)] | Literal["all", "half"]


class Head(Section):
    """One linear layer on the pooled features."""

    alternatives = ("init_std", "init_scale")

    kind: Literal["multiclass", "multilabel", "regression", "detection"] = Field(
        "multiclass",
        description="multiclass: one class a sample; multilabel: labels joined by '|' in the list; "
        "regression: numbers joined by '|', learned as they are; detection: actions of the persons "
        "in boxes (finetune.boxes)",
    )
    classes: int | None = Field(
        None, ge=1, description="how many there must be in data.train; unset: as many as there are"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of the features, before the head")
    init_std: float | None = Field(
        None, gt=0, description="deviation of the first weights; unset: 2e-5 (MAE)"
    )
    init_scale: float | None = Field(
        None, gt=0, description="deviation of the first weights over 0.02 (VideoMAE: 0.001)"
    )


class Evaluate(Section):
    """When data.val is evaluated, besides the end; each time by one view of every sample."""

    alternatives = ("every", "epochs")

    every: int | None = Field(None, ge=1, description="steps")
    epochs: float | None = Field(None, gt=0, description="passes over data.train; unset: one")


class FinetuneAdamW(AdamW):
    """AdamW with a learning rate for each layer; tokens and positions are free of weight decay."""

    base_lr: PositiveRate | Literal["auto"] = Field(
        "auto",
        description="learning rate per 256 samples, of the head; auto: 5e-4, or what makes the "
        "rate of a smaller batch 5e-4",
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="[beta1, beta2], in [0, 1)")
    min_lr: float = Field(1e-6, ge=0, description="where the cosine ends")
    lr_counts_repeats: bool = Field(False, description="repeats count in the lr rule (mae_st)")


class Finetune(TrainingSection):
    """Supervised training of an encoder, pre-trained or not, end to end or in part."""

    default_epochs = 20.0

    model: dict[str, Any] | None = Field(
        None, description="overlay on model for this verb: {backbone: {drop_path: ...}}"
    )
    augment: Augment = Field(
        default_factory=lambda: RandomResizedCrop(name="random-resized-crop", scale=(0.08, 1.0)),
        description="how crops are drawn: {name: random-resized-crop, single-try-crop, "
        "color-jitter, fixed-crop, multi-scale-crop or none, ...}",
    )
    epochs: float | None = Field(
        None, gt=0, description="passes over data.train; 20 where no budget is given"
    )
    batch: Batch = Field(Batch.model_validate({"global": "auto"}), description="samples per update")
    optimizer: FinetuneAdamW = Field(FinetuneAdamW(), description="AdamW's rates and weight decay")
    layer_decay: float = Field(
        0.75, gt=0, le=1, description="a layer's learning rate over that of the one above it"
    )
    blocks: Blocks = Field(
        "all",
        description="last blocks that are trained; half: the MLP of the last one; 0: the head "
        "alone",
    )
    pool: Literal["mean", "cls"] = Field("mean", description="of patch tokens, or the class token")
    norm: Literal["fresh", "pretrained"] = Field(
        "fresh",
        description="behind the pooling: a new LayerNorm (MAE, VideoMAE), or the encoder's own "
        "(mae_st)",
    )
    own_stats: bool = Field(
        False,
        description="pixels are normalized by data.stats, though the weights were trained by "
        "others (VideoMAE on AVA); false: weights of others are refused",
    )
    positions: Literal["trainable", "fixed"] = Field(
        "trainable", description="whether the table of positions is trained (MAE) or not (VideoMAE)"
    )
    head: Head = Field(
        Head(), description="what is learned: classes, several labels, numbers, or actions in boxes"
    )
    boxes: BoxPooling = Field(
        BoxPooling(), description="of head.kind: detection: how boxes are pooled, and judged"
    )
    rand_augment: str | None = Field(
        None,
        pattern=_RAND_AUGMENT,
        description="timm's words for it: rand-m9-mstd0.5-inc1 (MAE), rand-m7-n4-mstd0.5-inc1 "
        "(VideoMAE)",
    )
    rand_augment_fill: Literal["mean", "gray"] = Field(
        "mean",
        description="what it moves in from outside: the mean of the statistics (MAE), or gray 128 "
        "(VideoMAE, mae_st)",
    )
    rand_augment_on: Literal["crop", "frames"] = Field(
        "crop", description="the crop, once flipped (MAE), or whole frames before (VideoMAE)"
    )
    erase: float = Field(
        0.0, ge=0, le=1, description="probability that a box of a sample becomes noise"
    )
    mixup: float = Field(0.0, ge=0, description="alpha of mixup; 0: none")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix; 0: none")
    mix_probability: float = Field(1.0, ge=0, le=1, description="that a batch is mixed at all")
    mix_switch: float = Field(0.5, ge=0, le=1, description="probability of CutMix where both are")
    mix_per: Literal["batch", "sample"] = Field(
        "batch", description="one draw for each micro-batch (as in the papers' codes), or row"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label that is spread")
    repeats: int = Field(1, ge=1, description="augmentations of each decoded sample")
    repeat_from: Literal["new-clip", "same-frames"] = Field(
        "same-frames", description="what a repeat draws anew besides its augmentation"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the weights, which is evaluated"
    )
    validate_: Evaluate = Field(
        Evaluate(), alias="validate", description="when data.val is judged, besides the end"
    )
    views: Views = Field(
        Views(), description="of data.val: how many clips and crops are judged at the end"
    )

    @model_validator(mode="after")
    def _values_are_not_smoothed(self) -> Self:
        if self.head.kind == "regression" and self.label_smoothing > 0:
            raise ValueError("label_smoothing means nothing for regression; set it to 0")
        return self

    @model_validator(mode="after")
    def _fits_boxes(self) -> Self:
        if self.head.kind != "detection":
            if self.boxes != BoxPooling():
                raise ValueError("boxes means nothing without head.kind: detection")
            return self
        if self.mixup or self.cutmix:
            raise ValueError("mixup and cutmix would mix boxes of two clips; leave them out")
        if self.rand_augment is not None:
            raise ValueError("rand_augment moves pixels away from their boxes; leave it out")
        if self.pool == "cls":
            raise ValueError("pool: cls means nothing for detection, which pools boxes")
        if self.views != Views():
            raise ValueError("detection is judged on one view of a clip, whole: see boxes.short")
        return self
