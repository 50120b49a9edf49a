"""A file that is made of parts which an interrupted call leaves, and the same call goes on with."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from maekit.atomic import sweep
from maekit.engine.events import Emit
from maekit.engine.lock import LOCK, held_lock
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.feature_cache import remove_finished

Format = TypeVar("Format", bound=str)


class KeptOutput(NamedTuple):
    """Where a file is written, and what it is made of until then."""

    target: Path
    parts: Path

    @classmethod
    def at(cls, target: Path, emit: Emit, *, overwrite: bool) -> KeptOutput:
        """Name both.

        Raises:
            RecipeError: the file is there already, or it is a folder.
        """
        parts = target.with_name(f"{target.name}.parts")
        remove_finished(parts, target, emit)
        if target.is_dir():
            msg, hint = "this is a folder", "the name of a file that is to be written"
            raise RecipeError(msg, where=f"--out {target}", hint=hint)
        if target.exists() and not overwrite:
            hint = "--overwrite, or another --out"
            raise RecipeError("the file is there already", where=f"--out {target}", hint=hint)
        return cls(target, parts)

    @contextmanager
    def held(self, *, locks: bool) -> Iterator[None]:
        """Hold the folder of the parts, and sweep what a killed process left half done.

        Raises:
            StorageError: another process holds it, or it cannot be made.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"parts cannot be kept: {error}"
            raise StorageError(msg, where=str(self.parts), hint="give another --out") from error
        with held_lock(self.parts / LOCK, locks=locks):
            for place in self:
                sweep(self.target.parent, f"{glob.escape(place.name)}-*")
            yield


def format_of(path: Path | None, requested: Format | None, known: Sequence[Format]) -> Format:
    """Return the requested format, else that of the file's suffix, else the first known.

    Raises:
        RecipeError: the two contradict each other, or the suffix is unknown.
    """
    if path is None:
        return requested or known[0]
    suffix = path.suffix.removeprefix(".").lower()
    kind = next((each for each in known if each == suffix), None)
    if kind is None and requested is None:
        what = f"'{path.suffix}' is" if path.suffix else "a name without a suffix is"
        hint = f"a name that ends in one of {', '.join(known)}; or --format"
        raise RecipeError(f"{what} no format that is written", where=f"--out {path}", hint=hint)
    if None not in (kind, requested) and kind != requested:
        msg = f"the name says {kind}, and --format {requested}"
        raise RecipeError(msg, where=f"--out {path}", hint="leave --format out, or rename the file")
    return requested or kind or known[0]
