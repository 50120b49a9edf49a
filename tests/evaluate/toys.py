"""Small data sets and models for tests of judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from maekit.contracts import Dataset, Label, Source, SourceInfo
from maekit.engine.build import build_model
from maekit.errors import DataError
from maekit.model import MaskedAutoencoder
from maekit.weights.header import Header

SMALL = {"name": "image-vit", "size": "tiny", "width": 32, "depth": 3, "heads": 2, "patch": 8}


def header(clip: tuple[int, int, int] = (1, 16, 24), **backbone: object) -> Header:
    return Header(
        backbone=SMALL | backbone,
        clip=clip,
        channels=3,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.25),
    )


def model(clip: tuple[int, int, int] = (1, 16, 24), **backbone: object) -> MaskedAutoencoder:
    return build_model(header(clip, **backbone), seed=5)


def clip_source(
    frames: int, height: int, width: int, name: str = "clip", label: Label = 0
) -> Source:
    """Make a source whose pixels say where they come from: frame, row, column."""
    info = SourceInfo(name, height, width, 3, frames=frames, fps=10.0, label=label)
    return Source(info, partial(_read, height, width))


def _read(height: int, width: int, frame_ids: Sequence[int]) -> np.ndarray:
    pixels = np.zeros((len(frame_ids), height, width, 3), np.uint8)
    pixels[..., 0] = np.array(frame_ids, np.uint8)[:, None, None]
    pixels[..., 1] = np.arange(height, dtype=np.uint8)[None, :, None]
    pixels[..., 2] = np.arange(width, dtype=np.uint8)[None, None, :]
    return pixels


@dataclass
class Clips(Dataset):
    """A data set of such sources; ``broken`` rows cannot be opened."""

    sources: Sequence[Source]
    classes: Sequence[str] | None = ("a", "b")
    broken: frozenset[int] = field(default_factory=frozenset)

    def __len__(self) -> int:
        return len(self.sources)

    def name(self, index: int) -> str:
        return self.sources[index].info.id

    def open(self, index: int) -> Source:
        if index in self.broken:
            raise DataError("is cut short", where=self.name(index))
        return self.sources[index]
