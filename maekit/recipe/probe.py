"""Section ``probe:``: how frozen features are evaluated; and the online probe of pre-training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from maekit.recipe.sections import (
    Augment,
    Batch,
    Beta,
    PositiveRate,
    Rate,
    Section,
    SingleTryCrop,
    TrainingSection,
    Views,
    Warmup,
)

Positive = Annotated[float, Field(gt=0)]


class CachedLinear(Section):
    """Multinomial logistic regression on standardized features, solved to its optimum."""

    strengths: tuple[Positive, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        min_length=1,
        description="C: the weight of the loss against half the squared norm of the weights; the "
        "best on a split of data.train is taken, and where two in a row do worse, none after them "
        "is tried",
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="share of data.train that the strength is chosen on"
    )
    iterations: int = Field(1000, ge=1, description="of L-BFGS, at most")


class Nearest(Section):
    """The classes of the nearest training samples by cosine."""

    k: int = Field(20, ge=1, description="how many neighbors vote (DINO: 20)")
    temperature: float | None = Field(
        0.07, gt=0, description="a vote weighs exp(cosine / temperature); null: one vote each"
    )


class Attentive(Section):
    """One cross-attention block with a learned query, trained on frozen tokens (V-JEPA)."""

    heads: int | None = Field(
        None, ge=1, description="of the cross-attention; unset: one for each 64 channels"
    )
    epochs: int = Field(20, ge=1, description="passes over data.train (V-JEPA: 20)")
    warmup: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    batch: int = Field(256, ge=1, description="samples per update")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW (V-JEPA: 1e-3)")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW (V-JEPA: 0.01)")


class Lars(Rate):
    """LARS as MAE's linear probe uses it (main_linprobe.py; util/lars.py)."""

    name: Literal["lars"] = Field("lars", description="the optimizer: lars, or sgd")
    base_lr: PositiveRate = Field(0.1, description="learning rate per 256 samples (MAE: 0.1)")
    momentum: Beta = Field(0.9, description="of the scaled gradient, in [0, 1)")
    trust: float = Field(0.001, gt=0, description="a step's size over that of what it changes")
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient of matrices")


class Sgd(Rate):
    """Momentum SGD, without Nesterov, as VideoMAE's linear probe uses it (table 11)."""

    name: Literal["sgd"] = Field("sgd", description="the optimizer: sgd, or lars")
    base_lr: PositiveRate = Field(0.1, description="learning rate per 256 samples (VideoMAE: 0.1)")
    momentum: Beta = Field(0.9, description="of the gradient, in [0, 1)")
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient of matrices")


def _optimizer_name(value: Any) -> str:  # noqa: ANN401 - whatever a recipe holds here
    """Return the optimizer's name; LARS where none is named."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "lars" if name is None else str(name)


Optimizer = Annotated[
    Annotated[Lars, Tag("lars")] | Annotated[Sgd, Tag("sgd")], Discriminator(_optimizer_name)
]


class Probe(TrainingSection):
    """Evaluation of frozen features, next to those of an untrained encoder and raw pixels.

    Of clips, raw differences of frames are evaluated too.

    Budget, batch, optimizer, crops and checkpoints are of linear with the paper's protocol; the
    others take ``batch.per_device`` and ``precision`` alone.
    """

    default_epochs = 90.0  # of MAE's linear probe

    model: dict[str, Any] | None = Field(None, description="overlay on model for this verb")
    kind: Literal["linear", "knn", "attentive"] = Field(
        "linear", description="what judges the features: a linear layer, neighbors, attention"
    )
    protocol: Literal["paper", "cached"] = Field(
        "cached",
        description="of linear: cached is exact on the features of center crops; paper trains "
        "batch norm and a linear layer on augmented crops (MAE, with LARS), made for sets as large "
        "as ImageNet",
    )
    pool: Literal["auto", "cls", "mean"] = Field(
        "auto",
        description="of tokens; auto: the class token where there is one, else the mean. The "
        "encoder's last norm comes before the mean, and with the paper's protocol after it",
    )
    layer: int | None = Field(
        None,
        description="block whose output is taken, from 1, or from -1 backwards; unset: the "
        "encoder's output, after its last norm",
    )
    pixels: int = Field(
        32, ge=1, description="pixels: the longer side that raw pixels are reduced to"
    )
    epochs: float | None = Field(
        None, gt=0, description="passes over data.train; 90 (MAE) where no budget is given"
    )
    warmup: Warmup = Field(Warmup(epochs=10), description="of the learning rate, linear from 0")
    batch: Batch = Field(
        Batch.model_validate({"global": 16384}), description="samples per update (MAE: 16384)"
    )
    optimizer: Optimizer = Field(
        Lars(), description="of linear with the paper's protocol: {name: lars or sgd, ...}"
    )
    augment: Augment = Field(
        default_factory=lambda: SingleTryCrop(name="single-try-crop", scale=(0.08, 1.0)),
        description="how crops are drawn: {name: single-try-crop, random-resized-crop, none, ...}",
    )
    views: Views = Field(Views(), description="of data.val: how many clips and crops are judged")
    linear: CachedLinear = Field(CachedLinear(), description="of linear with the cached protocol")
    knn: Nearest = Field(Nearest(), description="of knn: which neighbors vote, and how")
    attentive: Attentive = Field(Attentive(), description="of attentive: how it is trained")

    @property
    def trains_heads(self) -> bool:
        """Whether heads are trained on augmented crops, not fitted on cached features."""
        return self.kind == "linear" and self.protocol == "paper"

    @model_validator(mode="after")
    def _nothing_is_recomputed(self) -> Self:
        if self.compile or self.activation_checkpointing:
            raise ValueError(
                "compile and activation_checkpointing do nothing here: the encoder is frozen"
            )
        if self.sharding.name != "ddp":
            raise ValueError("sharding does nothing here: only heads are trained, which are small")
        return self

    @model_validator(mode="after")
    def _layers_count_from_one(self) -> Self:
        if self.layer == 0:
            raise ValueError("layer counts blocks from 1 (or from -1 backwards)")
        return self


class OnlineProbe(Section):
    """A probe of a fixed labeled subset while pre-training, and the best checkpoint by it."""

    every: int = Field(1000, ge=1, description="steps")
    kind: Literal["knn", "ridge"] = Field(
        "knn", description="what judges the features: neighbors, or ridge regression"
    )
    samples: int = Field(
        1000, ge=2, description="of data.train, evenly spaced; of data.val as many at most"
    )
    pool: Literal["auto", "cls", "mean"] = Field(
        "mean", description="of tokens; auto: the class token where there is one, else the mean"
    )
    k: int = Field(10, ge=1, description="neighbors that vote, of knn")
    ridge: float = Field(0.1, gt=0, description="penalty of ridge, per training sample")
