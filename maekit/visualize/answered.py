"""Draw what a classifier answers below the picture, or the frames, that it was asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maekit.visualize.panel import beside, panel, stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

SIDE = 224  # pixels, at least, of the longer side
COLUMNS, ROWS = 5, 4  # of a sheet
_LINE, _TYPE_SIZE, _GAP = 17, 12, 6
_TITLE_LINE = 15
_PAPER, _DARK = (255, 255, 255), (28, 28, 28)
_SHADE, _BAR, _INK = (40, 40, 40), (38, 104, 178), (255, 255, 255)
_LONGEST = 40  # characters of a name


class Line(NamedTuple):
    """One line of an answer: a class and its probability, a value without a bar, or a word."""

    text: str
    number: float | None
    share: float | None


def answered(
    sample: np.ndarray, titles: Sequence[str], lines: Sequence[Line], room: int
) -> Iterator[Image.Image]:
    """Draw an answer below a picture ``[H, W, C]``, or each frame of a clip ``[T, H, W, C]``.

    The size of what is drawn depends on that of the picture and on how many lines there are room
    for, not on the texts, so that all frames of a film have the same.

    Args:
        sample: in [0, 1].
        titles: are written above, a line each.
        lines: each with a bar as long as its share.
        room: the number of lines that there is room for.
    """
    for frame in sample if sample.ndim == 4 else sample[None]:
        picture = panel([[frame]], [""], side=SIDE)
        above = _GAP + _TITLE_LINE * len(titles)
        tile = Image.new("RGB", (picture.width, above + picture.height + _LINE * room), _PAPER)
        tile.paste(picture, (0, above - _GAP))  # which has a margin
        pen, font = ImageDraw.Draw(tile), ImageFont.load_default(_TYPE_SIZE)
        for place, title in enumerate(titles):
            text = _fitted(title, tile.width - 2 * _GAP, font, len(title))
            pen.text((_GAP, _GAP + place * _TITLE_LINE), text, fill=_SHADE, font=font)
        top = tile.height - _GAP - _LINE * room
        if room:
            pen.rectangle((_GAP, top, tile.width - _GAP - 1, tile.height - _GAP - 1), fill=_DARK)
        for place, line in enumerate(lines[:room]):
            _write(pen, font, line, (_GAP, top + place * _LINE, tile.width - _GAP))
        yield tile


def _write(pen: ImageDraw.ImageDraw, font: Font, line: Line, place: tuple[int, int, int]) -> None:
    """Write a line between two sides, at a height."""
    left, down, right = place
    if line.share is not None:
        span = round((right - left - 1) * min(1.0, max(0.0, line.share)))
        pen.rectangle((left, down + 1, left + span, down + _LINE - 2), fill=_BAR)
    number = "" if line.number is None else f"{line.number:.4g}"
    if line.share is not None and line.number is not None:
        number = f"{line.number:.2f}"
    room = right - left - 2 * _GAP - font.getlength(number) - _GAP
    text = _fitted(line.text, room, font, _LONGEST)
    pen.text((left + _GAP, down + 1), text, fill=_INK, font=font)
    pen.text((right - _GAP, down + 1), number, fill=_INK, font=font, anchor="ra")


def _fitted(text: str, room: float, font: Font, longest: int) -> str:
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
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
