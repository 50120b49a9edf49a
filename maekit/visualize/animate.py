"""Reconstructions as files: PNG for pictures; MP4, GIF and a strip of frames (PNG) for videos.

The same pictures give the same bytes: one encoder thread, no dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image

from maekit.errors import StorageError
from maekit.visualize.panel import line, panel, stack

if TYPE_CHECKING:
    from pathlib import Path

    from maekit.visualize.reconstruct import Outcome

_FRAME_RATES = (1.0, 60.0)  # what is slower or faster is shown at these
_GIF_TICK = 10  # milliseconds
_WHITE = 255
# With mbtree and weightp x264 gives other bytes for the same frames: of 40 films, each written five
# times, 6 differed; without them none.
_X264 = {"crf": "18", "x264-params": "mbtree=0:weightp=0"}


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
    """All rows, of one frame or of all."""
    rows = [
        [stage if frame is None else stage[frame] for stage in row.stages] for row in outcome.rows
    ]
    return panel(rows, outcome.captions, labels=[row.label for row in outcome.rows])


def _strip(outcome: Outcome) -> Image.Image:
    """Every frame, side by side, the stages below each other."""
    sheets = []
    for row in outcome.rows:
        parts = [
            panel([[stage]], [caption], frames=outcome.frames)
            for stage, caption in zip(row.stages, outcome.captions, strict=True)
        ]
        sheets += [line(row.label, parts[0].width), *parts]
    return stack(sheets)


def write_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Write H.264 that any player takes; sides that are odd get a white line more.

    Raises:
        OSError, av.FFmpegError: the file cannot be written.
    """
    height, width = (side + side % 2 for side in frames[0].size[::-1])
    rate = Fraction(min(max(fps, _FRAME_RATES[0]), _FRAME_RATES[1])).limit_denominator(1001)
    with av.open(f"file:{path}", "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            pixels = np.full((height, width, 3), _WHITE, np.uint8)
            pixels[: frame.height, : frame.width] = np.asarray(frame)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


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
