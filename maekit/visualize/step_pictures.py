"""The pictures that a training left in ``pictures/``, one a step."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TypeVar

from PIL import Image

Item = TypeVar("Item")

_NAME = re.compile(r"step-(\d+)\.png")


def name_of(step: int) -> str:
    """The file of a step."""
    return f"step-{step:08d}.png"


def steps_on_disk(folder: Path) -> list[tuple[int, Path]]:
    """Steps and files, in order; the folder need not be there."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.png")]
    return sorted((int(match[1]), path) for match, path in matches if match)


def open_picture(data: bytes) -> Image.Image | None:
    """A file's bytes as RGB; None where they are no whole picture, or one of absurd size."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    # Pillow's errors of damaged files, and of pictures above twice its MAX_IMAGE_PIXELS.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def evenly(items: list[Item], most: int) -> list[Item]:
    """At most so many of them, evenly spread, the first and the last included."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
