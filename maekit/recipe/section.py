"""What every section of a recipe has in common."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator


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
