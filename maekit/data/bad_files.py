"""The record of files that could not be read, and the point at which they are too many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from maekit.errors import DataError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from maekit.data.batch import BadFile

_FEWEST = 10  # bad files that may end a run: fewer may be chance in a small set


class BadFiles:
    """Record of bad files: each is written once, also over an interruption.

    Args:
        path: bad_files.jsonl, continued where it exists, shared by the sets of a run; None: only
            counts.
        samples: size of the set.
        max_fraction: of the set that may be bad.
        section: of the recipe, which errors point to.
        writes: False: only reads what is there, as others write it.
        warn: called with a sentence about the first file that is new.

    Raises:
        DataError: the file exists and does not hold such records.
    """

    def __init__(
        self,
        path: Path | None,
        samples: int,
        max_fraction: float,
        section: str = "data.train",
        *,
        writes: bool = True,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._samples = samples
        self._max_fraction = max_fraction
        self._section = section
        self._writes = writes
        self._warn: Callable[[str], None] | None = warn
        self._files: set[str] = set()
        self._indices: set[int] = set()
        if path is not None and path.exists():
            self._continue(path)

    def __len__(self) -> int:
        """Count the distinct files that are bad."""
        return len(self._files)

    @property
    def samples(self) -> int:
        """How many samples are bad: a list may name a file more than once."""
        return len(self._indices)

    def add(self, bad: Iterable[BadFile], step: int) -> None:
        """Record what is new.

        Raises:
            DataError: too many files are bad.
            StorageError: the record cannot be written.
        """
        lines, last = [], None
        for file, reason, index in bad:
            last = reason
            self._indices.add(index)
            if file in self._files:
                continue
            self._files.add(file)
            self._say_first(file, reason)
            row = {"file": file, "reason": reason, "index": index, "step": step}
            row["set"] = self._section
            # Names that are not UTF-8 come with lone surrogates, which ASCII JSON can write.
            lines.append(json.dumps(row, ensure_ascii=not file.isprintable()) + "\n")
        if lines:
            self._write("".join(lines))
        if last is not None:  # also where all are known from before a resume
            self._check(last)

    def _say_first(self, file: str, reason: str) -> None:
        """Say that there are bad files; the record has them all."""
        if self._warn is not None:
            listed = f"; {self._path.name} lists such files" if self._path else ""
            self._warn(f"{file} cannot be read: {reason}{listed}")
            self._warn = None

    def _write(self, text: str) -> None:
        if self._path is None or not self._writes:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise StorageError(what, where=str(self._path)) from error

    def _check(self, reason: str) -> None:
        listed = f"; {self._path} lists them" if self._path else ""
        if len(self._indices) >= self._samples:
            what = f"none of the {self._samples} samples can be read, the last one: {reason}"
            raise DataError(what, where=f"{self._section}.path", hint=f"look at the files{listed}")
        limit = self._max_fraction * self._samples
        fewest = _FEWEST if self._max_fraction else 1  # 0 means none
        if len(self._files) >= fewest and len(self._files) > limit:
            what = (
                f"{len(self._files)} files of {self._samples} cannot be read, more than "
                f"{self._max_fraction:.3g} of them, the last one: {reason}"
            )
            hint = f"mend or remove them{listed}, or raise {self._section}.max_bad_fraction"
            raise DataError(what, where=f"{self._section}.max_bad_fraction", hint=hint)

    def _continue(self, path: Path) -> None:
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text) and self._writes:
            # The run was ended in the middle of a line.
            with path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(text[:whole].splitlines(), start=1):
            try:
                row = json.loads(line)
                if row["set"] == self._section:
                    self._files.add(row["file"])
                    self._indices.add(row["index"])
            except (ValueError, KeyError, TypeError) as error:
                what = "is not a line of bad_files.jsonl"
                raise DataError(what, where=f"{path}:{number}", hint="move it away") from error
