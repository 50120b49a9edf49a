"""Cutting, resizing, channels and ranges, against Pillow and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maekit.data.pixels import crop_resize, to_channels, to_float01
from maekit.data.plan import Box
from maekit.errors import DataError

RNG = np.random.default_rng(0)
NEAR = 2  # what quick_resize may differ by in noise, where it is there
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_then_resize_is_torchvisions(interpolation: str) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resized_crop

    ours = crop_resize(RGB, Box(3, 7, 21, 30), (16, 24), "crop", interpolation)
    mode = InterpolationMode(interpolation)
    theirs = resized_crop(Image.fromarray(RGB), 3, 7, 21, 30, [16, 24], mode)
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= NEAR


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_every_channel_is_resized_by_itself(dtype: str, channels: int) -> None:
    frame = (RNG.random((40, 50, channels)) * 255).astype(dtype)
    whole = crop_resize(frame, Box(0, 0, 40, 50), (16, 24), "crop", "bicubic")
    assert (whole.shape, whole.dtype) == ((16, 24, channels), dtype)
    for c in range(channels):
        alone = crop_resize(frame[..., c : c + 1], Box(0, 0, 40, 50), (16, 24), "crop", "bicubic")
        apart = np.abs(whole[..., c : c + 1].astype(float) - alone).max()
        assert apart <= (NEAR if (dtype, channels) == ("uint8", 3) else 0)


def test_nothing_outside_a_crop_leaks_in_and_context_may_look_over_the_edge() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[10:30, 10:30] = 200
    assert (crop_resize(frame, Box(10, 10, 20, 20), (7, 7), "crop", "bicubic") == 200).all()
    context = crop_resize(frame, Box(10, 10, 20, 20), (7, 7), "context", "bicubic")
    assert (context[0, 0] != 200).all()
    assert (context[3, 3] == 200).all()


def test_sixteen_bits_are_rounded_and_stay_in_range() -> None:
    frame = np.zeros((32, 32, 1), np.uint16)
    frame[::2] = 65535
    out = crop_resize(frame, Box(0, 0, 32, 32), (64, 64), "crop", "bicubic")
    assert out.dtype == np.uint16
    assert out.max() == 65535
    assert out.min() == 0
    same = crop_resize(frame + 7, Box(0, 0, 32, 32), (32, 32), "context", "bicubic")
    np.testing.assert_array_equal(same, frame + 7)


def test_floats_stay_within_what_they_were_and_nan_stays_where_it_is() -> None:
    frame = np.zeros((32, 32, 1), np.float32)
    frame[::2] = 0.75
    for size in ((64, 64), (20, 20)):
        out = crop_resize(frame, Box(0, 0, 32, 32), size, "crop", "bicubic")
        assert out.dtype == np.float32
        assert (out.min(), out.max()) == (0, 0.75) if size[0] > 32 else 0 <= out.min() < out.max()
        assert out.max() <= 0.75
    frame[0, 0] = np.nan
    out = crop_resize(frame, Box(0, 0, 32, 32), (64, 64), "crop", "bicubic")
    assert np.isnan(out[0, 0, 0])
    assert np.isfinite(out[-10:]).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_gray_and_color_become_each_other(dtype: str) -> None:
    color = (RNG.random((9, 8, 3)) * 255).astype(dtype)
    gray = to_channels(color, 1, "x")
    assert (gray.shape, gray.dtype) == ((9, 8, 1), dtype)
    if dtype == "uint8":
        pillow = np.asarray(Image.fromarray(color).convert("L"))
        np.testing.assert_array_equal(gray[..., 0], pillow)
    else:
        np.testing.assert_allclose(gray[..., 0], color @ [0.299, 0.587, 0.114], atol=1.0)
    np.testing.assert_array_equal(to_channels(gray, 3, "x"), np.dstack([gray] * 3))
    white = np.full((1, 1, 3), 65535, np.uint16)
    assert to_channels(white, 1, "x").item() == 65535


def test_other_channel_counts_are_refused() -> None:
    with pytest.raises(DataError, match=r"f\.png: has 4 channels, data\.channels is 3"):
        to_channels(np.zeros((2, 2, 4), np.uint8), 3, "f.png")


def test_one_range_for_all_depths() -> None:
    assert to_float01(np.array([0, 255], np.uint8)).tolist() == [0, 1]
    assert to_float01(np.array([0, 65535], np.uint16)).tolist() == [0, 1]
    assert to_float01(np.array([-3.5, 700], np.float32)).tolist() == [-3.5, 700]
