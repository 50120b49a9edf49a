"""The keys ``finetune.boxes``: how actions in boxes are learned and judged.

The defaults are VideoMAE's on AVA (MCG-NJU/VideoMAE-Action-Detection 15615db).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from maekit.recipe.sections import Section

Range = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]


class Jitter(Section):
    """How far the sides of a box move while training, as shares of its width or height."""

    left: Range = Field((-0.2, 0.1), description="range for x1, in widths")
    top: Range = Field((-0.1, 0.05), description="range for y1, in heights")
    right: Range = Field((-0.1, 0.2), description="range for x2, in widths")
    bottom: Range = Field((-0.05, 0.1), description="range for y2, in heights")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if any(low > high for low, high in self.ranges):
            raise ValueError("a range goes from its lower end to its upper one")
        return self

    @property
    def ranges(self) -> tuple[Range, Range, Range, Range]:
        """In the order of a box's corners: x1, y1, x2, y2."""
        return self.left, self.top, self.right, self.bottom


class BoxPooling(Section):
    """How tokens are pooled in boxes, what is learned of them, and how boxes are judged."""

    bins: int = Field(7, ge=1, le=64, description="of RoIAlign, along each side of a box")
    aligned: bool = Field(
        False,
        description="RoIAlign's half-cell shift; false: boxes are read half a cell too far to the "
        "right and below, as the official code does (mmaction2: true)",
    )
    inclusive: bool = Field(
        True, description="a box ends at its last pixel (AlphAction), not behind it (SlowFast)"
    )
    region: Literal["box", "frame"] = Field(
        "box",
        description="frame: the whole picture in place of each box, as a clip-level model would "
        "see it: what boxes are worth",
    )
    jitter: Jitter | None = Field(
        Jitter(), description="of boxes while training; null: none (SlowFast, mmaction2)"
    )
    most: int = Field(100, ge=1, description="boxes of a clip that are trained on, the first ones")
    loss: Literal["sum", "mean"] = Field(
        "sum",
        description="over the boxes of a micro-batch, averaged over micro-batches and devices "
        "(official), so that clips with many persons weigh more; mean: over all boxes of an "
        "update",
    )
    negatives: bool = Field(
        True,
        description="boxes without any action are learned as such (SlowFast); false: they leave "
        "the loss (mmaction2)",
    )
    dropout: Literal["features", "bins"] = Field(
        "features",
        description="where head.dropout is: behind the largest bin, or before it is taken "
        "(mmaction2)",
    )
    widen: tuple[Share, Share] = Field(
        (0.1, 0.05), description="boxes are pooled this much wider and higher when judged"
    )
    short: int | None = Field(
        None,
        ge=8,
        description="short side in pixels of clips when judged, which are shown whole; unset: 8/7 "
        "of data.size's (256 for 224)",
    )
    pad: bool = Field(
        False,
        description="clips are padded with zeros to whole patches when judged, as the official "
        "code does; false: the long side is resized to whole patches",
    )
    person_score: bool = Field(
        True,
        description="an action's score is multiplied by that of its person (VideoMAE; false: "
        "SlowFast, mmaction2, AlphAction)",
    )
    dialect: Literal["alphaction", "activitynet", "slowfast", "mmaction"] = Field(
        "alphaction", description="whose frame mAP; VideoMAE's numbers are alphaction's"
    )
