"""What the section of every verb that trains holds: budget, batch, optimizer, when to save."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from maekit.recipe.augment import Augment, RandomResizedCrop
from maekit.recipe.section import Section


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


class Batch(Section):
    """The effective batch, in decoded samples."""

    global_: int = Field(256, ge=1, alias="global", description="samples per update, all devices")
    per_device: int | None = Field(None, ge=1, description="samples per device and micro-batch")
    accumulation: int | None = Field(None, ge=1, description="micro-batches per update")


Beta = Annotated[float, Field(ge=0, lt=1)]


class Rate(Section):
    """What every optimizer has: lr = base_lr * batch.global / 256, and where the cosine ends."""

    base_lr: float = Field(1.5e-4, gt=0, description="learning rate per 256 samples")
    min_lr: float = Field(0.0, ge=0, description="where the cosine ends")
    min_lr_scaled: bool = Field(False, description="min_lr is per 256 samples too (VideoMAE)")


class AdamW(Rate):
    """AdamW."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="[beta1, beta2], in [0, 1)")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.05, ge=0, description="decoupled, per unit of learning rate")


class Checkpoint(Section):
    """When a run is saved, beside its end and every interruption."""

    alternatives = ("steps", "minutes")

    steps: int | None = Field(None, ge=1, description="updates between two checkpoints")
    minutes: float | None = Field(None, gt=0, description="minutes between two checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints kept, newest first")


class Validate(Section):
    """The held-out error: fixed views (and fixed masks), so that steps compare."""

    every: int = Field(500, ge=1, description="steps")
    samples: int = Field(256, ge=1, description="held-out samples, evenly spaced in data.val")


class Pictures(Section):
    """Reconstructions of fixed held-out samples, drawn while training."""

    every: int = Field(1000, ge=1, description="steps")
    samples: int = Field(8, ge=1, le=64)


class TrainingSection(Section):
    """The words that all sections of verbs that train share."""

    alternatives = ("epochs", "steps", "samples")

    data: dict[str, Any] | None = Field(None, description="overlay on data for this verb")
    augment: Augment = Field(
        default_factory=lambda: RandomResizedCrop(name="random-resized-crop"),
        description="how crops are drawn: {name: random-resized-crop, color-jitter, fixed-crop, "
        "multi-scale-crop or none, ...}",
    )
    epochs: float | None = Field(None, gt=0, description="passes over data.train")
    steps: int | None = Field(None, ge=1, description="updates of the weights")
    samples: int | None = Field(None, ge=1, description="decoded samples")
    warmup: Warmup = Warmup()
    batch: Batch = Batch()
    optimizer: Rate
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where native, fp16 on older GPUs, fp32 on the CPU"
    )
    compile: bool = Field(False, description="torch.compile the model")
    activation_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    clip_grad: float | None = Field(None, gt=0, description="largest gradient norm")
    max_nonfinite: int = Field(10, ge=1, description="non-finite steps in a row before exit 4")
    checkpoint: Checkpoint = Checkpoint()

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if all(getattr(self, key) is None for key in self.alternatives):
            raise ValueError(f"give exactly one of {', '.join(self.alternatives)}")
        return self


class HeldOutSection(TrainingSection):
    """Of verbs that are judged by what they make of fixed held-out samples."""

    validate_: Validate = Field(Validate(), alias="validate")
    pictures: Pictures | None = Field(
        Pictures(), description="of held-out samples, drawn while training; null: none"
    )
