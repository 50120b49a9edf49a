"""``sample-images``: labelled pictures that maekit draws itself, so that a first run needs no data.

They are drawn once, as real JPEG files in class folders in the user's cache, and then read as any
other folder of images. The label is the kind of the main object in each scene.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from maekit.contracts import PartOptions
from maekit.datasets.drawing.scenes import KINDS, VERSION, draw
from maekit.datasets.images import Images, ImageSource
from maekit.errors import DataError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

_COUNTS = {"train": 2000, "val": 256}
_SPLITS = {"train": 0, "val": 1}  # part of each picture's seed: the splits share no picture
_QUALITY = 92
_STALE = 24 * 3600  # seconds after which an unfinished drawing is taken for abandoned


class SampleImages:
    """Scenes of twelve kinds of objects, drawn on first use and kept."""

    class Options(PartOptions):
        """Which pictures, and where they are kept."""

        split: Literal["train", "val"] = Field("train", description="the splits share no picture")
        count: int | None = Field(
            None,
            ge=len(KINDS),
            le=100_000,
            description="pictures, evenly over the classes; unset: 2000 to train, 256 to validate",
        )
        size: int = Field(96, ge=32, le=512, description="pixels a side")
        seed: int = Field(0, ge=0, lt=2**32, description="another seed draws other pictures")
        cache: Path | None = Field(
            None,
            description="folder that keeps the pictures; unset: maekit/sample-images in "
            "XDG_CACHE_HOME, or in ~/.cache",
        )

    def __init__(self, options: Options) -> None:
        """Open the pictures, drawing them first where the cache does not hold them.

        Raises:
            StorageError: if the cache cannot be written.
            DataError: if pictures are missing from a finished folder.
        """
        count = options.count or _COUNTS[options.split]
        try:
            folder = _root(options) / _digest(options, count) / options.split
            if not folder.is_dir():
                _fill(folder, options, count)
        except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home folder
            what = f"cannot keep the sample pictures: {error}"
            hint = "set the dataset's `cache`, or XDG_CACHE_HOME, to a writable folder with room"
            raise StorageError(what, hint=hint) from error
        self._images = Images(Images.Options(path=str(folder), labels="folder"))
        if len(self._images) != count:
            what = f"{len(self._images)} sample pictures where {count} were drawn"
            hint = "delete this folder: they are then drawn anew"
            raise DataError(what, where=str(folder), hint=hint)

    @property
    def classes(self) -> Sequence[str] | None:
        """The kinds of objects, in the order of the labels."""
        return self._images.classes

    def __len__(self) -> int:
        return len(self._images)

    def open(self, index: int) -> ImageSource:
        """Open picture ``index``; raises DataError that names the file."""
        return self._images.open(index)

    def name(self, index: int) -> str:
        """The picture's file."""
        return self._images.name(index)


def _root(options: SampleImages.Options) -> Path:
    """The folder that keeps all sample pictures."""
    if options.cache is not None:
        return Path(options.cache).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification).
    base = base if base.is_absolute() else Path("~/.cache").expanduser()
    return base / "maekit" / "sample-images"


def _digest(options: SampleImages.Options, count: int) -> str:
    """A name for everything that decides on the pictures' content."""
    content = [VERSION, _QUALITY, options.size, options.seed, count]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _fill(folder: Path, options: SampleImages.Options, count: int) -> None:
    """Draw everything beside ``folder``, then rename it into place.

    An interrupted drawing leaves nothing under the final name; where two processes draw at once,
    the first to finish wins, and the other uses its (identical) pictures.
    """
    _log.info("drawing %d sample pictures into %s", count, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    draft = folder.with_name(f".{folder.name}-{secrets.token_hex(6)}")
    kinds = sorted(KINDS)
    try:
        for kind in kinds:
            (draft / kind).mkdir(parents=True)
        for index in range(count):
            kind = kinds[index % len(kinds)]
            rng = np.random.default_rng([options.seed, _SPLITS[options.split], index])
            picture = Image.fromarray(draw(kind, options.size, rng))
            picture.save(draft / kind / f"{index:05d}.jpg", quality=_QUALITY, subsampling=0)
        try:
            draft.rename(folder)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what drawings that were killed have left beside ``folder``."""
    for draft in folder.parent.glob(f".{folder.name}-*"):
        try:
            age = time.time() - draft.stat().st_mtime
        except FileNotFoundError:  # its process has just finished
            continue
        if age > _STALE:
            shutil.rmtree(draft, ignore_errors=True)
