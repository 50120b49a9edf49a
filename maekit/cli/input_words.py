"""The words of a command line that name inputs: lists of paths are opened, the rest is as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from maekit.datasets.images import SUFFIXES as PICTURES
from maekit.datasets.list_rows import columns_note, read_list
from maekit.datasets.videos import SUFFIXES as VIDEOS
from maekit.errors import DataError

LISTS = frozenset({".csv", ".jsonl", ".list", ".tsv", ".txt"})
_log = logging.getLogger(__name__)


def unlisted(words: Sequence[str], verb: str) -> Iterator[str]:
    """Yield the words; in place of a list of paths, its paths.

    Raises:
        DataError: a list with stretches of videos, that names nothing, or that makes no sense.
    """
    for word in words:
        path = Path(word)
        if path.suffix.lower() not in LISTS or not path.is_file():
            yield word
            continue
        if (note := columns_note(path, PICTURES | VIDEOS)) is not None:
            _log.info("%s: %s", path, note)
        rows = 0
        for row in read_list(path, PICTURES | VIDEOS):
            rows += 1
            if any(row.times):
                what = f"asks for a stretch of a video; {verb} takes whole files"
                raise DataError(what, where=f"{path}:{row.line}", hint="cut it, or list files")
            yield row.path if "://" in row.path else str(path.parent / row.path)
        if not rows:
            hint = "a list is CSV with a header `path`, JSONL, or lines with one path each"
            raise DataError("the list has no rows", where=str(path), hint=hint)
