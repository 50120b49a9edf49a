"""Panels: what is hidden stays hidden, what is shown is what was given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.visualize.panel import line, masked, panel, paste


def clip(
    frames: int = 1, height: int = 16, width: int = 24, channels: int = 3, seed: int = 0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(frames, height, width, channels)).astype(np.float32)


@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    patch=st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6)),
    channels=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_paste_and_masked_keep_the_visible_and_replace_the_hidden(
    grid: tuple[int, int, int], patch: tuple[int, int, int], channels: int, seed: int
) -> None:
    shape = [tokens * step for tokens, step in zip(grid, patch, strict=True)]
    original = clip(*shape, channels, seed)
    painted = original + 2
    hidden = np.random.default_rng(seed).uniform(size=grid) < 0.5
    pasted, shown = paste(original, painted, hidden, patch), masked(original, hidden, patch)
    for place in np.ndindex(*grid):
        part = tuple(
            slice(at * step, (at + 1) * step) for at, step in zip(place, patch, strict=True)
        )
        expected = painted if hidden[place] else original
        assert np.array_equal(pasted[part], expected[part])
        if hidden[place]:
            assert np.abs(shown[part] - 0.5).max() < 0.1
        else:
            assert np.array_equal(shown[part], original[part])
    assert shown.dtype == original.dtype


def test_the_masked_picture_tells_nothing_of_the_hidden_pixels() -> None:
    hidden = np.array([[[True, False, True], [False, True, True]]])
    first, second = clip(seed=1), clip(seed=2)
    same = np.repeat(np.repeat(hidden[0], 8, axis=0), 8, axis=1)
    shown = [masked(picture, hidden, (1, 8, 8))[0][same] for picture in (first, second)]
    assert np.array_equal(*shown)


def test_shapes_that_do_not_fit_are_refused() -> None:
    hidden = np.zeros((1, 2, 3), bool)
    with pytest.raises(ValueError, match="does not cover"):
        masked(clip(), hidden, (1, 4, 8))
    with pytest.raises(ValueError, match="painted is"):
        paste(clip(), clip(height=8), hidden, (1, 8, 8))


def test_pictures_are_enlarged_by_whole_factors_and_shown_as_given() -> None:
    picture = clip(height=16, width=24)[0]
    sheet = np.asarray(panel([[picture, picture]], ["a", "b"], side=128))
    scaled = np.repeat(np.repeat((picture * 255).round().astype(np.uint8), 6, 0), 6, 1)
    first, second = sheet[-102:-6, 6:150], sheet[-102:-6, 156:300]
    assert np.array_equal(first, scaled)
    assert np.array_equal(second, scaled)
    assert (sheet[-6:] == 255).all()


def test_a_large_picture_is_not_resized() -> None:
    sheet = panel([[clip(height=200, width=150)]], [""], side=128)
    assert sheet.width == 150 + 2 * 6


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (13, [0, 1, 2])])
def test_any_number_of_channels(channels: int, shown: list[int]) -> None:
    picture = clip(channels=channels)[0]
    sheet = np.asarray(panel([[picture]], ["x"], side=24))
    assert np.array_equal(sheet[-22:-6, 6:30], (picture[..., shown] * 255).round())


def test_values_out_of_range_are_clipped_and_lost_ones_are_magenta() -> None:
    picture = np.zeros((8, 8, 3), np.float32)
    picture[0, 0], picture[0, 1], picture[1, 0, 1] = 3.0, -2.0, np.nan
    sheet = np.asarray(panel([[picture]], [""], side=8))
    cell = sheet[-14:-6, 6:14]
    assert cell[0, 0].tolist() == [255, 255, 255]
    assert cell[0, 1].tolist() == [0, 0, 0]
    assert cell[1, 0].tolist() == [255, 0, 255]


def test_a_clip_is_a_strip_of_evenly_spaced_frames() -> None:
    frames = np.broadcast_to(np.linspace(0, 1, 7)[:, None, None, None], (7, 8, 8, 1))
    sheet = np.asarray(panel([[frames]], [""], side=8, frames=3))
    line = sheet[-10, 6:-6, 0]
    assert len(line) == 3 * 8 + 2 * 2
    assert line[[0, 10, 20]].tolist() == [0, 128, 255]


def test_rows_of_different_sizes_do_not_overlap() -> None:
    dark = [[np.zeros((20, 10, 1))], [np.zeros((10, 30, 1))]]
    sheet = np.asarray(panel(dark, [""], side=1))
    assert (sheet == 0).all(axis=-1).sum() == 20 * 10 + 10 * 30
    assert sheet.shape[1] == 30 + 2 * 6


def test_captions_are_written_and_wrapped() -> None:
    pictures = [clip(height=64, width=64)]
    bare = panel([pictures], [""])
    short = panel([pictures], ["original"])
    long = panel([pictures], ["prediction pasted into the visible part of it"])
    assert short.width == long.width == bare.width
    assert long.height > short.height
    assert (np.asarray(short)[: short.height - 134] < 100).any()
    assert panel([[clip(height=8, width=8)]], ["incomprehensibilities"], side=8).width > 60


def test_captions_stand_next_to_the_pictures_below_the_first_label() -> None:
    pictures = [clip(height=64, width=64), clip(height=64, width=64)]
    first, later = "iiiiiiiiiiiiiiiiiiii", "l"
    sheet = np.asarray(panel([pictures] * 2, ["W", "W"], labels=[first, later]))
    inked = (sheet < 120).any(axis=(1, 2))
    above = sheet[: np.flatnonzero(inked)[0] + 13]  # the first line of type
    assert (above[:, 40:] < 120).any()  # is as long as the label, which one caption is not
    caption = sheet[27:54]
    assert (caption[:, 6:20] < 120).any()
    assert (caption[:, 204:218] < 120).any()


def test_a_strips_label_begins_where_its_captions_do() -> None:
    label = np.asarray(line("W", 100))
    caption = np.asarray(panel([[clip(height=64, width=64)]], ["W"]))
    assert label.shape[1] == 100
    starts = [np.flatnonzero((each[:20] < 120).any(axis=(0, 2)))[0] for each in (label, caption)]
    assert starts[0] == starts[1]


def test_a_panel_without_content_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        panel([], ["a"])
    with pytest.raises(ValueError, match="under 2 captions"):
        panel([[clip()]], ["a", "b"])
