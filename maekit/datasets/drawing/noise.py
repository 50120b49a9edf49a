"""Fractal noise: a few periodic fields, made once, that every texture looks up."""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 1024  # texels a period: many a pixel at any scale drawn, so that the nearest one will do
_SEED = 20240817


@cache
def field(slope: float) -> np.ndarray:
    """Draw a periodic noise field ``[SIDE, SIDE]`` of mean 0 and standard deviation 1.

    Args:
        slope: amplitude falls with frequency as ``f ** -slope``; 2.4 is clouds, 1.5 is gravel.
    """
    rng = np.random.default_rng([_SEED, round(1000 * slope)])
    rows = np.fft.fftfreq(SIDE, 1 / SIDE)[:, None]
    columns = np.fft.rfftfreq(SIDE, 1 / SIDE)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1.0
    amplitude = frequency**-slope
    amplitude[0, 0] = 0.0
    phases = rng.uniform(0, 2 * np.pi, amplitude.shape)
    noise = np.fft.irfft2(amplitude * np.exp(1j * phases), s=(SIDE, SIDE)).astype(np.float32)
    noise /= noise.std()
    return noise


def sample(slope: float, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample the field at ``(u, v)`` (any one shape), in periods: it repeats every 1."""
    rows = np.floor(v * SIDE).astype(np.int32) % SIDE
    columns = np.floor(u * SIDE).astype(np.int32) % SIDE
    found: np.ndarray = field(slope).take(rows * SIDE + columns)
    return found


def cells(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return a steady value in [-1, 1] for each cell of a lattice.

    For bricks and planks that differ.
    """
    mixed = (rows.astype(np.int64) * 7349 + columns.astype(np.int64) * 9151) * 40503
    return ((mixed >> 4) % 1021).astype(np.float32) / 510 - 1
