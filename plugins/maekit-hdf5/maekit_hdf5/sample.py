"""Write small HDF5 files to try things out with: ``python -m maekit_hdf5.sample FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

CLASSES = ("rings", "stripes", "waves")


def write(folder: Path, rows: int = 96, size: int = 32, channels: int = 4) -> None:
    """Write ``train.h5`` and ``val.h5``: ``data`` uint16 [N, H, W, C], ``labels`` and ``signal``.

    Pictures have structure in every channel, shifted from one to the next; signals [N, S] sweep
    upwards, downwards or stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, seed, count in (("train", 0, rows), ("val", 1, max(3, rows // 4))):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % len(CLASSES)
        pictures = np.stack([_picture(label, size, channels, rng) for label in labels.tolist()])
        with h5py.File(folder / f"{split}.h5", "w") as file:
            file.create_dataset("data", data=pictures, chunks=(1, *pictures.shape[1:]))
            file.create_dataset("labels", data=labels)
            file.create_dataset(
                "signal", data=np.stack([_signal(label, rng) for label in labels.tolist()])
            )


def _picture(label: int, size: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size - rng.uniform(0.3, 0.7, size=(2, 1, 1))
    along = (np.hypot(x, y), x * rng.choice((-1, 1)) + y, x + 0.1 * np.sin(20 * y))[label]
    phase = np.arange(channels) * 0.7 + rng.uniform(0, 6)
    waves = np.sin(along[..., None] * rng.uniform(15, 25) + phase)
    noise = rng.normal(0, 0.05, waves.shape)
    scaled: np.ndarray = np.clip((waves + noise) * 16_000 + 32_000, 0, 65_535)
    return scaled.astype(np.uint16)


def _signal(label: int, rng: np.random.Generator, samples: int = 2048) -> np.ndarray:
    time = np.arange(samples) / samples
    sweep = (0.1, 0.0, -0.1)[label]
    frequency = 0.15 + sweep * (time - 0.5) + rng.uniform(-0.03, 0.03)
    sine = np.sin(2 * np.pi * np.cumsum(frequency))
    noisy: np.ndarray = sine + rng.normal(0, 0.05, samples)
    return noisy.astype(np.float32)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "data/hdf5"))
