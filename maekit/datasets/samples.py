"""Data sets that maekit draws itself: drawn once, kept, then read as files.

They live as real files in class folders in the user's cache, under a name that stands for
everything their content depends on, and are read as any other folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from maekit.atomic import make_folder_atomically, sweep
from maekit.contracts import Dataset, PartOptions
from maekit.data.files import cache_folder
from maekit.errors import DataError, StorageError
from maekit.progress import counted
from maekit.stop import check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from maekit.contracts import Source

_log = logging.getLogger(__name__)

_SPLITS = {"train": 0, "val": 1}  # part of each sample's seed: the splits share none
_STALE = 24 * 3600  # seconds after which an unfinished drawing is taken for abandoned


class SampleOptions(PartOptions):
    """Split, seed, and place of the samples."""

    split: Literal["train", "val"] = Field("train", description="the splits share no sample")
    seed: int = Field(0, ge=0, lt=2**32, description="another seed draws other samples")
    cache: Path | None = Field(
        None,
        description="folder that keeps the samples; unset: maekit/<name of the dataset> in "
        "XDG_CACHE_HOME, or in ~/.cache",
    )


@dataclass(frozen=True)
class Drawing:
    """Recipe of the samples of one data set."""

    name: str  # the data set's, and that of its folder in the cache
    noun: str  # what messages call the samples
    classes: Sequence[str]
    count: int  # evenly over the classes
    content: Sequence[object]  # everything that decides on the bytes, besides split and seed
    suffix: str
    write: Callable[[Path, str, np.random.Generator], None]  # one sample: file, class, its chance
    finish: Callable[[Path], None] | None = None  # what more the folder holds, once all are drawn
    each: int = 1  # samples that a file holds


class Samples(Dataset):
    """Samples drawn on first use, read by the data set for files of their kind.

    Args:
        options: which samples, and where they are kept.
        drawing: how they are made.
        reader: opens the folder of class folders that they are kept in.

    Raises:
        StorageError: if the cache cannot be written.
        DataError: if samples are missing from a finished folder.
    """

    def __init__(
        self, options: SampleOptions, drawing: Drawing, reader: Callable[[Path], Dataset]
    ) -> None:
        try:
            folder = _root(options, drawing.name) / _digest(options, drawing) / options.split
            if not folder.is_dir():
                _fill(folder, options, drawing)
        except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home folder
            what = f"cannot keep the sample {drawing.noun}: {error}"
            hint = "set the dataset's `cache`, or XDG_CACHE_HOME, to a writable folder with room"
            raise StorageError(what, hint=hint) from error
        self._files = reader(folder)
        self.classes, self.labels = self._files.classes, self._files.labels
        self.judged, self.excluded = self._files.judged, self._files.excluded
        self.left_out = self._files.left_out
        count = drawing.count * drawing.each
        if len(self._files) != count:
            what = f"{len(self._files)} samples in the {drawing.noun} where {count} were drawn"
            hint = "delete this folder: they are then drawn anew"
            raise DataError(what, where=str(folder), hint=hint)

    def __len__(self) -> int:
        return len(self._files)

    def open(self, index: int) -> Source:
        """Open sample ``index``; raises DataError that names the file."""
        return self._files.open(index)

    def name(self, index: int) -> str:
        """Return the sample's file."""
        return self._files.name(index)

    def containing_file(self, index: int) -> str:
        """Return the file that a sample lies in."""
        return self._files.containing_file(index)

    def sources(self, by: str) -> Sequence[str]:
        """Return where each sample comes from, as the data set for these files knows it."""
        return self._files.sources(by)


def _root(options: SampleOptions, name: str) -> Path:
    """Return the folder that keeps all samples of a data set."""
    if options.cache is not None:
        return Path(options.cache).expanduser().absolute()
    return cache_folder() / name


def _digest(options: SampleOptions, drawing: Drawing) -> str:
    """Name everything that decides on the samples' content."""
    content = [drawing.name, *drawing.content, options.seed, drawing.count]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _fill(folder: Path, options: SampleOptions, drawing: Drawing) -> None:
    """Draw everything into a neighbor of ``folder``, then rename it into place.

    An interrupted drawing leaves nothing under the final name; where two processes draw at once,
    the first to finish wins, and the other uses its (identical) samples.
    """
    _log.info("drawing %d sample %s into %s", drawing.count, drawing.noun, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # What drawings that were killed have left.
    sweep(folder.parent, f"{folder.name}-*", older_than=_STALE)

    def draw(draft: Path) -> None:
        for label in drawing.classes:
            (draft / label).mkdir()
        with counted(f"drawing {drawing.noun}", drawing.count, drawing.noun) as count:
            for index in range(drawing.count):
                check()
                count(index)
                label = drawing.classes[index % len(drawing.classes)]
                rng = np.random.default_rng([options.seed, _SPLITS[options.split], index])
                drawing.write(draft / label / f"{index:05d}{drawing.suffix}", label, rng)
        if drawing.finish is not None:
            drawing.finish(draft)

    try:
        make_folder_atomically(folder, draw)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
