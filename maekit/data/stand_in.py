"""A data set of noise in place of one that is not here, so that a run's cost can be known."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from maekit.contracts import Boxes, Dataset, Source, SourceInfo
from maekit.data.rng import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maekit.recipe.schema import Data

FPS = 25.0
PERSONS = np.array([[0.05, 0.1, 0.45, 0.9], [0.55, 0.1, 0.95, 0.9]])  # boxes of a moment


class StandIn(Dataset):
    """So many samples of noise, of the size that a recipe reads, in so many classes.

    Args:
        data: the recipe's section: size, channels, frames.
        samples: how many.
        classes: how many; each has the same number of samples.
        part: "train" or "val": no sample is in both.
        boxes: whether a sample is a moment with boxes, which have the classes.
    """

    classes: tuple[str, ...]

    def __init__(
        self, data: Data, samples: int, classes: int, part: str, *, boxes: bool = False
    ) -> None:
        self._samples, self._data, self._part = samples, data, part
        self._boxes = boxes
        self.classes = tuple(map(str, range(classes)))
        self.labels = np.arange(samples, dtype=np.int32) % classes
        if boxes:
            self.labels = [self._label(index) for index in range(samples)]

    def _label(self, index: int) -> int | Boxes:
        classes = len(self.classes)
        if not self._boxes:
            return index % classes
        labels = tuple(frozenset({(index + place) % classes}) for place in range(len(PERSONS)))
        return Boxes(PERSONS, labels, movie=f"stand-in/{self._part}", second=float(index))

    def __len__(self) -> int:
        return self._samples

    def name(self, index: int) -> str:
        """Return the sample's part and number."""
        return f"stand-in/{self._part}/{index}"

    def open(self, index: int) -> Source:
        """Draw a sample: as many frames as a clip spans."""
        train, (height, width) = self._data.train, self._data.height_width
        frames = 1 if train.frames == 1 else train.frames * train.stride
        shape = (height, width, self._data.channels)

        def read(frame_ids: Sequence[int]) -> np.ndarray:
            rng = generator(0, purpose=f"stand-in {self._part}", index=index)
            return rng.integers(0, 256, (len(frame_ids), *shape), dtype=np.uint8)

        fps = None if train.frames == 1 else FPS
        label = self._label(index)
        info = SourceInfo(self.name(index), *shape, frames=frames, fps=fps, label=label)

        def at(seconds: Sequence[float], late: float) -> Sequence[int]:  # noqa: ARG001 - of noise
            shown = frames // 2 + np.round(np.asarray(seconds) * FPS)
            found: list[int] = np.clip(shown, 0, frames - 1).astype(int).tolist()
            return found

        return Source(info, read, at if self._boxes else None)


_samples: ContextVar[int | None] = ContextVar("stand_in", default=None)


@contextmanager
def standing_in(samples: int | None) -> Iterator[None]:
    """Let data sets be stood in for while the context lasts; None: read them."""
    token = _samples.set(samples)
    try:
        yield
    finally:
        _samples.reset(token)


def stand_ins(
    data: Data, classes: int, *, boxes: bool = False
) -> tuple[StandIn, StandIn | None] | None:
    """Return what stands in for data.train and data.val, where something is to."""
    samples = _samples.get()
    if samples is None:
        return None
    val = StandIn(data, max(classes, min(samples, 64)), classes, "val", boxes=boxes)
    train = StandIn(data, samples, classes, "train", boxes=boxes)
    return train, None if data.val is None else val
