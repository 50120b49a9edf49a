"""Datasets and maskers that misbehave, importable by loader workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from maekit.contracts import Boxes, Dataset, Grid, Label, Masker, Source, SourceInfo, View
from maekit.data.reader import SampleReader
from maekit.errors import DataError
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment, RandomResizedCrop

if TYPE_CHECKING:
    from pathlib import Path


def array_source(clip: np.ndarray, label: Label, name: str) -> Source:
    """Make a clip in memory."""
    frames, height, width, channels = clip.shape
    info = SourceInfo(name, height, width, channels, clip.dtype.name, frames, label=label)
    return Source(info, lambda ids: clip[list(ids)])


@dataclass
class Fakes(Dataset):
    """Random clips; ``faults`` says what happens at an index."""

    samples: int = 24
    shape: tuple[int, int, int, int] = (1, 20, 24, 3)
    dtype: str = "uint8"
    faults: dict[int, str] = field(default_factory=dict)
    trace: Path | None = None  # a file that counts deaths, across processes

    def __len__(self) -> int:
        return self.samples

    def name(self, index: int) -> str:
        return f"fake-{index}"

    def open(self, index: int) -> Source:
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
        return array_source(self.clip(index), self.label(index), self.name(index))

    def clip(self, index: int) -> np.ndarray:
        rng = np.random.default_rng(index)
        if self.dtype == "float32":
            return rng.random(self.shape, dtype=np.float32)
        high = np.iinfo(self.dtype).max
        return rng.integers(0, high, self.shape, endpoint=True).astype(self.dtype)

    def label(self, index: int) -> Label:
        return index % 3


class Mixed(Fakes):
    """8 bits at even indices, 16 at odd ones."""

    def clip(self, index: int) -> np.ndarray:
        clip = super().clip(index)
        return clip.astype(np.uint16) * 257 if index % 2 else clip


LABELS: tuple[Label, ...] = (
    3,
    None,
    frozenset({1, 5}),
    np.array([0.25, 0.75], np.float32),
    Boxes(np.array([[0.0, 0.1, 0.5, 0.4]]), (frozenset({2}),), movie="m", second=902),
)


class Labeled(Fakes):
    """Labels of every kind, by turns."""

    def label(self, index: int) -> Label:
        return LABELS[index % len(LABELS)]


class HalfHidden(Masker):
    """Hides half of the units."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros(grid.tokens, dtype=bool)
        mask[rng.permutation(grid.tokens)[: grid.tokens // 2]] = True
        return mask.reshape(grid)


class BrightHidden(Masker):
    """Hides the brighter half: looks at the pixels."""

    needs_pixels = True

    def __call__(self, grid: Grid, _: np.random.Generator, *, pixels: np.ndarray) -> np.ndarray:
        frames, height, width, channels = pixels.shape
        blocks = pixels.reshape(
            grid.t, frames // grid.t, grid.h, height // grid.h, grid.w, width // grid.w, channels
        )
        bright = blocks.mean(axis=(1, 3, 5, 6)).reshape(-1)
        mask = np.zeros(grid.tokens, dtype=bool)
        mask[np.argsort(-bright, kind="stable")[: grid.tokens // 2]] = True
        return mask.reshape(grid)


class Unsteady(Masker):
    """Hides more and more: breaks the contract."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, grid: Grid, _: np.random.Generator) -> np.ndarray:
        self.calls += 1
        mask = np.zeros(grid.tokens, dtype=bool)
        mask[: max(1, self.calls - 1)] = True  # the first two agree
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
    """Make a reader of 16 x 16 crops with masks on 1 x 4 x 4 tokens."""
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
