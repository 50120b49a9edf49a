"""Crops of 8-bit color resized by Pillow's filters, in a quarter of Pillow's time.

The package (cykooz.resizer, of the Rust library fast_image_resize) keeps filters in 16 bits, where
Pillow keeps 32. It is given one direction at a time, in Pillow's order and rounded between them as
Pillow does, as what a filter makes brighter than white or darker than black is cut off there: so
its pixels are within 2 of Pillow's (a test holds them to it). Both
directions in one call are another order, and up to 20 apart at sharp edges.
"""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from maekit.recipe.sections import Interpolation

    Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def quick_resize(
    part: np.ndarray, size: tuple[int, int], interpolation: Interpolation
) -> np.ndarray | None:
    """Resize uint8 ``[H, W, 3]`` to ``[*size, 3]``.

    Returns:
        None where there is no package for this machine, or for this filter: Pillow has to.
    """
    resize = _resizer(interpolation)
    return None if resize is None else resize(part, size)


def resizer() -> str:
    """Name what resizes crops of 8-bit color on this machine, and its version."""
    name = "pillow" if _resizer("bicubic") is None else "cykooz.resizer"
    return f"{name.capitalize() if name == 'pillow' else name} {version(name)}"


def vertical_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Return whether Pillow resizes this height before this width.

    From version 13 on it does where the height shrinks by more than twice as many pixels as the
    width (Pillow's pull request 9549); before, never.
    """
    down, across = (old - new for old, new in zip(before, after, strict=True))
    return _pillow() >= 13 and down > 0 and down > 2 * across


@functools.cache
def _pillow() -> int:
    return int(version("pillow").partition(".")[0])


@functools.cache
def _resizer(interpolation: Interpolation) -> Resize | None:
    try:
        import cykooz_resizer as package
    except ImportError:  # no wheel for this machine: Pillow takes its place
        return None
    filters = {
        "bicubic": package.FilterType.catmull_rom,
        "bilinear": package.FilterType.bilinear,
    }
    if interpolation not in filters:
        return None
    way = package.ResizeAlg.convolution(filters[interpolation])
    options = package.ResizeOptions(resize_alg=way, use_alpha=False)
    engine, kind = package.Resizer(), package.PixelType.U8x3

    def resize(part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        height, width = part.shape[:2]
        middle = (height, size[1])
        if vertical_first((height, width), size):
            middle = (size[0], width)
        image, now = package.ImageData(width, height, kind, part.tobytes()), (height, width)
        for wanted in (middle, size):
            if wanted != now:
                resized = package.ImageData(wanted[1], wanted[0], kind)
                engine.resize(image, resized, options)
                image, now = resized, wanted
        return np.frombuffer(image.get_buffer(), np.uint8).reshape(*size, 3)

    return resize
