"""The mean and deviation of a set's pixels: computed once, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from maekit.atomic import write_text
from maekit.contracts import View
from maekit.data.files import cache_folder
from maekit.data.loader import Loader
from maekit.data.order import Key
from maekit.data.pixels import to_float01
from maekit.data.reader import SampleReader
from maekit.data.rendering import PLAIN, Rendering
from maekit.errors import DataError, RecipeError
from maekit.progress import counted
from maekit.recipe.schema import Stats
from maekit.recipe.sections import NoAugment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maekit.contracts import Dataset
    from maekit.recipe.schema import DataSpec

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_BATCH = 16
LIMIT = 1000  # samples that statistics are taken of


def imagenet(channels: int) -> Stats:
    """Return ImageNet's statistics.

    Gray gets the mean of the three means and of the three deviations, (0.449, 0.226): the
    deviation of luma does not follow from those of the colors.

    Raises:
        RecipeError: neither gray nor color.
    """
    if channels == len(_MEAN):
        return Stats(mean=_MEAN, std=_STD)
    if channels == 1:
        return Stats(mean=(sum(_MEAN) / 3,), std=(sum(_STD) / 3,))
    what = f"stats: imagenet has 3 channels, data.channels is {channels}"
    hint = "set data.stats to auto, or to {mean: [...], std: [...]}"
    raise RecipeError(what, where="data.stats", hint=hint)


def samples_of(dataset: Dataset, limit: int = LIMIT) -> list[int]:
    """Choose the samples whose statistics are taken: evenly spaced, the same at every call."""
    chosen = np.linspace(0, len(dataset) - 1, min(limit, len(dataset)))
    return [int(index) for index in np.unique(chosen.astype(np.int64))]


def auto_stats(
    dataset: Dataset,
    spec: DataSpec,
    *,
    size: tuple[int, int],
    channels: int,
    workers: int,
    timeout: float,
    rendering: Rendering = PLAIN,
    limit: int = LIMIT,
) -> tuple[Stats, list[str]]:
    """Compute statistics of the set's pixels in [0, 1] (floats as read), per channel.

    Taken over up to ``limit`` evenly spaced samples, resized and cut to the center; the same at
    every call. Bad samples are left out here, and counted when they are trained on.

    Returns:
        The statistics, and what is odd about them in words.

    Raises:
        DataError: no sample can be read, or a channel is constant, or as good as.
    """
    reader = SampleReader(
        dataset,
        spec=spec,
        augment=NoAugment(name="none"),
        views=(View("pixels", size),),
        channels=channels,
        seed=0,
        purpose="stats",
        held_out=True,
        # Padding has no statistics; float pixels are what they are taken for.
        rendering=replace(
            rendering, fit="stretch" if rendering.fit == "pad" else rendering.fit, float_ok=True
        ),
    )
    keys = [Key(0, index) for index in samples_of(dataset, limit)]
    batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
    moments, reason = Moments(channels), ""
    counts = counted("statistics of pixels", len(keys), "samples")
    with counts as seen, Loader(reader, batches, workers=workers, timeout=timeout) as loader:
        for place, batch in enumerate(loader):
            seen(place * _BATCH)
            reason = batch.bad[0].reason if batch.bad else reason
            moments.add(to_float01(batch.views[0][batch.weight > 0]))
    if not moments.count:
        what = f"none of {len(keys)} samples can be read, the last one: {reason}"
        raise DataError(what, where="data.train.path")
    mean, std = moments.mean, moments.std
    flat = std <= _RESOLVED * np.abs(mean)
    if flat.any():
        channel = int(np.argmax(flat))
        what = f"channel {channel} has the same value in all pixels looked at, {mean[channel]:.6g}"
        if std[channel] > 0:
            what += f", but for {std[channel]:.2g}, which float32 does not resolve"
        hint = "set data.stats to {mean, std}, or subtract what is constant from the files"
        raise DataError(what, where="data.stats", hint=hint)
    notes = [
        f"data.stats: 98 % of channel {channel}'s pixels lie within {width / std[channel]:.1%} "
        f"of a standard deviation ({std[channel]:.4g}): a few extreme ones decide, the largest "
        f"{moments.largest[channel]:.4g}; are they missing pixels (data.train.nodata)?"
        for channel, width in enumerate(moments.widths)
        if 0 < width < _NARROW * std[channel]
    ]
    return Stats(mean=tuple(mean.tolist()), std=tuple(std.tolist())), notes


_RESOLVED = 8 * float(np.finfo(np.float32).eps)  # of the mean: the least deviation that is seen
_NARROW = 0.05  # of a deviation: the range of 98 % of the pixels where a few extreme ones decide
_KEPT = 2048  # pixels of a batch and channel whose distribution is looked at


class Moments:
    """Mean and deviation of pixels by channel, in a way that does not cancel.

    Batches are merged by their own means and squared deviations (Chan, Golub and LeVeque, 1979):
    the difference of two large sums would lose what is small beside a large mean.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean, self._squares = np.zeros(channels), np.zeros(channels)
        self.largest = np.zeros(channels)  # in absolute value
        self._kept: list[np.ndarray] = []  # [C, n] each

    def add(self, pixels: np.ndarray) -> None:
        """Add pixels ``[B, C, T, H, W]``."""
        values = pixels.swapaxes(0, 1).reshape(pixels.shape[1], -1).astype(np.float64)
        new = values.shape[1]
        if not new:
            return
        mean = values.mean(axis=1)
        squares = np.square(values - mean[:, None]).sum(axis=1)
        shift, whole = mean - self.mean, self.count + new
        self._squares += squares + np.square(shift) * self.count * new / whole
        self.mean += shift * new / whole
        self.count = whole
        self.largest = np.maximum(self.largest, np.abs(values).max(axis=1))
        self._kept.append(values[:, :: -(-new // _KEPT)])

    @property
    def std(self) -> np.ndarray:
        """Standard deviations, ``[C]``."""
        deviations: np.ndarray = np.sqrt(self._squares / max(1, self.count))
        return deviations

    @property
    def widths(self) -> list[float]:
        """The range of the middle 98 % of the pixels, of each channel."""
        low, high = np.quantile(np.concatenate(self._kept, axis=1), (0.01, 0.99), axis=1)
        widths: list[float] = (high - low).tolist()
        return widths


VERSION = 3  # raise it with every change of how statistics are computed


def cache_key(
    dataset: Dataset,
    spec: DataSpec,
    chosen: Sequence[int],
    *,
    size: tuple[int, int],
    channels: int,
    rendering: Rendering = PLAIN,
) -> str:
    """Return a digest of everything that decides on the statistics of some samples.

    Besides the recipe's options, it covers the set's length and the names of the samples, with size
    and time of change of those that are files of this machine. Files behind a URL or in an archive
    count by name alone.
    """
    digest = hashlib.sha256()
    options = spec.model_dump(mode="json", exclude={"max_bad_fraction", "published"})
    digest.update(_plain([VERSION, options, size, channels, len(dataset)]))
    if (rendering.fit, rendering.span) != ("crop", None):
        digest.update(_plain([rendering.fit, rendering.span]))
    folders = list(_folders(options))
    for index in chosen:
        name = dataset.name(index)
        digest.update(_plain([index, name, _state(name, folders)]))
    return digest.hexdigest()


def recall(key: str) -> Stats | None:
    """Return what was kept under a key; None where nothing was, or it cannot be read."""
    try:
        return Stats.model_validate_json(_place(key).read_bytes())
    except (OSError, ValidationError):
        return None


def keep(key: str, stats: Stats) -> None:
    """Keep statistics under a key.

    Raises:
        OSError: the cache cannot be written.
    """
    place = _place(key)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, stats.model_dump_json())


def _place(key: str) -> Path:
    return cache_folder() / "stats" / f"{key}.json"


def _folders(options: dict[str, Any]) -> Iterator[Path]:
    """Yield the folders that a set's names may be relative to: its options' and its lists'."""
    for value in options.values():
        if isinstance(value, str) and os.sep in value:
            yield Path(value)
            yield Path(value).parent


def _state(name: str, folders: Sequence[Path]) -> tuple[int, int] | None:
    """Return size and time of change of the file that a name means, if it means one."""
    for folder in (Path(), *folders):
        try:
            status = (folder / name).stat()
        except (OSError, ValueError):  # no such file, or a name that no file can have
            continue
        return status.st_size, status.st_mtime_ns
    return None


def _plain(content: Any) -> bytes:  # noqa: ANN401 (anything that JSON holds)
    return json.dumps(content, sort_keys=True).encode()
