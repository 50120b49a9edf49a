"""Section ``ablate:``: the rows of a table, what is measured of each, and the paper's numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from maekit.recipe.sections import Section

Measure = Literal[
    "holdout_loss", "gain_db", "linear", "knn", "attentive", "finetune",
    "seconds", "samples_per_second", "flops", "memory", "parameters",
]  # fmt: skip
JUDGES: tuple[str, ...] = ("linear", "knn", "attentive", "finetune")  # runs of their own, on labels
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Scalar = bool | int | float | str | None


class Step(Section):
    """A run that a row's weights come from."""

    verb: Literal["pretrain", "finetune", "tokenizer"] = Field(
        "pretrain", description="a pre-training after a tokenizer predicts the codes of it"
    )
    recipe: str | None = Field(None, description="file or name, if not the row's")
    set_: dict[str, Any] = Field({}, alias="set", description="keys of it, besides the row's")
    from_: str | None = Field(
        None, alias="from", description="weights it starts from, if not the step's before"
    )


class Row(Section):
    """One row: what it changes of the base, and where its weights come from."""

    alternatives = ("from_", "chain")

    set_: dict[str, Any] = Field(
        {},
        alias="set",
        description="keys and values as on the command line: {pretrain.masker.ratio: 0.9}; a key "
        "that begins with ~ is removed",
    )
    recipe: str | None = Field(None, description="file or name of a recipe that replaces the base")
    from_: str | None = Field(
        None,
        alias="from",
        description="weights that are judged, as --from takes them; instead of a pre-training",
    )
    chain: tuple[Step, ...] | None = Field(
        None, min_length=1, description="runs that the weights come from, each from the one before"
    )


class Reference(Section):
    """The table of the paper that ours stands beside."""

    table: str = Field(min_length=1, description="its id in recipes/ablations/reference.json")
    columns: dict[Measure, str] = Field(
        min_length=1, description="our measure, or flops, and the paper's column of it"
    )
    rows: dict[str, tuple[Scalar, ...] | Scalar] = Field(
        {},
        description="the paper's row of ours, by what its first columns hold; rows that are not "
        "named here are found by their own name, and null is none",
    )
    transposed: bool = Field(False, description="the paper's columns are our rows")
    noise: dict[Measure, float] = Field(
        {}, description="differences of the paper up to this are none, in its own units"
    )


class Ablate(Section):
    """What `maekit ablate` runs: rows over the base, which is the rest of this recipe."""

    alternatives = ("rows", "axes")

    base: str | None = Field(
        None,
        description="a recipe laid under this one and its parents: a child that names another one "
        "runs the same rows on another scale",
    )
    title: str | None = Field(None, description="above the table")
    rows: dict[str, Row | None] | None = Field(
        None, description="name and changes of each row; null leaves out a row of the parent"
    )
    axes: dict[str, tuple[Any, ...]] | None = Field(
        None, description="keys and the values that they take; rows are all combinations"
    )
    best_of: dict[str, tuple[Any, ...]] | None = Field(
        None,
        max_length=1,
        description="a key of what judges, and values: each row takes its best one (MAE, figure 9)",
    )
    compare_to: str | None = Field(
        None, description="the row that differences are taken to; unset: the first one"
    )
    measure: tuple[Measure, ...] = Field(
        min_length=1,
        description="linear, knn, attentive and finetune are runs of their own; flops: counted per "
        "sample, forward and backward; memory: the peak, of the process where there is no device",
    )
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="every row runs with each")
    reference: Reference | None = Field(None, description="the paper's numbers")

    @field_validator("axes", "best_of")
    @classmethod
    def _axes_have_values(
        cls, axes: dict[str, tuple[Any, ...]] | None
    ) -> dict[str, tuple[Any, ...]] | None:
        for key, values in (axes or {}).items():
            if not values:
                raise ValueError(f"{key} has no value")
        return axes

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not self.axes and not any((self.rows or {}).values()):
            raise ValueError("give rows, or axes")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice")
        return self
