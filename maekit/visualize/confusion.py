"""Pictures of judged samples: which classes are taken for which, and a sheet of some samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maekit.visualize.answered import laid_out
from maekit.visualize.panel import panel

# Files in a run's folder that tell of predicted labels.
CLASSES, MISTAKES = "classes.csv", "mistakes.png"
CURVES, KEY_FRAMES = "curves.png", "key_frames.png"  # of actions in boxes
CONFUSION, CONFUSION_PICTURE = "confusion.csv", "confusion.png"
MOST_CONFUSED = 1000  # classes: the matrix of more is of hundreds of megabytes, and illegible
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_FULL = np.array([8.0, 48.0, 107.0])  # the color of all samples of a class
_NAMED = 40  # classes whose names and counts are legible
_CELL, _SIDE = 34, 900  # pixels: of a cell, and of the whole where there are many classes
_TYPE_SIZE = 12
_LONGEST = 24  # characters of a name
_GAP = 6
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_TILE = 160  # pixels, at least, of the longer side of a sample


def confusion_picture(counts: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix: a row for each true class, a column for what it was taken for.

    Cells are shaded by their share of the row; up to 40 classes have names and counts.

    Args:
        counts: int ``[K, K]``.
        names: of the K classes; at most 1,000, a pixel each.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(names) <= _NAMED
    cell = _CELL if few else max(1, _SIDE // len(names))
    colors = 255 + (_FULL - 255) * share[..., None]
    cells = np.repeat(np.repeat(colors.round().astype(np.uint8), cell, 0), cell, 1)
    if not few:
        return Image.fromarray(cells)
    font = ImageFont.load_default(_TYPE_SIZE)
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    margin = int(max(font.getlength(name) for name in short)) + 2 * _GAP
    side = cell * len(names)
    whole = Image.new("RGB", (margin + side + _GAP, margin + side + _GAP), _PAPER)
    whole.paste(Image.fromarray(cells), (margin, margin))
    pen = ImageDraw.Draw(whole)
    for place, name in enumerate(short):
        middle = margin + place * cell + cell // 2
        pen.text((margin - _GAP, middle), name, fill=_INK, font=font, anchor="rm")
        _upright(whole, name, middle, margin - _GAP, font)
    for row, column in np.argwhere(counts > 0).tolist():
        ink = _PAPER if share[row, column] > 0.5 else _INK
        where = (margin + column * cell + cell // 2, margin + row * cell + cell // 2)
        pen.text(where, f"{counts[row, column]}", fill=ink, font=font, anchor="mm")
    return whole


def _upright(whole: Image.Image, name: str, middle: int, bottom: int, font: Font) -> None:
    """Write a name that is read from below, centered at ``middle``."""
    length = int(font.getlength(name)) + 1
    label = Image.new("RGB", (length, _TYPE_SIZE + 4), _PAPER)
    ImageDraw.Draw(label).text((0, 0), name, fill=_INK, font=font)
    turned = label.rotate(90, expand=True)
    whole.paste(turned, (middle - turned.width // 2, bottom - turned.height))


def contact_sheet(
    samples: Sequence[np.ndarray], captions: Sequence[str], columns: int = 5
) -> Image.Image:
    """Lay samples out in rows, each with its caption above.

    Args:
        samples: pictures ``[H, W, C]`` or clips ``[T, H, W, C]``, in [0, 1]; at least one.
        captions: one each.
        columns: samples side by side.
    """
    tiles = [
        panel([[sample]], [caption], side=_TILE)
        for sample, caption in zip(samples, captions, strict=True)
    ]
    return laid_out(tiles, columns)
