"""The reconstructions of a run, as the page embeds them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from maekit.visualize.step_pictures import evenly, open_picture, steps_on_disk

MOST = 24  # pictures a run, evenly chosen, the first and the last included
LARGEST_KEPT = 400_000  # bytes of a PNG that is embedded as it is; larger ones become JPEG
_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A picture of one step, as a ``data:`` address."""

    step: int
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Pictures:
    """What is shown of a run's pictures.

    Attributes:
        found: how many there are on disk.
        recoded: whether some were made smaller by JPEG.
        broken: names of those that could not be read.
    """

    shown: list[Picture]
    found: int
    recoded: bool
    broken: list[str]


def read_pictures(folder: Path) -> Pictures:
    """Read what is shown of ``pictures/``; the folder need not be there."""
    found = steps_on_disk(folder)
    shown: list[Picture] = []
    broken: list[str] = []
    recoded = False
    for step, path in evenly(found, MOST):
        data = path.read_bytes()
        pixels = open_picture(data)
        if pixels is None:
            broken.append(path.name)
            continue
        kind = "png"
        if len(data) > LARGEST_KEPT:
            buffer = io.BytesIO()
            pixels.save(buffer, "JPEG", quality=_QUALITY)
            data, kind, recoded = buffer.getvalue(), "jpeg", True
        address = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
        shown.append(Picture(step, address, *pixels.size))
    return Pictures(shown, len(found), recoded, broken)
