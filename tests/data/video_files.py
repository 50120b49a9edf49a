"""Videos made for tests, and a decode of them that shares no code with maekit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image

av.logging.set_level(None)


def clip(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Film a square over a texture, uint8 ``[T, H, W, 3]``: no two frames are the same."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    shots = np.repeat(texture[None], frames, axis=0)
    for number, shot in enumerate(shots):
        top, left = (5 * number) % (height - 12), (3 * number) % (width - 12)
        shot[top : top + 12, left : left + 12] = (37 * number) % 256
        shot[:4] = number % 251
    return shots


@dataclass(frozen=True)
class Recipe:
    """How a video is encoded."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)
    frames: int = 60
    gaps: dict[int, int] = field(default_factory=dict)  # frame: ticks before it, more than one
    matrix: tuple[int, ...] | None = None  # to be shown by it
    rate: int = 25


def encode(path: Path, recipe: Recipe, shots: np.ndarray | None = None) -> Path:
    """Write a video; without ``shots``, of ``clip``."""
    shots = clip(recipe.frames) if shots is None else shots
    tick = 0
    with av.open(str(path), "w", options=recipe.container) as container:
        stream = container.add_stream(recipe.codec, rate=recipe.rate, options=recipe.options)
        stream.width, stream.height = shots.shape[2], shots.shape[1]
        stream.pix_fmt = recipe.pix_fmt
        stream.codec_context.thread_count = 1
        if recipe.matrix is not None:
            stream.set_display_matrix(recipe.matrix)
        for number, shot in enumerate(shots):
            frame = av.VideoFrame.from_ndarray(shot, format="rgb24")
            tick += 1 + recipe.gaps.get(number, 0)
            frame.pts, frame.time_base = tick, Fraction(1, recipe.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def without_a_gop(path: Path, cut: Path, number: int = 2) -> Path:
    """Remux without the packets from one keyframe to the next, as editors that do not encode."""
    with av.open(str(path)) as source, av.open(str(cut), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        gop = -1
        for packet in source.demux(video=0):
            gop += packet.is_keyframe
            if packet.dts is not None and gop != number:
                packet.stream = stream
                container.mux(packet)
    return cut


def exif_video(path: Path, orientation: int, frames: int = 5) -> Path:
    """JPEGs with EXIF as they are, in a container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, shot in enumerate(clip(frames)):
            exif = Image.Exif()
            exif[0x0112], exif[0x010F] = orientation, "maker"
            file = BytesIO()
            Image.fromarray(shot).save(file, "jpeg", exif=exif, subsampling=2)
            packet = av.Packet(file.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return path


def plain_frames(path: Path) -> list[av.VideoFrame]:
    """All frames that PyAV gives from the first on, until it ends or fails."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        with suppress(av.FFmpegError):  # what came before is what there is
            frames.extend(container.decode(stream))
    return frames


def pixels_of(frame: av.VideoFrame) -> np.ndarray:
    """``[H, W, C]``, upright."""
    gray = frame.format.name.startswith(("gray", "mono"))
    pixels = frame.to_ndarray(format="gray" if gray else "rgb24")
    return np.rot90(pixels.reshape(*pixels.shape[:2], -1), round(frame.rotation / 90))


def plain_decode(path: Path) -> list[np.ndarray]:
    """Return the pixels of all frames of a plain decode."""
    return [pixels_of(frame) for frame in plain_frames(path)]
