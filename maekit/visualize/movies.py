"""Pictures as files: of reconstructions, and of a training's steps with the film made of them.

Reconstructions are a PNG for pictures; MP4, GIF and a strip of frames (PNG) for videos. The same
pictures give the same bytes: one encoder thread, no dates.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maekit.atomic import write_bytes
from maekit.errors import StorageError
from maekit.visualize.panel import line, panel, stack

if TYPE_CHECKING:
    from maekit.visualize.reconstruct import Outcome

Item = TypeVar("Item")

_FRAME_RATES = (1.0, 60.0)  # slower and faster videos are shown at these
_GIF_TICK = 10  # milliseconds
_WHITE = 255
# With mbtree and weightp x264 gives other bytes for the same frames: of 40 films, each written five
# times, 6 differed; without them none.
_X264 = {"crf": "18", "x264-params": "mbtree=0:weightp=0"}

TIMELAPSE = "timelapse.gif"
MOST_FRAMES = 40
MOST_PIXELS = 500_000  # of a frame; larger pictures are made smaller
FRAME_MS, LAST_MS = 200, 2500
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_TYPE_SIZE, _LINE, _LEFT = 12, 20, 6
_STEP_PICTURE = re.compile(r"step-(\d+)\.png")


def save(outcome: Outcome, folder: Path, stem: str) -> Path:
    """Write an outcome's files and return the first: ``stem.png``, or ``stem.mp4`` of a video.

    Raises:
        StorageError: a file cannot be written.
    """
    try:
        if not outcome.moving:
            path = folder / f"{stem}.png"
            _sheet(outcome).save(path)
            return path
        frames = [_sheet(outcome, frame) for frame in range(outcome.frames)]
        path = folder / f"{stem}.mp4"
        write_mp4(frames, path, outcome.fps)
        write_gif(frames, folder / f"{stem}.gif", outcome.fps)
        _strip(outcome).save(folder / f"{stem}.png")
    except (OSError, av.FFmpegError) as error:
        msg = f"the picture could not be written: {error}"
        raise StorageError(msg, where=str(folder), hint="free some space, or --out DIR") from error
    return path


def _sheet(outcome: Outcome, frame: int | None = None) -> Image.Image:
    """Draw all rows, of one frame or of all."""
    rows = [
        [stage if frame is None else stage[frame] for stage in row.stages] for row in outcome.rows
    ]
    sheet = panel(rows, outcome.captions, labels=[row.label for row in outcome.rows])
    return stack([line(outcome.title, sheet.width), sheet])


def _strip(outcome: Outcome) -> Image.Image:
    """Draw every frame, side by side, the stages below each other."""
    sheets = []
    for row in outcome.rows:
        parts = [
            panel([[stage]], [caption], frames=outcome.frames)
            for stage, caption in zip(row.stages, outcome.captions, strict=True)
        ]
        sheets += [line(row.label, parts[0].width), *parts]
    return stack([line(outcome.title, sheets[0].width), *sheets])


def write_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Write frames as H.264.

    Raises:
        OSError, av.FFmpegError: the file cannot be written.
    """
    with closing(Mp4(path, frames[0].size, fps)) as film:
        for frame in frames:
            film.add(frame)


class Mp4:
    """H.264 that any player takes, frame by frame.

    Args:
        path: of the file.
        size: width and height of its frames; odd sides get one more white line.
        fps: frames a second.

    Raises:
        OSError, av.FFmpegError: the file cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self.width, self.height = (side + side % 2 for side in size)
        rate = Fraction(min(max(fps, _FRAME_RATES[0]), _FRAME_RATES[1])).limit_denominator(1001)
        options = {"fflags": "+bitexact"}
        self.container = av.open(f"file:{path}", "w", format="mp4", options=options)
        self.stream = self.container.add_stream("libx264", rate=rate, options=_X264)
        self.stream.width, self.stream.height = self.width, self.height
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.thread_count = 1

    def add(self, frame: Image.Image) -> None:
        """Add a frame; what is smaller stands on white, what is larger is cut."""
        pixels = np.full((self.height, self.width, 3), _WHITE, np.uint8)
        shown = np.asarray(frame)[: self.height, : self.width]
        pixels[: shown.shape[0], : shown.shape[1]] = shown
        packets = self.stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        self.container.mux(packets)

    def close(self) -> None:
        """Write what is left, and close the file."""
        with self.container:
            self.container.mux(self.stream.encode())


def write_gif(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Write a GIF that repeats for ever; all frames share the colors of the middle one.

    Raises:
        OSError: the file cannot be written.
    """
    # One palette, so that what stands still does not flicker.
    palette = frames[len(frames) // 2].quantize(256, dither=Image.Dither.NONE)
    first, *others = [frame.quantize(palette=palette) for frame in frames]
    span = 1000 / min(max(fps, _FRAME_RATES[0]), _FRAME_RATES[1])
    tick = max(2, round(span / _GIF_TICK)) * _GIF_TICK
    first.save(path, "GIF", save_all=True, append_images=others, duration=tick, loop=0)


def step_picture(step: int) -> str:
    """Name the file of a step's picture."""
    return f"step-{step:08d}.png"


def step_pictures(folder: Path) -> list[tuple[int, Path]]:
    """Find the steps of which there are pictures, in order; the folder need not exist."""
    matches = [(_STEP_PICTURE.fullmatch(path.name), path) for path in folder.glob("step-*.png")]
    return sorted((int(match[1]), path) for match, path in matches if match)


def open_picture(data: bytes) -> Image.Image | None:
    """Decode a file's bytes to RGB; None where they are damaged, or a picture of absurd size."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    # Pillow's errors of damaged files, and of pictures above twice its MAX_IMAGE_PIXELS.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def evenly(items: list[Item], most: int) -> list[Item]:
    """Choose at most so many, evenly spread, the first and the last included."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


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
        for step, path in evenly(step_pictures(folder), MOST_FRAMES)
        if (picture := open_picture(path.read_bytes())) is not None
    ]
    if len(frames) < 2:
        return None
    path = folder / TIMELAPSE
    write_bytes(path, _film(frames))
    return path


def _titled(picture: Image.Image, step: int) -> Image.Image:
    """Write the number of its step above a picture, and bound its size."""
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (picture.width * picture.height)))
    size = tuple(max(1, int(side * shrink)) for side in picture.size)
    small = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (small.width, small.height + _LINE), _PAPER)
    sheet.paste(small, (0, _LINE))
    font = ImageFont.load_default(_TYPE_SIZE)
    ImageDraw.Draw(sheet).text((_LEFT, 3), f"step {step:,}", fill=_INK, font=font)
    return sheet


def _film(frames: Sequence[Image.Image]) -> bytes:
    """Encode a GIF that begins again; all frames have the colors that the last one needs."""
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
