"""A film of a training: the pictures of its steps, one after the other."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from maekit.atomic import write_bytes
from maekit.visualize.step_pictures import evenly, open_picture, steps_on_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "timelapse.gif"
MOST_FRAMES = 40
MOST_PIXELS = 500_000  # of a frame; larger pictures are made smaller
FRAME_MS, LAST_MS = 200, 2500
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_TYPE_SIZE, _LINE, _LEFT = 12, 20, 6


def write_timelapse(folder: Path) -> Path | None:
    """Write ``timelapse.gif`` of the ``step-*.png`` of a folder, those of earlier sessions too.

    At most 40 steps are shown, evenly chosen, the first and the last included; the last one stays
    longer. Pictures that cannot be read are left out.

    Returns:
        The file; None where there are fewer than two pictures to show.

    Raises:
        OSError: the file cannot be written.
    """
    frames = [
        _titled(picture, step)
        for step, path in evenly(steps_on_disk(folder), MOST_FRAMES)
        if (picture := open_picture(path.read_bytes())) is not None
    ]
    if len(frames) < 2:
        return None
    path = folder / NAME
    write_bytes(path, _film(frames))
    return path


def _titled(picture: Image.Image, step: int) -> Image.Image:
    """A picture of bounded size under the number of its step."""
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (picture.width * picture.height)))
    size = tuple(max(1, int(side * shrink)) for side in picture.size)
    small = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (small.width, small.height + _LINE), _PAPER)
    sheet.paste(small, (0, _LINE))
    font = ImageFont.load_default(_TYPE_SIZE)
    ImageDraw.Draw(sheet).text((_LEFT, 3), f"step {step:,}", fill=_INK, font=font)
    return sheet


def _film(frames: Sequence[Image.Image]) -> bytes:
    """Frames as a GIF that begins again; all have the colors that the last one needs."""
    width, height = (max(frame.size[axis] for frame in frames) for axis in (0, 1))
    palette = frames[-1].quantize(256)
    film = []
    for frame in frames:
        sheet = Image.new("RGB", (width, height), _PAPER)  # a resumed run may draw other samples
        sheet.paste(frame, (0, 0))
        film.append(sheet.quantize(palette=palette, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    film[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=film[1:],
        duration=[FRAME_MS] * (len(film) - 1) + [LAST_MS],
        loop=0,
    )
    return buffer.getvalue()
