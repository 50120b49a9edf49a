"""Changes of color, as torchvision's on floats: brightness, contrast, saturation and hue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maekit.data.pixels import to_unit
from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.data.plan import ColorChange

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
    pixels = to_unit(clip)
    for what, amount in changes:
        if what == "brightness":
            pixels = pixels * np.float32(amount)
        elif what == "contrast":
            pixels = _blend(pixels, _gray(pixels).mean(axis=(1, 2, 3), keepdims=True), amount)
        elif pixels.shape[-1] == _COLORS:
            saturates = what == "saturation"
            pixels = _blend(pixels, _gray(pixels), amount) if saturates else _turned(pixels, amount)
        pixels = np.clip(pixels, 0, 1)
    top = np.iinfo(clip.dtype).max
    changed: np.ndarray = np.rint(pixels * top).astype(clip.dtype)
    return changed


def _gray(pixels: np.ndarray) -> np.ndarray:
    """``[T, H, W, 1]``."""
    if pixels.shape[-1] != _COLORS:
        return pixels
    gray: np.ndarray = (pixels @ _GRAY)[..., None]
    return gray


def _blend(pixels: np.ndarray, other: np.ndarray, amount: float) -> np.ndarray:
    factor = np.float32(amount)
    return factor * pixels + (1 - factor) * other


def _turned(pixels: np.ndarray, amount: float) -> np.ndarray:
    """Hue turned by a share of the circle: to HSV, and back."""
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
    sixths = 6 * np.float32(amount) + np.where(spread > 0, hue, 0)
    # Each color falls from the value to the value - spread over the circle, a third apart.
    turn = (np.array([5, 3, 1], dtype=np.float32) + sixths[..., None]) % 6
    fall = np.clip(np.minimum(turn, 4 - turn), 0, 1)
    turned: np.ndarray = value[..., None] - spread[..., None] * fall
    return turned
