"""``sample-images``: labeled pictures that maekit draws itself, so that a first run needs no data.

They are real JPEG files; the label is the kind of the main object in each scene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image
from pydantic import Field

from maekit.datasets.drawing.scenes import KINDS, VERSION, draw
from maekit.datasets.images import Images
from maekit.datasets.samples import Drawing, SampleOptions, Samples

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

_COUNTS = {"train": 2000, "val": 256}
_QUALITY = 92


class SampleImages(Samples):
    """Scenes of twelve kinds of objects, drawn on first use and kept."""

    class Options(SampleOptions):
        """Number and size of the pictures."""

        count: int | None = Field(
            None,
            ge=len(KINDS),
            le=100_000,
            description="pictures, evenly over the classes; unset: 2000 to train, 256 to validate",
        )
        size: int = Field(96, ge=32, le=512, description="pixels a side")

    def __init__(self, options: Options) -> None:
        def write(file: Path, kind: str, rng: np.random.Generator) -> None:
            picture = Image.fromarray(draw(kind, options.size, rng))
            picture.save(file, quality=_QUALITY, subsampling=0)

        drawing = Drawing(
            name="sample-images",
            noun="pictures",
            classes=sorted(KINDS),
            count=options.count or _COUNTS[options.split],
            content=[VERSION, _QUALITY, options.size],
            suffix=".jpg",
            write=write,
        )
        super().__init__(
            options, drawing, lambda folder: Images(Images.Options(path=folder, labels="folder"))
        )
