"""``sample-videos``: labeled clips that maekit draws itself, so that a first run needs no data.

They are real MP4 files; the label is how things move, which no single frame tells.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import av
import numpy as np
from pydantic import Field

from maekit.datasets.drawing.motion import MOTIONS, VERSION, Moving, draw_clip
from maekit.datasets.samples import Drawing, SampleOptions, Samples
from maekit.datasets.videos import Videos

if TYPE_CHECKING:
    from pathlib import Path

Codec = Literal["libx264", "mpeg4"]

_COUNTS = {"train": 400, "val": 64}
_RATE = 12  # frames per second: at the default 24 frames, two seconds
# x264's macroblock tree and weighted prediction make about 1 clip in 50 differ from run to run at
# this size, on one thread too; without them 1280 of 1280 came out the same.
_X264 = {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0:weightp=0"}
_MPEG4 = {"qmin": "2", "qmax": "3"}  # for builds of FFmpeg without x264


class SampleVideos(Samples):
    """Clips of eight motions, of an object or of the camera, drawn on first use and kept."""

    class Options(SampleOptions):
        """Number and size of the clips."""

        count: int | None = Field(
            None,
            ge=len(MOTIONS),
            le=100_000,
            description="clips, evenly over the classes; unset: 400 to train, 64 to validate",
        )
        size: int = Field(64, ge=32, le=512, multiple_of=2, description="pixels a side")
        length: int = Field(24, ge=2, le=1000, description="frames a clip, 12 a second")
        moving: Moving = Field(
            "either", description="what moves: the camera, an object, or either by chance"
        )

    def __init__(self, options: Options) -> None:
        codec, settings = encoder()

        def write(file: Path, motion: str, rng: np.random.Generator) -> None:
            clip = draw_clip(motion, options.length, options.size, rng, options.moving)
            file.write_bytes(encode(clip, codec, settings))

        drawing = Drawing(
            name="sample-videos",
            noun="videos",
            classes=sorted(MOTIONS),
            count=options.count or _COUNTS[options.split],
            content=[
                VERSION,
                codec,
                settings,
                options.size,
                options.length,
                *([options.moving] if options.moving != "either" else []),  # names of older caches
            ],
            suffix=".mp4",
            write=write,
        )
        super().__init__(
            options, drawing, lambda folder: Videos(Videos.Options(path=folder, labels="folder"))
        )


def encoder() -> tuple[Codec, dict[str, str]]:
    """Return the encoder's name and settings: H.264 wherever FFmpeg has it."""
    if "libx264" in av.codecs_available:
        return "libx264", _X264
    return "mpeg4", _MPEG4


def encode(clip: np.ndarray, codec: Codec, settings: dict[str, str], rate: int = _RATE) -> bytes:
    """Encode a clip, uint8 ``[T, H, W, 3]``, as MP4; the same clip gives the same bytes."""
    file = io.BytesIO()
    # bitexact: no date and no version of the library in the file.
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=rate, options=settings)
        stream.width, stream.height = clip.shape[2], clip.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # x264's bytes depend on the number of threads
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
