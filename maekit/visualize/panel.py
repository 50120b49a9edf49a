"""A picture of pictures: one row a sample, one captioned column a stage of the reconstruction.

Numpy and Pillow only. Pixels are floats in [0, 1]; hidden is bool ``[t, h, w]``, True = hidden;
patch is ``(pt, ph, pw)`` pixels a token. Values outside [0, 1] are clipped, values that are not
finite are shown in magenta, so that they are seen.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_GAP = 6  # pixels between cells
_FRAME_GAP = 2  # pixels between the frames of one clip
_HATCH = (0.47, 0.53)  # the two grays of what is hidden
_NOT_FINITE = (1.0, 0.0, 1.0)
_COLORS = 3
_IMAGE_DIMENSIONS = 3  # [H, W, C]; a clip has one more
_TYPE_SIZE = 12
_LINE_HEIGHT = 15


def paste(
    original: np.ndarray, painted: np.ndarray, hidden: np.ndarray, patch: tuple[int, int, int]
) -> np.ndarray:
    """Take the painted pixels where hidden, and the original ones elsewhere.

    Args:
        original: ``[T, H, W, C]``.
        painted: of the same shape.
        hidden: bool ``[t, h, w]``.
        patch: pixels a token.

    Returns:
        ``[T, H, W, C]``.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if painted.shape != original.shape:
        message = f"painted is {list(painted.shape)}, original {list(original.shape)}"
        raise ValueError(message)
    return np.where(over_pixels(hidden, patch, original)[..., None], painted, original)


def masked(original: np.ndarray, hidden: np.ndarray, patch: tuple[int, int, int]) -> np.ndarray:
    """Show the visible pixels of ``[T, H, W, C]``, with gray hatching where hidden.

    Raises:
        ValueError: if ``hidden`` and ``patch`` do not make up the clip.
    """
    _, height, width, _ = original.shape
    # Whole periods a patch, so that the hatching of neighbors joins.
    period = max(2, min(patch[1:]) // 2)
    diagonal = (np.arange(height)[:, None] + np.arange(width)[None, :]) % period
    gray = np.where(2 * diagonal < period, *_HATCH).astype(original.dtype)
    cover = np.broadcast_to(gray[None, :, :, None], original.shape)
    return paste(original, cover, hidden, patch)


def over_pixels(hidden: np.ndarray, patch: tuple[int, int, int], clip: np.ndarray) -> np.ndarray:
    """Spread tokens ``[t, h, w]`` over the pixels of a clip ``[T, H, W, C]``: bool ``[T, H, W]``.

    Raises:
        ValueError: if ``hidden`` and ``patch`` do not make up the clip.
    """
    spread = hidden
    for axis, step in enumerate(patch):
        spread = spread.repeat(step, axis=axis)
    if spread.shape != clip.shape[:3]:
        message = (
            f"a mask of {list(hidden.shape)} patches of {list(patch)} pixels "
            f"does not cover a clip of {list(clip.shape[:3])}"
        )
        raise ValueError(message)
    return spread


def panel(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    side: int = 192,
    frames: int = 3,
    labels: Sequence[str] = (),
) -> Image.Image:
    """Lay samples out in a table.

    Args:
        rows: per sample one picture a column, ``[H, W, C]`` or a clip ``[T, H, W, C]``. One or two
            channels are shown in gray (the first), more by their first three as red, green, blue.
        captions: one a column, above the first row's pictures, wrapped to the column's width.
        side: pictures whose longer side is shorter are enlarged by a whole factor, without
            smoothing, to at least this many pixels; the frames of a clip to two thirds of it.
        frames: at most this many frames of a clip, evenly spaced, stand side by side.
        labels: one a row, written above it and wrapped to the sheet's width.

    Raises:
        ValueError: if there is nothing to show, or rows, captions and labels do not fit together.
    """
    if not rows or not captions:
        message = "a panel needs at least one row and one column"
        raise ValueError(message)
    if any(len(row) != len(captions) for row in rows):
        message = f"rows of {[len(row) for row in rows]} pictures under {len(captions)} captions"
        raise ValueError(message)
    if labels and len(labels) != len(rows):
        message = f"{len(rows)} rows with {len(labels)} labels"
        raise ValueError(message)
    cells = [[_cell(picture, side, frames) for picture in row] for row in rows]
    widths = [max(cell.width for cell in column) for column in zip(*cells, strict=True)]
    heights = [max(cell.height for cell in row) for row in cells]
    headings = [heading(text, width) for text, width in zip(captions, widths, strict=True)]
    widths = [max(width, text.width) for width, text in zip(widths, headings, strict=True)]
    top = max(text.height for text in headings)
    lefts = [_GAP, *(_GAP + end for end in accumulate(width + _GAP for width in widths))]
    lines = [heading(text, lefts[-1] - 2 * _GAP) for text in labels]
    above = [line.height for line in lines] or [0] * len(rows)
    above[0] += top  # captions are next to the pictures, below the first label
    spans = [high + height + _GAP for high, height in zip(above, heights, strict=True)]
    tops = [0, *accumulate(spans)]
    sheet = Image.new("RGB", (lefts[-1], tops[-1]), _PAPER)
    for text, left in zip(headings, lefts, strict=False):
        sheet.paste(text, (left, above[0] - text.height))
    for line, down in zip(lines, tops, strict=False):
        sheet.paste(line, (_GAP, down))
    for row, down, high in zip(cells, tops, above, strict=False):
        for cell, left in zip(row, lefts, strict=False):
            sheet.paste(cell, (left, down + high))
    return sheet


def line(text: str, width: int) -> Image.Image:
    """Draw a label as wide as a sheet, where a panel would write it."""
    written = heading(text, width - 2 * _GAP)
    label = Image.new("RGB", (width, written.height), _PAPER)
    label.paste(written, (_GAP, 0))
    return label


def stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Put sheets below each other, at the left."""
    width, height = max(each.width for each in sheets), sum(each.height for each in sheets)
    whole = Image.new("RGB", (width, height), _PAPER)
    down = 0
    for each in sheets:
        whole.paste(each, (0, down))
        down += each.height
    return whole


def beside(sheets: Sequence[Image.Image]) -> Image.Image:
    """Put sheets side by side, at the top."""
    width, height = sum(each.width for each in sheets), max(each.height for each in sheets)
    whole = Image.new("RGB", (width, height), _PAPER)
    left = 0
    for each in sheets:
        whole.paste(each, (left, 0))
        left += each.width
    return whole


def _cell(picture: np.ndarray, side: int, frames: int) -> Image.Image:
    """Draw one picture, or a strip of frames, enlarged."""
    clip = picture[None] if picture.ndim == _IMAGE_DIMENSIONS else picture
    chosen = np.linspace(0, len(clip) - 1, min(frames, len(clip))).round().astype(int)
    least = side if len(clip) == 1 else side * 2 // 3
    factor = max(1, math.ceil(least / max(clip.shape[1:3])))
    shown = [_image(clip[index]) for index in chosen]
    height, width = clip.shape[1] * factor, clip.shape[2] * factor
    strip = Image.new("RGB", (len(shown) * (width + _FRAME_GAP) - _FRAME_GAP, height), _PAPER)
    for place, image in enumerate(shown):
        enlarged = image.resize((width, height), Image.Resampling.NEAREST)
        strip.paste(enlarged, (place * (width + _FRAME_GAP), 0))
    return strip


def _image(frame: np.ndarray) -> Image.Image:
    """Turn ``[H, W, C]`` in [0, 1] into an RGB image."""
    channels = [0, 1, 2] if frame.shape[-1] >= _COLORS else [0, 0, 0]
    colors = frame[..., channels]
    finite = np.isfinite(colors).all(axis=-1, keepdims=True)
    colors = np.where(finite, np.clip(colors, 0, 1), _NOT_FINITE)
    return Image.fromarray((colors * 255).round().astype(np.uint8))


def heading(text: str, width: int) -> Image.Image:
    """Draw text in small type, broken between words to ``width`` pixels where they allow it."""
    font = ImageFont.load_default(_TYPE_SIZE)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    across = math.ceil(max((font.getlength(line) for line in lines), default=1))
    label = Image.new("RGB", (across, len(lines) * _LINE_HEIGHT + 2 * _GAP), _PAPER)
    pen = ImageDraw.Draw(label)
    for index, line in enumerate(lines):
        pen.text((0, _GAP + index * _LINE_HEIGHT), line, fill=_INK, font=font)
    return label
