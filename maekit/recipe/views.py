"""Test views: how many clips and crops of each sample are judged, and how they are cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from maekit.recipe.section import Section


class Views(Section):
    """Clips x crops of each test sample, whose scores are averaged; 1 x 1 is the center clip.

    Where there are more, the center clip is read beside them, and is no part of their mean: numbers
    of a single view are of it, so that they are of the same view while training and at the end.
    """

    clips: int = Field(1, ge=1, description="over time, evenly spaced; an image has one")
    crops: int = Field(1, ge=1, description="along the longer side, evenly spaced")
    enlarge: float = Field(
        1.0,
        ge=1,
        description="the resized short side over the crop's; 8/7: 256 pixels for 224 (MAE)",
    )
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @property
    def center(self) -> Views:
        """The one view that single-view numbers are of."""
        return self.model_copy(update={"clips": 1, "crops": 1})

    @property
    def read(self) -> int:
        """How many views of a sample are read: all of them, and the center where it is not all."""
        count = self.clips * self.crops
        return count if count == 1 else count + 1
