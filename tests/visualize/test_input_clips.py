"""Films of clips run as fast as their frames were clip."""

from __future__ import annotations

import numpy as np
import pytest

from maekit.contracts import Source, SourceInfo
from maekit.engine.build import build_model
from maekit.visualize.clips import ClipOptions, read_clip
from maekit.weights.header import Header


def dark(frames: int = 40, fps: float | None = 30.0) -> Source:
    """Film a video without light."""
    info = SourceInfo("dark.mp4", height=20, width=24, frames=frames, fps=fps, channels=3)
    return Source(info, lambda ids: np.zeros((len(ids), 20, 24, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "fps"),
    [
        (ClipOptions(stride=3), 30 / 3),
        (
            ClipOptions(stride=3, sampling="spread"),
            30 / (12 / 3),
        ),  # 12 frames from end to end of four
        (ClipOptions(sampling="segments"), 30 / (40 / 4)),
    ],
)
def test_a_film_keeps_time(options: ClipOptions, fps: float) -> None:
    backbone = {"name": "video-vit", "size": "tiny", "width": 32, "depth": 1, "heads": 2}
    header = Header(
        backbone=backbone | {"patch": (2, 8, 8)},
        clip=(4, 16, 24),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
    )
    clip = read_clip(dark(), 0, build_model(header), 3, options)
    assert clip.fps == pytest.approx(fps)
    assert clip.views[0].shape == (1, 3, 4, 16, 24)
