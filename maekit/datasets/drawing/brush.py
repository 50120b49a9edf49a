"""A brush: one object's layer, in the object's own coordinates, to be laid into a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

_FINE = 4  # polygons are drawn this much larger and averaged down: smooth edges


class Light(NamedTuple):
    """Direction that the light comes from: a unit vector, x right, y down, z toward us."""

    x: float
    y: float
    z: float

    @classmethod
    def from_angle(cls, angle: float, height: float) -> Light:
        """Build from ``angle`` in radians around the picture and ``height`` toward the viewer.

        The height is in [0, 1].
        """
        flat = math.sqrt(1 - height**2)
        return cls(math.cos(angle) * flat, math.sin(angle) * flat, height)


@dataclass(frozen=True)
class Pose:
    """Place of an object: its own square [-1, 1] x [-1, 1] (x right, y down) in the picture."""

    x: float  # the center, in sides of the picture
    y: float
    scale: float  # half its extent, in sides
    angle: float = 0.0  # radians, clockwise as seen


class Brush:
    """Painter of one object, front over back, into a window of a square picture.

    Args:
        size: the picture's side in pixels.
        pose: where the object lies.
        light: the scene's light; ``self.light`` is the same light seen from the object.

    Attributes:
        x, y: the object's own coordinates of each pixel in the window, ``[h, w]``.
        pixel: one pixel's span in these coordinates.
        alpha: what is covered so far, ``[h, w]`` in [0, 1].
        color: premultiplied by alpha, ``[3, h, w]``.
    """

    def __init__(self, size: int, pose: Pose, light: Light) -> None:
        reach = 1.5 * pose.scale
        self.rows = _window(pose.y, reach, size)
        self.columns = _window(pose.x, reach, size)
        self._size = size
        self._pose = pose
        dy = (np.arange(self.rows.start, self.rows.stop, dtype=np.float32) + 0.5) / size - pose.y
        dx = (np.arange(self.columns.start, self.columns.stop, dtype=np.float32) + 0.5) / size
        dx = dx - pose.x
        cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
        self.x = (cosine * dx[None, :] + sine * dy[:, None]) / pose.scale
        self.y = (cosine * dy[:, None] - sine * dx[None, :]) / pose.scale
        self.pixel = 1 / (size * pose.scale)
        self.light = Light(
            cosine * light.x + sine * light.y, cosine * light.y - sine * light.x, light.z
        )
        height, width = len(dy), len(dx)
        self.alpha = np.zeros((height, width), np.float32)
        self.color = np.zeros((3, height, width), np.float32)

    def polygon(self, points: np.ndarray) -> np.ndarray:
        """Return the coverage ``[h, w]`` of a polygon ``[P, 2]`` of (x, y) in own coordinates."""
        pose = self._pose
        cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
        across = pose.x + pose.scale * (cosine * points[:, 0] - sine * points[:, 1])
        down = pose.y + pose.scale * (sine * points[:, 0] + cosine * points[:, 1])
        fine = np.stack(
            [across * self._size - self.columns.start, down * self._size - self.rows.start], axis=1
        )
        height, width = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        sheet = Image.new("L", (width * _FINE, height * _FINE))
        # Pillow's polygon covers the pixels whose centers lie half a pixel further.
        outline = [tuple(point) for point in (fine * _FINE - 0.5).tolist()]
        ImageDraw.Draw(sheet).polygon(outline, fill=255)
        return np.asarray(sheet.reduce(_FINE), np.float32) / 255

    def ellipse(self, x: float, y: float, across: float, down: float) -> np.ndarray:
        """Return the coverage ``[h, w]`` of an ellipse with center (x, y) and these radii."""
        distance = np.hypot((self.x - x) / across, (self.y - y) / down) - 1
        return self.inside(distance * min(across, down))

    def inside(self, distance: np.ndarray) -> np.ndarray:
        """Return coverage ``[h, w]`` from a signed distance in own units, negative inside."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def fill(self, mask: np.ndarray, paint: np.ndarray) -> None:
        """Lay ``paint``, ``[3, 1, 1]`` or ``[3, h, w]``, over what is there, in ``mask [h, w]``."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return
        # Most parts of an object are small beside its window.
        part = (..., slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        cover, color, alpha = mask[part], self.color[part], self.alpha[part]
        color *= 1 - cover
        color += np.broadcast_to(paint, self.color.shape)[part] * cover
        alpha *= 1 - cover
        alpha += cover

    def glaze(self, mask: np.ndarray, gain: np.ndarray | float) -> None:
        """Lighten or darken what is painted already by ``gain`` within ``mask``."""
        self.color = self.color * (1 + (np.asarray(gain) - 1) * mask)

    def lay(self, picture: np.ndarray) -> None:
        """Lay the object into ``picture [3, size, size]``, in place."""
        part = picture[:, self.rows, self.columns]
        part *= 1 - self.alpha
        part += self.color

    def spread(self) -> np.ndarray:
        """Return the object's coverage over the whole picture, ``[size, size]``."""
        whole = np.zeros((self._size, self._size), np.float32)
        whole[self.rows, self.columns] = self.alpha
        return whole


def _window(center: float, reach: float, size: int) -> slice:
    start = min(max(math.floor((center - reach) * size), 0), size - 1)
    stop = max(min(math.ceil((center + reach) * size), size), start + 1)
    return slice(start, stop)
