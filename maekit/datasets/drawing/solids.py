"""Round and boxy things: ball, box, mug, ring, wheel, ladder. Each fills [-1, 1] x [-1, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from maekit.datasets.drawing import textures
from maekit.datasets.drawing.chance import happens, one_of, sign
from maekit.datasets.drawing.color import Palette, mix, rgb
from maekit.datasets.drawing.textures import Material

if TYPE_CHECKING:
    from maekit.datasets.drawing.brush import Brush

_AMBIENT = 0.42


def lit(brush: Brush, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the brightness ``[h, w]`` of a surface.

    Its unit normal is (x, y, the rest toward us).
    """
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    light = brush.light
    facing = np.clip(x * light.x + y * light.y + z * light.z, 0, 1)
    brightness: np.ndarray = _AMBIENT + (1.15 - _AMBIENT) * facing
    return brightness


def ball(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a sphere: plain, banded, or a beach ball."""
    x, y = brush.x / 0.96, brush.y / 0.96
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    turn = rng.uniform(0, np.pi)
    along, across = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    look = one_of(rng, ("plain", "bands", "beach"))
    share = np.zeros_like(x)
    if look == "bands":
        width = rng.uniform(0.15, 0.35)
        share = brush.inside(np.abs(np.abs(across) - rng.uniform(0.0, 0.4)) - width)
    elif look == "beach":
        longitude = np.arctan2(along, z) / np.pi * one_of(rng, (4, 6))
        share = 0.5 + 0.5 * textures.square(longitude, np.full_like(x, 3 * brush.pixel))
    brightness = lit(brush, x, y)
    light = brush.light
    gleam = np.clip((x * light.x + y * light.y + z * light.z - 0.93) / 0.07, 0, 1) ** 2
    paint = mix(colors.base, colors.accent, share) * brightness
    brush.fill(brush.ellipse(0, 0, 0.96, 0.96), paint + 0.45 * gleam)


def _face(brush: Brush, corner: np.ndarray, along: np.ndarray, down: np.ndarray) -> np.ndarray:
    points = np.stack([corner, corner + along, corner + along + down, corner + down])
    return brush.polygon(points)


def _face_coordinates(
    brush: Brush, corner: np.ndarray, along: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(np.stack([along, down], axis=1)).astype(np.float32)
    x, y = brush.x - float(corner[0]), brush.y - float(corner[1])
    return inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y


def box(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a cuboid seen from above a corner: three faces, each lit by its own normal."""
    yaw, pitch = rng.uniform(0.35, 1.2), rng.uniform(0.3, 0.6)
    width, depth, height = rng.uniform(0.7, 1.0, 3)
    right = np.array([math.cos(yaw), -math.sin(yaw) * math.sin(pitch)]) * width
    left = np.array([-math.sin(yaw), -math.cos(yaw) * math.sin(pitch)]) * depth
    up = np.array([0.0, -math.cos(pitch)]) * height
    corners = np.stack(
        [a * right + b * left + c * up for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 1.9 / (high - low).max()
    right, left, up = right * scale, left * scale, up * scale
    near = np.array([-(low[0] + high[0]) / 2 * scale, 0.97])  # the nearest corner, on the ground
    looks = (textures.plain, textures.plain, textures.planks, textures.stripes, textures.checker)
    repeats = float(rng.integers(2, 5))
    material = Material(one_of(rng, looks), colors.base, colors.accent, repeats, grain=0.02)
    sideways = 0.25 * brush.light.x
    faces = (
        (near + up, right, -up, 0.78 + sideways),
        (near + up, left, -up, 0.78 - sideways),
        (near + up, right, left, 1.08),
    )
    for corner, along, down, brightness in faces:
        s, t = _face_coordinates(brush, corner, along, down)
        paint = material(s, t, brush.pixel / 0.8) * brightness
        brush.fill(_face(brush, corner, along, down), paint)


def mug(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a cup with an elliptic mouth, bands around the body and a handle at one side."""
    half, lip = rng.uniform(0.5, 0.62), rng.uniform(0.1, 0.2)
    side = sign(rng)
    top, bottom = -0.72, 0.8
    handle = np.hypot((brush.x - side * half) / 0.34, (brush.y - 0.05) / 0.5)
    tube = np.abs(handle - 0.8) / 0.2
    brush.fill(
        brush.inside((tube - 1) * 0.07),
        colors.base * (0.55 + 0.4 * np.sqrt(np.clip(1 - tube**2, 0, 1))),
    )
    across = np.clip(brush.x / half, -1, 1)
    bend = lip * np.sqrt(1 - across**2)  # how far a level line around the body hangs down
    level = (brush.y - bend - top) / (bottom - top)
    band = np.full_like(across, 0.0)
    if happens(rng, 0.7):
        count = int(rng.integers(1, 3))
        band = 0.5 + 0.5 * textures.square(
            level * (2 * count + 1) + 1, np.full_like(across, 2 * count * brush.pixel)
        )
    body = np.maximum(np.abs(brush.x) - half, brush.y - bottom - bend)
    body = np.maximum(body, top - brush.y)
    shading = lit(brush, across * 0.98, np.zeros_like(across))
    brush.fill(brush.inside(body), mix(colors.base, colors.accent, band) * shading)
    brush.fill(brush.ellipse(0, top, half, lip), colors.base * 1.05)
    inner = brush.ellipse(0, top, half * 0.86, lip * 0.8)
    inside = 0.5 - 0.25 * np.clip(brush.x / half * math.copysign(1, brush.light.x), -1, 1)
    brush.fill(inner, colors.dark * 0.6 + colors.base * inside * 0.6)


def ring(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a torus seen a little from the side, plain or with blocks of a second color."""
    squash, thick = rng.uniform(0.65, 1.0), rng.uniform(0.2, 0.32)
    middle = 0.97 - thick
    x, y = brush.x, brush.y / squash
    radius = np.maximum(np.hypot(x, y), 1e-3)
    across = (radius - middle) / thick
    share = np.zeros_like(x)
    if happens(rng, 0.6):
        turns = np.arctan2(y, x) / np.pi * one_of(rng, (2, 3, 4)) + rng.uniform(0, 2)
        share = 0.5 + 0.5 * textures.square(turns, np.full_like(x, 2 * brush.pixel))
    clipped = np.clip(across, -1, 1)
    shading = lit(brush, clipped * x / radius, clipped * y / radius)
    paint = mix(colors.base, colors.accent, share) * shading
    brush.fill(brush.inside((np.abs(across) - 1) * thick * squash), paint)


def wheel(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a tire, a rim, a hub and straight spokes."""
    radius = np.hypot(brush.x, brush.y)
    spokes = int(rng.integers(3, 7))
    tyre, rim = 0.97, rng.uniform(0.7, 0.8)
    turn = np.arctan2(brush.y, brush.x)
    rubber = rgb(0.16, 0.16, 0.18) + 0.1 * colors.dark
    rounded = (radius - (tyre + rim) / 2) / ((tyre - rim) / 2)
    clipped = np.clip(rounded, -1, 1) * 0.9
    shading = lit(brush, clipped * np.cos(turn), clipped * np.sin(turn))
    width = rng.uniform(0.08, 0.13)
    step = 2 * np.pi / spokes
    start = rng.uniform(0, step)
    off = (turn - start) - step * np.round((turn - start) / step)
    spoke = np.maximum(np.abs(np.sin(off)) * radius - width, radius - rim)
    if happens(rng, 0.4):
        brush.fill(brush.ellipse(0, 0, rim, rim), colors.dark * 0.8)
    bright = 0.8 + 0.25 * (brush.x * brush.light.x + brush.y * brush.light.y)
    brush.fill(brush.inside(spoke), colors.accent * bright)
    brush.fill(brush.inside(np.abs(rounded) * 0.12 - 0.12), rubber * 1.6 * shading)
    brush.fill(brush.inside(np.abs(radius - rim) - 0.05), colors.base * bright)
    brush.fill(brush.ellipse(0, 0, 0.2, 0.2), colors.base * bright)
    brush.fill(brush.ellipse(0, 0, 0.08, 0.08), colors.dark)


def ladder(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint two rails that draw together upward, and even rungs between them."""
    foot, head = rng.uniform(0.5, 0.65), rng.uniform(0.32, 0.48)
    rungs = int(rng.integers(4, 7))
    rail = rng.uniform(0.07, 0.1)
    half = foot + (head - foot) * (0.97 - brush.y) / 1.94
    edge = np.abs(brush.x) - half
    spacing = 1.9 / rungs
    height = (brush.y - 0.95 + spacing / 2) / spacing
    bar = np.abs(height - np.round(height)) * spacing - 0.06
    within = np.maximum(edge, np.abs(brush.y) - 0.97)
    rounded = np.clip((height - np.round(height)) * spacing / 0.06, -1, 1)
    rung = colors.base * (0.8 - 0.25 * rounded * math.copysign(1, -brush.light.y))
    brush.fill(brush.inside(np.maximum(bar, within)), rung)
    profile = np.clip(edge / rail, -1, 1) * np.sign(brush.x)
    rails = np.maximum(np.abs(edge) - rail, np.abs(brush.y) - 0.97)
    brush.fill(brush.inside(rails), colors.base * (0.95 + 0.3 * profile * brush.light.x))
