"""Small videos, and a data set that hangs in a worker; importable by loader workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maekit.datasets.videos import Videos

if TYPE_CHECKING:
    from maekit.contracts import Source


def motions(path: Path, frames: int) -> None:
    """Write a video, 48x64 at 25 frames a second, in which no two frames are the same."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    shots = np.zeros((frames, 48, 64, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, shot in enumerate(shots):
            shot[:, number : number + 8] = 40 + 5 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
        container.mux(stream.encode(None))


class HangingVideos(Videos):
    """Hangs in the file that is called so, as a decoder may."""

    def open(self, index: int) -> Source:
        if Path(self.name(index)).name == "hang.mp4":
            time.sleep(600)
        return super().open(index)
