"""Answers below pictures: legible whatever the picture, and of one size in a film."""

from __future__ import annotations

import numpy as np
import pytest

from maekit.visualize.answered import Line, answered

LONG = Line("pushing something from left to right, slowly", 0.991, 0.991)
SHORT = Line("b", 0.0, 0.0)
TEXTS = (
    (["a.mp4", "8.0 to 10.0 s"], [SHORT]),
    (["a-name-of-a-film-that-is-longer-than-its-frames-are-wide.mp4", "3590.0 to 3600.0 s"],
     [LONG, SHORT, SHORT]),
    (["", ""], []),
    (["a.mp4", "0.0 to 2.0 s"], [Line("(none)", None, None)]),
)  # fmt: skip


@pytest.mark.parametrize("shape", [(32, 48), (224, 224), (64, 320), (200, 40), (500, 400)])
def test_frames_of_a_film_have_one_size_and_all_of_the_picture(shape: tuple[int, int]) -> None:
    """A taller frame would be cut at its lower end, where the answer stands."""
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    sizes = set()
    for titles, lines in TEXTS:
        for frame, tile in zip(clip, answered(clip / 255, titles, lines, 3), strict=True):
            sizes.add(tile.size)
            pixels = np.asarray(tile)
            scale = (tile.width - 12) // shape[1]
            top = 6 + 15 * 2 + 6
            shown = pixels[top : top + scale * shape[0] : scale, 6 : 6 + scale * shape[1] : scale]
            assert np.array_equal(shown, frame)
            below = pixels[top + scale * shape[0] :]
            ink = (below > 150).all(axis=-1)[6:-6, 6:-6].sum()
            assert (ink > 0) == bool(lines)
    assert len(sizes) == 1


def test_a_bar_is_as_long_as_its_share() -> None:
    blue = []
    for share in (0.0, 0.25, 0.5, 1.0):
        (tile,) = answered(np.zeros((224, 224, 1)), ["x"], [Line("", share, share)], 1)
        pixels = np.asarray(tile, int)
        blue.append(((pixels[..., 2] > pixels[..., 0] + 60).any(axis=0)).sum())
    assert blue == pytest.approx([1, 56, 112, 224], abs=1)
