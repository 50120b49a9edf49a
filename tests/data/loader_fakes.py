"""Datasets and maskers that misbehave, importable by loader workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from maekit.contracts import Grid, View
from maekit.data.reader import SampleReader
from maekit.errors import DataError
from maekit.recipe.augment import NoAugment, RandomResizedCrop
from maekit.recipe.schema import DataSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass
class ArraySource:
    """A clip in memory."""

    clip: np.ndarray
    label: int | None
    id: str
    fps: float | None = None
    crops: bool = False

    @property
    def frames(self) -> int:
        return self.clip.shape[0]

    @property
    def height(self) -> int:
        return self.clip.shape[1]

    @property
    def width(self) -> int:
        return self.clip.shape[2]

    @property
    def channels(self) -> int:
        return self.clip.shape[3]

    @property
    def dtype(self) -> str:
        return self.clip.dtype.name

    def read(self, frame_ids: Sequence[int], box: object = None, size: object = None) -> np.ndarray:
        return self.clip[list(frame_ids)]


@dataclass
class Fakes:
    """Random clips; ``faults`` says what happens at an index."""

    samples: int = 24
    shape: tuple[int, int, int, int] = (1, 20, 24, 3)
    dtype: str = "uint8"
    faults: dict[int, str] = field(default_factory=dict)
    trace: Path | None = None  # a file that counts deaths, across processes
    classes: Sequence[str] | None = None

    def __len__(self) -> int:
        return self.samples

    def name(self, index: int) -> str:
        return f"fake-{index}"

    def open(self, index: int) -> ArraySource:
        fault = self.faults.get(index)
        if fault == "bad":
            what = "is broken"
            raise DataError(what, where=self.name(index))
        if fault == "bug":
            what = "a bug in the dataset"
            raise KeyError(what)
        if fault == "hang":
            time.sleep(600)
        if fault == "spin":
            while True:
                pass
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "die once" and self.trace is not None and not self.trace.exists():
            self.trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "modules":
            what = ",".join(sys.modules)
            raise DataError("torch" if "torch" in sys.modules else "none: " + what[:20])
        rng = np.random.default_rng(index)
        if self.dtype == "float32":
            clip = rng.random(self.shape, dtype=np.float32)
        else:
            high = np.iinfo(self.dtype).max
            clip = rng.integers(0, high, self.shape, endpoint=True).astype(self.dtype)
        return ArraySource(clip, index % 3, self.name(index))


class Mixed(Fakes):
    """8 bits at even indices, 16 at odd ones."""

    def open(self, index: int) -> ArraySource:
        source = super().open(index)
        if index % 2:
            source.clip = source.clip.astype(np.uint16) * 257
        return source


class HalfHidden:
    """Hides half of the units."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros(grid.tokens, dtype=bool)
        mask[rng.permutation(grid.tokens)[: grid.tokens // 2]] = True
        return mask.reshape(grid)


class BrightHidden:
    """Hides the brighter half: looks at the pixels."""

    needs_pixels = True

    def __call__(self, grid: Grid, _: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
        frames, height, width, channels = pixels.shape
        blocks = pixels.reshape(
            grid.t, frames // grid.t, grid.h, height // grid.h, grid.w, width // grid.w, channels
        )
        bright = blocks.mean(axis=(1, 3, 5, 6)).reshape(-1)
        mask = np.zeros(grid.tokens, dtype=bool)
        mask[np.argsort(-bright, kind="stable")[: grid.tokens // 2]] = True
        return mask.reshape(grid)


class Unsteady:
    """Hides more and more: breaks the contract."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, grid: Grid, _: np.random.Generator) -> np.ndarray:
        self.calls += 1
        mask = np.zeros(grid.tokens, dtype=bool)
        mask[: self.calls] = True
        return mask.reshape(grid)


class Unborn:
    """A dataset that cannot be unpickled."""

    classes = None

    def __reduce__(self) -> tuple[object, ...]:
        return (_refuse, ())

    def __len__(self) -> int:
        return 4


def _refuse() -> None:
    what = "no license for this dataset on this machine"
    raise RuntimeError(what)


def make_reader(dataset: object, **changes: object) -> SampleReader:
    """A reader of 16 x 16 crops with masks on 1 x 4 x 4 tokens."""
    settings: dict[str, object] = {
        "spec": DataSpec(name="fakes"),
        "augment": RandomResizedCrop(name="random-resized-crop"),
        "views": (View("pixels", (16, 16)),),
        "channels": 3,
        "seed": 0,
        "purpose": "test",
        "masker": HalfHidden(),
        "grid": Grid(1, 4, 4),
    }
    if changes.get("held_out"):
        settings["augment"] = NoAugment(name="none")
    return SampleReader(dataset, **{**settings, **changes})  # type: ignore[arg-type]
