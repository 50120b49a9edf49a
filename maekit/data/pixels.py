"""Pixels as arrays: cutting and resizing, channels, ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from maekit.data.quick_resize import quick_resize
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.data.plan import Box, ColorChange
    from maekit.recipe.sections import Interpolation

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# ITU-R 601-2 luma in 1/65536ths, the numbers of Pillow's convert("L").
_LUMA = (19595, 38470, 7471)
DTYPES = ("uint8", "uint16", "float32")
MOST_HOLES = 0.01  # share of a float picture's pixels that may hold no data
LARGEST = 1e18  # of a float pixel: its square is still a float32


def crop_resize(
    frame: np.ndarray,
    box: Box,
    size: tuple[int, int],
    edge: Literal["crop", "context"],
    interpolation: Interpolation,
) -> np.ndarray:
    """Cut ``box`` out of a frame and resize it with Pillow's antialiased filters.

    Crops of 8-bit color are resized by ``quick_resize`` where it can, within rounding of Pillow.

    Args:
        frame: ``[H, W, C]`` uint8, uint16 or float32.
        box: within the frame.
        size: height and width of the result.
        edge: whether the filter may look over the box's edge, see ``Plan``.
        interpolation: the filter; ``bilinear-aliased`` does without antialiasing.

    Returns:
        ``[h, w, C]`` of the frame's dtype; uint16 is rounded and kept in range,
        float32 within what it had.
    """
    top, left, height, width = box
    # Pillow resizes 8-bit RGB at once; two and four channels it would take for alpha.
    plain = frame.dtype == np.uint8 and frame.shape[2] == 3
    if edge == "crop":
        rows, columns = round(top), round(left)
        whole, frame = frame, frame[rows : rows + round(height), columns : columns + round(width)]
        quick = quick_resize(frame, size, interpolation) if plain else None
        if quick is not None:
            return quick
        if plain and whole.flags.c_contiguous and interpolation != "bilinear-aliased":
            image = _window(whole, (rows, columns), frame.shape)
            return np.asarray(image.resize(size[::-1], _FILTERS[interpolation]))
        area = (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))
    else:
        right, bottom = min(left + width, frame.shape[1]), min(top + height, frame.shape[0])
        area = (left, top, right, bottom)
    if interpolation == "bilinear-aliased":
        return _resize_aliased(frame, area, size)
    if plain:
        return _resize(frame, area, size, interpolation)
    planes = [_resize(frame[..., c], area, size, interpolation) for c in range(frame.shape[2])]
    return np.stack(planes, axis=-1)


def _window(frame: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...]) -> Image.Image:
    """Make a picture of a part of a color frame: its pixels are copied once, not twice."""
    row, width = frame.strides[0], shape[1]
    first = frame.reshape(-1)[corner[0] * row + corner[1] * 3 :]
    return Image.frombuffer("RGB", (width, shape[0]), first, "raw", "RGB", row, 1)


def _resize(
    plane: np.ndarray,
    area: tuple[float, float, float, float],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> np.ndarray:
    depth = plane.dtype
    if depth != np.uint8:
        plane = plane.astype(np.float32)
    image = Image.fromarray(np.ascontiguousarray(plane))
    resized: np.ndarray = np.asarray(
        image.resize((size[1], size[0]), _FILTERS[interpolation], box=area)
    )
    if depth == np.uint16:
        resized = np.clip(np.rint(resized), 0, 65535).astype(np.uint16)
    elif depth == np.float32 and interpolation == "bicubic":
        # Beside edges a bicubic curve leaves the range; integers are cut off at the ends of theirs.
        resized = resized.clip(np.fmin.reduce(plane, axis=None), np.fmax.reduce(plane, axis=None))
    return resized


def mark_holes(pixels: np.ndarray, nodata: float | None, where: str) -> np.ndarray:
    """Make every float32 pixel NaN that holds no data: NaN, infinity, or the ``nodata`` value.

    Args:
        pixels: ``[H, W, C]``.
        nodata: what marks missing pixels besides NaN, as GeoTIFF's tag names it.
        where: the file, for errors.

    Raises:
        DataError: more than 1 % of the pixels are missing, or one is too large to compute with.
    """
    missing = ~np.isfinite(pixels)
    if nodata is not None:
        missing |= pixels == np.float32(nodata)
    if missing.any():
        share = float(missing.any(axis=-1).mean())
        if share > MOST_HOLES:
            what = f"{share:.1%} of its pixels hold no data (not finite, or nodata)"
            hint = f"more than {MOST_HOLES:.0%} would be made up: cut it, or leave it out"
            raise DataError(what, where=where, hint=hint)
        pixels = np.where(missing, np.float32(np.nan), pixels)
    largest = float(np.fmax.reduce(np.abs(pixels), axis=None))
    if largest > LARGEST:
        value = float(pixels.flat[np.nanargmax(np.abs(pixels))])
        what = f"holds {value:.4g}, whose square is more than a float32 can hold"
        raise DataError(what, where=where, hint=f"missing pixels? data.train.nodata={value!r}")
    return pixels


def fill_holes(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Fill pixels that hold no data with the mean of the others, channel by channel.

    Args:
        clip: ``[T, H, W, C]``, float32 with NaN where nothing is known; others pass as they are.

    Returns:
        The clip, and where it was filled, bool ``[T, H, W]``; None where it is whole.
    """
    if clip.dtype != np.float32:
        return clip, None
    missing = np.isnan(clip)
    if not missing.any():
        return clip, None
    known = (~missing).sum(axis=(0, 1, 2))
    total = np.where(missing, 0, clip).sum(axis=(0, 1, 2), dtype=np.float64)
    mean = (total / np.maximum(known, 1)).astype(np.float32)
    return np.where(missing, mean, clip), missing.any(axis=-1)


def _resize_aliased(
    frame: np.ndarray, area: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """Resize bilinearly between the four nearest pixels, without an antialiasing filter."""
    left, top, right, bottom = area
    resized = frame.astype(np.float32)
    for axis, (first, last, count) in enumerate(((top, bottom, size[0]), (left, right, size[1]))):
        limit = frame.shape[axis] - 1
        places = first + (np.arange(count) + 0.5) * ((last - first) / count) - 0.5
        places = places.clip(0, limit)
        low = places.astype(np.int64)
        share = (places - low).astype(np.float32)
        share = share[:, None, None] if axis == 0 else share[None, :, None]
        near, far = resized.take(low, axis), resized.take(np.minimum(low + 1, limit), axis)
        resized = near * (1 - share) + far * share
    if frame.dtype == np.float32:
        return resized
    return np.rint(resized).astype(frame.dtype)


def to_channels(pixels: np.ndarray, channels: int, where: str) -> np.ndarray:
    """Convert ``[..., C]`` to ``[..., channels]``.

    Gray and color become each other; nothing else is converted.

    Raises:
        DataError: the counts differ otherwise.
    """
    have = pixels.shape[-1]
    if not convertible(have, channels):
        what = f"has {have} channel{'s' if have > 1 else ''}, data.channels is {channels}"
        raise DataError(what, where=where, hint=f"set data.channels to {have}")
    if have == channels:
        return pixels
    return np.repeat(pixels, 3, axis=-1) if have == 1 else _luma(pixels)


def convertible(have: int, channels: int) -> bool:
    """Return whether ``to_channels`` makes the one of the other."""
    return have == channels or {have, channels} == {1, 3}


def _luma(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.float32:
        weights = np.array([[w / 65536] for w in _LUMA], dtype=np.float32)
        gray: np.ndarray = np.matmul(pixels, weights)
        return gray
    total: np.ndarray = np.matmul(
        pixels.astype(np.uint32), np.array([[w] for w in _LUMA], dtype=np.uint32)
    )
    rounded: np.ndarray = (total + 0x8000) >> 16
    return rounded.astype(pixels.dtype)


def to_float01(pixels: np.ndarray) -> np.ndarray:
    """Convert to float32 in the common range: uint8 / 255, uint16 / 65535, float as read."""
    if pixels.dtype == np.float32:
        return pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


_GRAY = np.array([0.2989, 0.587, 0.114], dtype=np.float32)  # torchvision's
_COLORS = 3


def apply(clip: np.ndarray, changes: Sequence[ColorChange], where: str) -> np.ndarray:
    """Change a clip's colors, one operation after the other, every frame by the same amount.

    Args:
        clip: ``[T, H, W, C]``, uint8 or uint16, C = 1 or 3. Gray has no saturation and no hue.
        changes: what, and how far.
        where: the sample, for errors.

    Returns:
        Of the clip's shape and dtype, rounded once at the end.

    Raises:
        DataError: float pixels, which have no known white.
    """
    if clip.dtype == np.float32:
        what = "has float pixels, whose colors cannot be jittered: they have no known white"
        hint = "set pretrain.augment to random-resized-crop"
        raise DataError(what, where=where, hint=hint)
    pixels = to_float01(clip)
    for what, amount in changes:
        if what == "brightness":
            pixels = pixels * np.float32(amount)
        elif what == "contrast":
            pixels = _blend(pixels, _gray(pixels).mean(axis=(1, 2, 3), keepdims=True), amount)
        elif pixels.shape[-1] == _COLORS:
            saturates = what == "saturation"
            pixels = (
                _blend(pixels, _gray(pixels), amount)
                if saturates
                else _shifted(pixels, what, amount)
            )
        elif what == "add-value":
            pixels = pixels + np.float32(amount)
        pixels = np.clip(pixels, 0, 1)
    top = np.iinfo(clip.dtype).max
    changed: np.ndarray = np.rint(pixels * top).astype(clip.dtype)
    return changed


def _gray(pixels: np.ndarray) -> np.ndarray:
    """Return the luma, ``[T, H, W, 1]``."""
    if pixels.shape[-1] != _COLORS:
        return pixels
    gray: np.ndarray = (pixels @ _GRAY)[..., None]
    return gray


def _blend(pixels: np.ndarray, other: np.ndarray, amount: float) -> np.ndarray:
    factor = np.float32(amount)
    return factor * pixels + (1 - factor) * other


def _shifted(pixels: np.ndarray, what: str, amount: float) -> np.ndarray:
    """Turn the hue by a share of the circle, or add to saturation or value: to HSV, and back.

    Gray to which saturation is added becomes reddish, as its hue is 0 (as in OpenCV's HSV).
    """
    value = pixels.max(axis=-1)
    spread = value - pixels.min(axis=-1)
    safe = np.where(spread > 0, spread, np.float32(1))
    red, green, blue = ((value - pixels[..., c]) / safe for c in range(3))
    # Which color is largest says which third of the circle it is; gray has no hue: 0.
    hue = np.where(
        value == pixels[..., 0],
        blue - green,
        np.where(value == pixels[..., 1], 2 + red - blue, 4 + green - red),
    )
    sixths = (6 * np.float32(amount) if what == "hue" else 0) + np.where(spread > 0, hue, 0)
    if what != "hue":
        saturation = np.divide(spread, value, out=np.zeros_like(spread), where=value > 0)
        if what == "add-saturation":
            saturation = np.clip(saturation + np.float32(amount), 0, 1)
        else:
            value = np.clip(value + np.float32(amount), 0, 1)
        spread = saturation * value
    # Each color falls from the value to the value - spread over the circle, a third apart.
    turn = (np.array([5, 3, 1], dtype=np.float32) + sixths[..., None]) % 6
    fall = np.clip(np.minimum(turn, 4 - turn), 0, 1)
    turned: np.ndarray = value[..., None] - spread[..., None] * fall
    return turned
