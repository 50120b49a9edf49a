"""Films of clips run as fast as their frames were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from maekit.engine.build import build_model
from maekit.visualize.reading import Clips, take
from maekit.weights.header import Header


@dataclass
class Dark:
    """A video without light."""

    frames: int = 40
    fps: float | None = 30.0
    height: int = 20
    width: int = 24
    channels: int = 3
    dtype: str = "uint8"
    label: int | None = None
    id: str = "dark.mp4"
    crops: bool = False

    def read(self, frame_ids: Sequence[int], box: object = None, size: object = None) -> np.ndarray:
        return np.zeros((len(frame_ids), self.height, self.width, 3), np.uint8)


@pytest.mark.parametrize(
    ("clips", "fps"),
    [
        (Clips(stride=3), 30 / 3),
        (Clips(stride=3, sampling="spread"), 30 / (12 / 3)),  # 12 frames from end to end of four
        (Clips(sampling="segments"), 30 / (40 / 4)),
    ],
)
def test_a_film_keeps_time(clips: Clips, fps: float) -> None:
    backbone = {"name": "video-vit", "size": "tiny", "width": 32, "depth": 1, "heads": 2}
    header = Header(
        backbone=backbone | {"patch": (2, 8, 8)},
        clip=(4, 16, 24),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
    )
    taken = take(Dark(), 0, build_model(header), 3, clips)
    assert taken.fps == pytest.approx(fps)
    assert taken.views[0].shape == (1, 3, 4, 16, 24)
