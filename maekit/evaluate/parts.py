"""Features on disk, in parts, so that what was computed before an interruption is kept.

A folder of parts holds ``manifest.json``, which says what they are of, and ``part-00000.npz`` ...
with some samples' features each, and what could not be read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from maekit.atomic import write_atomically, write_text
from maekit.data.batch import BadFile
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.collect import Collected

PART = 256  # samples whose features are kept together
_MANIFEST = "manifest.json"
_PREFIX = "features."  # before the name of a kind of features


class Parts:
    """The parts of the features of one set.

    Args:
        folder: where they lie; it is made.
        about: what they depend on, beside the order of the set: plain data.

    Raises:
        RecipeError: there are parts of something else.
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(about, indent=1, sort_keys=True)
        manifest = folder / _MANIFEST
        if manifest.is_file() and manifest.read_text(encoding="utf-8") != text:
            msg = "these parts are of other inputs, weights or options"
            hint = f"remove {folder}, or give another --out"
            raise RecipeError(msg, where=str(folder), hint=hint)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(manifest, text)
        except OSError as error:
            msg = f"parts cannot be kept: {error}"
            raise StorageError(msg, where=str(folder), hint="give another --out") from error

    def has(self, number: int) -> bool:
        """Whether a part is there, whole."""
        return self._path(number).is_file()

    def keep(self, number: int, made: Collected) -> None:
        """Write a part, whole or not at all.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path = self._path(number)
        arrays = {f"{_PREFIX}{name}": features for name, features in made.features.items()}

        def write(draft: Path) -> None:
            with draft.open("wb") as file:  # given a path, np.savez would add a suffix
                np.savez(file, rows=made.rows, unread=json.dumps(made.unread), **arrays)  # type: ignore[arg-type]

        try:
            write_atomically(path, write)
        except OSError as error:
            msg = f"a part cannot be written: {error}"
            raise StorageError(msg, where=str(path), hint="free some space, then again") from error

    def load(self, number: int) -> Collected:
        """A part that is there.

        Raises:
            StorageError: it is damaged.
        """
        path = self._path(number)
        try:
            with np.load(path) as part:
                features = {
                    name.removeprefix(_PREFIX): part[name]
                    for name in part.files
                    if name.startswith(_PREFIX)
                }
                unread = tuple(BadFile(*each) for each in json.loads(str(part["unread"])))
                return Collected(part["rows"], features, unread)
        except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
            msg = f"a part is damaged: {error}"
            raise StorageError(msg, where=str(path), hint="remove it, then again") from error

    def whole(self, size: int, total: int) -> Collected:
        """All parts in one: of a set of ``total`` samples, ``size`` in each.

        Raises:
            StorageError: one is damaged.
        """
        return Collected.of((self.load(number) for number in range(-(-total // size))), total)

    def remove(self) -> None:
        """Delete them: what they became is written."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.npz"


def source_of(folder: Path) -> str | None:
    """The weights that parts say they are of; None where there are no parts."""
    try:
        about = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(about["weights"])
