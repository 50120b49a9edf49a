"""Things with outlines: star, tree, house, fish, leaf, flag. Each fills [-1, 1] x [-1, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from maekit.datasets.drawing import noise, textures
from maekit.datasets.drawing.chance import happens, one_of, sign
from maekit.datasets.drawing.color import Palette, hsv, mix, near, rgb
from maekit.datasets.drawing.textures import Material

if TYPE_CHECKING:
    from maekit.datasets.drawing.brush import Brush

_BROWN = rgb(0.42, 0.28, 0.17)
_CLAY = rgb(0.5, 0.25, 0.2)
_WHITE = rgb(0.95, 0.94, 0.9)


def _rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def star(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a star folded along its rays: one half of each ray is lit, the other in shade."""
    points = int(rng.integers(5, 8))
    inner = rng.uniform(0.4, 0.55)
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 0.98, inner)
    outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    brush.fill(brush.polygon(outline), colors.base * 0.9)
    for index in range(2 * points):
        facet = np.stack([np.zeros(2), outline[index], outline[(index + 1) % (2 * points)]])
        toward = angles[index] + (np.pi / points if index % 2 else -np.pi / points)
        facing = math.cos(toward) * brush.light.x + math.sin(toward) * brush.light.y
        brush.glaze(brush.polygon(facet), 1.0 + 0.3 * facing + (0.08 if index % 2 else -0.08))


def tree(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a fir of stacked skirts, or a round crown of leafy clumps."""
    hue = one_of(rng, (0.26, 0.3, 0.3, 0.34, 0.34, 0.12, 0.05))
    green = near(hsv(hue, rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.7)), rng, 0.03)
    green = 0.9 * green + 0.1 * colors.base
    trunk = rng.uniform(0.07, 0.12)
    bark = 0.85 + 0.3 * np.clip(brush.x / trunk, -1, 1) * brush.light.x
    brush.fill(brush.polygon(_rectangle(-trunk, 0.0, trunk, 0.97)), _BROWN * bark)
    leafage = 1 + 0.1 * noise.sample(1.5, brush.x / 3 + rng.uniform(), brush.y / 3)
    if happens(rng, 0.5):
        skirts, width = int(rng.integers(3, 5)), rng.uniform(0.55, 0.75)
        for index in range(skirts, 0, -1):
            share = index / skirts
            bottom = -0.97 + 1.62 * share
            peak = max(-0.97, bottom - 1.0)
            skirt = np.array([[0, peak], [width * share, bottom], [-width * share, bottom]])
            side = np.clip(brush.x / (width * share), -1, 1)
            tone = 0.95 + 0.35 * side * brush.light.x + 0.25 * (bottom - 0.4 - brush.y)
            brush.fill(brush.polygon(skirt), green * (tone * leafage))
        return
    clumps = [(-0.38, -0.02, 0.42), (0.38, -0.02, 0.42), (0.0, 0.02, 0.42), (-0.22, -0.42, 0.42)]
    clumps += [(0.24, -0.44, 0.42), (0.0, -0.2, 0.5)]
    for clump_x, clump_y, radius in clumps:
        x, y = clump_x + rng.uniform(-0.07, 0.07), clump_y + rng.uniform(-0.07, 0.07)
        slope_x, slope_y = (brush.x - x) / radius, (brush.y - y) / radius
        tone = 0.92 + 0.3 * (slope_x * brush.light.x + slope_y * brush.light.y)
        paint = green * (np.clip(tone, 0.4, 1.3) * leafage)
        brush.fill(brush.ellipse(x, y, radius, radius), paint)


def house(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a gabled front and a side wall under one roof, with a door and windows."""
    split, eaves = rng.uniform(-0.2, 0.1), rng.uniform(-0.25, -0.05)
    walls = one_of(rng, (textures.plain, textures.bricks, textures.planks))
    wall = _WHITE + (colors.base - _WHITE) * rng.uniform(0.2, 0.8)
    material = Material(walls, wall * 0.75, wall, 3.0, grain=0.02)
    sideways = 0.2 * brush.light.x
    front, side = 0.9 - sideways, 0.85 + sideways
    paint = material(brush.x, brush.y, brush.pixel)
    middle = (split - 0.9) / 2
    gable = np.array([[-0.9, 0.97], [-0.9, eaves], [middle, -0.85], [split, eaves], [split, 0.97]])
    brush.fill(brush.polygon(_rectangle(split, eaves, 0.88, 0.9)), paint * side)
    brush.fill(brush.polygon(gable), paint * front)
    tiles = Material(textures.stripes, colors.dark, colors.dark * 1.5 + 0.05, 9.0, math.pi / 2)
    roof = np.array(
        [[middle, -0.92], [0.62, -0.92], [0.97, eaves + 0.05], [split + 0.05, eaves + 0.05]]
    )
    if happens(rng, 0.6):
        brush.fill(brush.polygon(_rectangle(0.25, -1.0, 0.42, -0.6)), _CLAY)
    brush.fill(brush.polygon(roof), tiles(brush.x, brush.y, brush.pixel) * (0.95 + sideways))
    rim = np.array([[middle, -0.93], [middle, -0.78], [-0.93, eaves + 0.12], [-0.98, eaves]])
    brush.fill(brush.polygon(rim), colors.dark * 1.1)
    glass = rgb(0.55, 0.72, 0.85) * rng.uniform(0.6, 1.1)
    door = middle + rng.uniform(-0.12, 0.12)
    brush.fill(brush.polygon(_rectangle(door - 0.14, 0.38, door + 0.14, 0.97)), colors.accent * 0.8)
    for x in (split + 0.18, split + 0.55):
        pane = _rectangle(x, 0.15, x + 0.22, 0.5)
        brush.fill(brush.polygon(_rectangle(x - 0.04, 0.11, x + 0.26, 0.54)), _WHITE * side)
        brush.fill(brush.polygon(pane), glass * (0.8 + 0.3 * (brush.x - x)))
    brush.fill(brush.ellipse(middle, -0.2, 0.13, 0.13), _WHITE * front)
    brush.fill(brush.ellipse(middle, -0.2, 0.09, 0.09), glass)


def fish(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a lens of a body with a forked tail, fins, an eye, and stripes or scales."""
    tall = rng.uniform(0.42, 0.6)
    fin = colors.accent * 0.85
    tail = np.array([[0.45, 0.0], [0.97, -0.5], [0.84, 0.0], [0.97, 0.5]])
    brush.fill(brush.polygon(tail), fin * (0.8 + 0.3 * brush.x))
    back = np.array([[-0.35, -tall * 0.8], [0.25, -tall - 0.3], [0.4, -0.1]])
    brush.fill(brush.polygon(back), fin)
    brush.fill(brush.polygon(back * [1, -1]), fin * 0.85)
    along = (brush.x + 0.15) / 0.82
    half = tall * np.sqrt(np.clip(1 - along**2, 0, 1)) * (1 - 0.25 * np.clip(along, 0, 1))
    body = brush.inside(np.maximum(np.abs(brush.y) - half, np.abs(along) - 1))
    span = np.full_like(brush.x, brush.pixel)
    if happens(rng, 0.5):
        count = rng.uniform(2.5, 4.5)
        share = 0.5 + 0.5 * textures.square((brush.x + 0.2 * brush.y**2) * count, span * count)
    else:
        share = 0.6 * textures.dots(brush.x * 4, brush.y * 4, span * 4)
    share = share * brush.inside(-0.42 - brush.x)  # the head stays plain
    round_y = np.clip(brush.y / np.maximum(half, 0.05), -1, 1)
    brightness = 0.85 + 0.35 * round_y * brush.light.y
    brush.fill(body, mix(colors.base, colors.accent, share) * brightness)
    brush.fill(brush.polygon(np.array([[-0.2, 0.08], [0.12, -0.05], [0.1, 0.28]])), fin * 1.05)
    brush.fill(brush.ellipse(-0.62, -0.1, 0.12, 0.12), _WHITE)
    brush.fill(brush.ellipse(-0.64, -0.1, 0.06, 0.06), rgb(0.08, 0.08, 0.08))


def leaf(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a pointed blade with a midrib, paired veins, and two halves lit differently."""
    hue = one_of(rng, (0.3, 0.25, 0.14, 0.07, 0.02))
    green = near(hsv(hue, rng.uniform(0.55, 0.85), rng.uniform(0.5, 0.8)), rng, 0.04)
    green = 0.85 * green + 0.15 * colors.base
    width, bow = rng.uniform(0.42, 0.6), rng.uniform(-0.15, 0.15)
    shift = bow * (1 - brush.y**2)
    x = brush.x - shift
    along = np.clip((brush.y + 0.95) / 1.6, 0, 1)
    half = width * np.sin(np.pi * along**0.8)
    blade = np.maximum(np.abs(x) - half, np.abs(brush.y + 0.15) - 0.8)
    tone = (
        0.95 + 0.22 * np.sign(x) * math.copysign(1, brush.light.x) + 0.1 * brush.y * brush.light.y
    )
    stalk = np.maximum(np.abs(x) - 0.045, np.abs(brush.y - 0.05) - 0.92)
    veins = int(rng.integers(5, 8))
    span = np.full_like(x, brush.pixel * veins)
    vein = textures.lines((brush.y + 0.7 * np.abs(x)) * veins / 1.6, 0.16, span)
    paint = mix(green, green * 0.6 + 0.3, 0.8 * vein) * tone
    brush.fill(brush.inside(stalk), green * 0.65)
    brush.fill(brush.inside(blade), paint)
    rib = np.maximum(np.abs(x) - 0.035 * (1.1 - along), blade)
    brush.fill(brush.inside(rib), green * 0.5 + 0.4)


def flag(brush: Brush, colors: Palette, rng: np.random.Generator) -> None:
    """Paint a checkered, banded or crossed cloth that waves from a pole."""
    side = sign(rng)
    pole, length = side * -0.82, 1.72
    along = (brush.x - pole) * side / length
    swing = rng.uniform(0.05, 0.11) * np.clip(2 * along, 0, 1)
    turns, phase = rng.uniform(1.0, 1.7), rng.uniform(0, 2 * np.pi)
    wave = 2 * np.pi * turns * along + phase
    height = rng.uniform(1.0, 1.2)
    down = (brush.y + 0.85 - swing * np.sin(wave)) / height
    ends = (np.abs(along - 0.5) - 0.5) * length
    distance = np.maximum(ends, (np.abs(down - 0.5) - 0.5) * height)
    span = np.full_like(along, brush.pixel)
    look = one_of(rng, ("checker", "checker", "checker", "bands", "cross"))
    if look == "checker":
        rows = int(rng.integers(2, 5))
        share = textures.checker(along * rows * 1.5, down * rows, span * rows)
    elif look == "bands":
        share = 0.5 + 0.5 * textures.square(down * 3, 3 * span)
    else:
        upright = np.abs(along - 0.36) * length - 0.14
        share = brush.inside(np.minimum(upright, np.abs(down - 0.5) * height - 0.14))
    fold = 0.95 + 2.2 * swing * np.cos(wave) * side * math.copysign(1, brush.light.x)
    cloth = mix(colors.base, colors.accent, share)
    if look == "checker" and happens(rng, 0.5):
        cloth = mix(colors.dark * 0.6, _WHITE, share)
    brush.fill(brush.inside(distance), cloth * fold)
    stick = np.maximum(np.abs(brush.x - pole) - 0.055, np.abs(brush.y) - 0.97)
    rounded = np.clip((brush.x - pole) / 0.055, -1, 1)
    brush.fill(brush.inside(stick), _BROWN * (1.15 + 0.5 * rounded * brush.light.x))
    brush.fill(brush.ellipse(pole, -0.93, 0.08, 0.07), colors.accent)
