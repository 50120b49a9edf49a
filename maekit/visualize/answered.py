"""Draw what a classifier answers onto the picture, or the frames, that it was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maekit.visualize.panel import beside, panel, stack

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 224  # pixels, at least, of the longer side
COLUMNS, ROWS = 5, 4  # of a sheet
_LINE, _TYPE_SIZE, _GAP = 17, 12, 6
_SHADE, _BAR, _INK = (0, 0, 0, 150), (64, 140, 220, 210), (255, 255, 255, 255)
_PAPER = (255, 255, 255)
_LONGEST = 40  # characters of a name


class Line(NamedTuple):
    """One line of an answer: a class and its probability, or a value without a bar."""

    text: str
    number: float
    share: float | None


def answered(sample: np.ndarray, title: str, lines: Sequence[Line]) -> Iterator[Image.Image]:
    """Draw an answer onto a picture ``[H, W, C]``, or each frame of a clip ``[T, H, W, C]``.

    Args:
        sample: in [0, 1].
        title: is written above.
        lines: are written onto the lower end, each with a bar as long as its share.
    """
    for frame in sample if sample.ndim == 4 else sample[None]:
        tile = panel([[frame]], [title], side=SIDE)
        scale = max(1, -(-SIDE // max(frame.shape[:2])))
        height, width = frame.shape[0] * scale, frame.shape[1] * scale
        left, bottom = _GAP, tile.height - _GAP
        most = max(1, (height - _GAP) // _LINE)  # a low picture has room for few
        yield _over(tile, lines[:most], (left, bottom - height, left + width, bottom))


def _over(tile: Image.Image, lines: Sequence[Line], box: tuple[int, int, int, int]) -> Image.Image:
    left, _, right, bottom = box
    layer = Image.new("RGBA", tile.size, (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(layer), ImageFont.load_default(_TYPE_SIZE)
    top = bottom - _LINE * len(lines)
    if lines:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=_SHADE)
    for place, line in enumerate(lines):
        down = top + place * _LINE
        if line.share is not None:
            span = round((right - left - 1) * min(1.0, max(0.0, line.share)))
            pen.rectangle((left, down + 1, left + span, down + _LINE - 2), fill=_BAR)
        number = f"{line.number:.2f}" if line.share is not None else f"{line.number:.4g}"
        room = right - left - 2 * _GAP - font.getlength(number) - _GAP
        pen.text((left + _GAP, down + 1), _fitted(line.text, room, font), fill=_INK, font=font)
        pen.text((right - _GAP, down + 1), number, fill=_INK, font=font, anchor="ra")
    return Image.alpha_composite(tile.convert("RGBA"), layer).convert("RGB")


def _fitted(text: str, room: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    while len(text) > 1 and font.getlength(text) > room:
        text = f"{text[:-2]}…"
    return text


def laid_out(tiles: Sequence[Image.Image], columns: int = COLUMNS) -> Image.Image:
    """Lay tiles out in rows, each at the lower end of its place, on white."""
    wide, high = (max(each.size[axis] for each in tiles) for axis in (0, 1))
    rows = []
    for start in range(0, len(tiles), columns):
        row = [Image.new("RGB", (wide, high), _PAPER) for _ in tiles[start : start + columns]]
        for place, tile in zip(row, tiles[start:], strict=False):
            place.paste(tile, (0, high - tile.height))
        rows.append(beside(row))
    return stack(rows)
