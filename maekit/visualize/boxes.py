"""Films with boxes drawn in them, and what is done in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maekit.text import printable

if TYPE_CHECKING:
    from maekit.data.video import OpenVideo

_LEAST_SIDE = 320  # pixels of the shorter side: smaller films are shown larger, so words are read
_AT_ONCE = 16  # frames decoded together
_TYPE_SHARE, _LEAST_TYPE = 22, 13  # of the height, and pixels
_DARK, _WHITE = (20, 20, 20), (255, 255, 255)
# Told apart by people who see colors differently (Okabe and Ito), the lighter ones.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 200, 140), (240, 228, 66), (255, 120, 60))


class Shown(NamedTuple):
    """One box: its corners as fractions, and the lines beside it."""

    corners: tuple[float, float, float, float]
    lines: tuple[str, ...]


class Scene(NamedTuple):
    """The boxes of a film at a second."""

    second: float
    boxes: tuple[Shown, ...]


def drawn_film(video: OpenVideo, scenes: Sequence[Scene]) -> Iterator[Image.Image]:
    """Yield all frames of a film, each with the boxes of the moment that is nearest to it.

    Raises:
        DataError: a frame is broken.
    """
    times = video.seconds
    moments = np.array([scene.second for scene in scenes])
    for first in range(0, len(times), _AT_ONCE):
        ids = range(first, min(first + _AT_ONCE, len(times)))
        for number, frame in zip(ids, video.decode(ids), strict=True):
            nearest = scenes[int(np.abs(moments - times[number]).argmin())] if scenes else None
            yield drawn(frame, () if nearest is None else nearest.boxes)


def drawn(frame: np.ndarray, boxes: Sequence[Shown]) -> Image.Image:
    """Draw boxes into a frame, uint8 ``[H, W, C]``; a small one is shown larger."""
    image = Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame).convert("RGB")
    times = max(1, -(-_LEAST_SIDE // min(image.size)))
    if times > 1:
        size = (image.width * times, image.height * times)
        image = image.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(_LEAST_TYPE, image.height // _TYPE_SHARE))
    thick = max(2, image.height // 160)
    taken: list[tuple[float, float, float, float]] = []
    for number, box in enumerate(boxes):
        color = _COLORS[number % len(_COLORS)]
        x1, y1, x2, y2 = np.array(box.corners) * np.tile(image.size, 2)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=thick)
    for number, box in enumerate(boxes):
        corners = tuple((np.array(box.corners) * np.tile(image.size, 2)).tolist())
        _words(pen, box.lines, corners, image.size, font, _COLORS[number % len(_COLORS)], taken)
    return image


def _words(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    corners: Sequence[float],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    color: tuple[int, int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write lines on a dark ground: above a box, below or beside it, or in it.

    The first of these is taken where other words left room, within the picture.
    """
    if not lines:
        return
    text = "\n".join(printable(line, lines=False) for line in lines)
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font, spacing=2)
    width, height = right - left + 8, bottom - top + 6
    x1, y1, x2, y2 = corners
    along, down = size[0] - width, size[1] - height  # the furthest that words may begin
    x = max(0.0, min(x1, along))
    beside = max(0.0, min(y1, down))
    inside = [(x, y1 + 2), (x, y2 - height - 2)]
    places = [(x, y1 - height), (x, y2), (x2, beside), (x1 - width, beside), *inside]
    seen = [(x, y) for x, y in places if 0 <= x <= max(0.0, along) and 0 <= y <= down]
    seen = seen or [(x, 0.0)]
    free = [(x, y) for x, y in seen if not _meets((x, y, x + width, y + height), taken)]
    x, y = (free or seen)[0]
    taken.append((x, y, x + width, y + height))
    pen.rectangle((x, y, x + width, y + height), fill=_DARK)
    pen.rectangle((x, y, x + 3, y + height), fill=color)
    pen.multiline_text((x + 6 - left, y + 3 - top), text, fill=_WHITE, font=font, spacing=2)


def _meets(
    place: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]
) -> bool:
    x1, y1, x2, y2 = place
    return any(
        x1 < right and left < x2 and y1 < low and high < y2 for left, high, right, low in taken
    )
