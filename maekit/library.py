"""Parts of maekit for someone's own code: a model from a recipe, batches with masks, files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maekit.data.loader import Loader as Samples
from maekit.datasets.named_files import NamedFiles, find_files
from maekit.engine.batches import (
    open_dataset,
    open_sets,
    statistics_of,
    stream_of,
    train_reader,
    with_known_range,
    workers_of,
)
from maekit.engine.build import build_model, header_of
from maekit.engine.schedule import BatchSplit
from maekit.engine.step import to_device_float01
from maekit.errors import DataError
from maekit.recipe.load import read as read_recipe
from maekit.registry import resolve
from maekit.visualize.clips import ClipOptions, read_clip

if TYPE_CHECKING:
    from maekit.contracts import Label
    from maekit.engine.events import Event
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.schema import Recipe

RecipeLike = str | Path | Mapping[str, Any]
_CPU = torch.device("cpu")


def _resolved(recipe: RecipeLike, overrides: Sequence[str]) -> Recipe:
    return resolve(read_recipe(recipe, list(overrides)), "pretrain")


def _silent(event: Event) -> None:
    """Take an event that nobody asked for."""


def build(recipe: RecipeLike, overrides: Sequence[str] = ()) -> MaskedAutoencoder:
    """Do what ``maekit.build`` says."""
    resolved = _resolved(recipe, overrides)
    data = resolved.data
    train: Any = open_dataset(data.train, "data.train") if data.stats == "auto" else None
    statistics = statistics_of(resolved, train, "cpu", _silent)
    return build_model(header_of(resolved, statistics), resolved.seed)


class TrainingBatch(NamedTuple):
    """Samples of one update, or a share of it; with ``pretrain.repeats`` R rows of each.

    Attributes:
        pixels: float32 ``[B, C, T, H, W]``, normalized as the model wants them.
        hidden: bool ``[B, N]``, True = hidden.
        weight: float32 ``[B]``; 0 of what could not be read, whose pixels are zeros.
        labels: of each row's sample, as its data set has it; None where there is none.
        names: of each row's sample.
    """

    pixels: Tensor
    hidden: Tensor
    weight: Tensor
    labels: tuple[Label, ...]
    names: tuple[str, ...]


class TrainingLoader:
    """Training samples of a recipe with their masks; each loop over it is the next epoch.

    The same as in ``maekit pretrain``: crops, flips and masks follow from the recipe's seed, the
    epoch and the sample, whatever the number of workers.

    Attributes:
        model: a fresh model of the recipe, or the one that was given.
        epoch: the next one; set it to begin elsewhere.
    """

    def __init__(
        self,
        recipe: RecipeLike,
        overrides: Sequence[str] = (),
        *,
        model: MaskedAutoencoder | None = None,
        workers: int | None = None,
    ) -> None:
        resolved = _resolved(recipe, overrides)
        train, _ = open_sets(resolved, _silent)
        resolved = with_known_range(resolved, train, _silent)
        if model is None:
            statistics = statistics_of(resolved, train, "cpu", _silent)
            model = build_model(header_of(resolved, statistics), resolved.seed)
        self.model, self.epoch, self.recipe = model, 0, resolved
        self.dataset = train
        self._reader = train_reader(resolved, train, model)
        assert resolved.pretrain is not None  # noqa: S101 - header_of or train_reader saw to it
        split = BatchSplit.of(
            resolved.pretrain.batch, 1, samples=len(train), where="pretrain.batch"
        )
        self._stream, self._size = (
            stream_of(resolved, len(train), split.effective),
            split.per_device,
        )
        self._shares = split.accumulation
        self._workers = workers_of(resolved.data.workers if workers is None else workers, "cpu")

    @property
    def updates(self) -> int:
        """Updates in an epoch: batches, but for ``batch.accumulation``."""
        return max(1, int(self._stream.steps_per_epoch))

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self.updates * self._shares

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield the batches of the next epoch.

        Raises:
            DataError: a whole batch cannot be read.
        """
        first = self.epoch * self.updates
        self.epoch += 1
        groups = [
            keys[start : start + self._size]
            for step in range(first, first + self.updates)
            for keys in [self._stream.keys(step)]
            for start in range(0, len(keys), self._size)
        ]
        timeout = self.recipe.data.timeout
        with Samples(self._reader, groups, workers=self._workers, timeout=timeout) as batches:
            for batch in batches:
                if not batch.weight.any():
                    bad = batch.bad[0]
                    raise DataError(
                        f"no sample of a batch can be read: {bad.reason}", where=bad.file
                    )
                pixels = to_device_float01(batch.views[0], _CPU)
                rows = len(batch.weight) // len(batch.keys)  # views of each sample, side by side
                names = [self.dataset.name(key.index) for key in batch.keys for _ in range(rows)]
                assert batch.hidden is not None  # noqa: S101 - pre-training has a masker
                yield TrainingBatch(
                    self.model.normalize(pixels.to(self.model.device)).to(_CPU),
                    torch.from_numpy(np.array(batch.hidden)),
                    torch.from_numpy(np.array(batch.weight)),
                    tuple(label for label in batch.labels for _ in range(rows)),
                    tuple(names),
                )


def read(path: str | Path, model: MaskedAutoencoder | None = None) -> np.ndarray | Tensor:
    """Do what ``maekit.read`` says."""
    moving = model is None or model.clip[0] > 1
    (file,) = find_files([str(path)], moving=moving)[:1]
    source = NamedFiles([file]).open(0)
    if model is None:
        return source.read(range(source.info.frames))
    channels = len(model.statistics.mean)
    views = read_clip(source, 0, model, channels, ClipOptions()).views
    return views[0]
