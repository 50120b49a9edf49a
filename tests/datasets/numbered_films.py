"""Films with the number of each frame painted in, and the number read back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, CELL = 10, 8
_TICK = Fraction(1, 90_000)


def painted(number: int) -> np.ndarray:
    """Paint a number as black and white cells, uint8 ``[16, 80, 3]``; the second row is inverse."""
    bits = (number >> np.arange(BITS)) & 1
    cells = np.stack([bits, 1 - bits]).repeat(CELL, 0).repeat(CELL, 1) * 255
    return np.repeat(cells[:, :, None], 3, axis=2).astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Read the number that is painted in a frame."""
    cells = frame[:, :, 0].reshape(2, CELL, BITS, CELL).mean(axis=(1, 3)) > 128
    assert (cells[0] != cells[1]).all()
    return int((cells[0] << np.arange(BITS)).sum())


def film(path: Path, times: np.ndarray, first: int = 0) -> Path:
    """Write a film whose frames are shown at these times, in seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = BITS * CELL, 2 * CELL, "yuv420p"
        stream.codec_context.time_base = stream.time_base = _TICK
        stream.codec_context.thread_count = 1
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(painted(first + number), format="rgb24")
            frame.pts, frame.time_base = round(float(time) / _TICK), _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def at_rate(rate: float | Fraction, seconds: float, start: float = 0.0) -> np.ndarray:
    """Return the times of the frames of a film of one rate."""
    return start + np.arange(int(seconds * rate)) / float(rate)


def filtered(path: Path, rate: int) -> list[int]:
    """Return the numbers of the frames that FFmpeg's filter ``fps`` gives, from the first one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream, time_base=stream.time_base)
        change, sink = graph.add("fps", f"fps={rate}"), graph.add("buffersink")
        source.link_to(change)
        change.link_to(sink)
        graph.configure()
        found, start = [], None

        def drain() -> None:
            while True:
                try:
                    shown = graph.pull()
                except (av.BlockingIOError, av.EOFError):
                    return
                found.append(number_of(shown.to_ndarray(format="rgb24")))

        for frame in container.decode(video=0):
            start = frame.pts if start is None else start
            frame.pts -= start
            graph.push(frame)
            drain()
        graph.push(None)
        drain()
    return found


def rounded(times: np.ndarray, rate: int) -> list[int]:
    """Return what the filter ``fps`` is documented to give: times rounded to the nearest place.

    Each place shows the last frame that has come by then.
    """
    places = np.floor((times - times[0]) * rate + 0.5 + 1e-9).astype(int)
    return [int(np.flatnonzero(places <= place)[-1]) for place in range(places[-1] + 1)]
