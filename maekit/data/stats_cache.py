"""Statistics that were computed before, by what they were computed of."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from maekit.atomic import write_text
from maekit.data.cache import cache_folder
from maekit.recipe.schema import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maekit.contracts import Dataset
    from maekit.recipe.schema import DataSpec

VERSION = 2  # raise it with every change of how statistics are computed


def identity(
    dataset: Dataset, spec: DataSpec, chosen: Sequence[int], *, size: tuple[int, int], channels: int
) -> str:
    """A name for all that decides on the statistics of some samples.

    Beside the recipe's options, it holds the set's length and the names of the samples, with size
    and time of change of those that are files of this machine. Files behind a URL or in an archive
    count by name alone.
    """
    digest = hashlib.sha256()
    options = spec.model_dump(mode="json", exclude={"max_bad_fraction", "published"})
    digest.update(_plain([VERSION, options, size, channels, len(dataset)]))
    folders = list(_folders(options))
    for index in chosen:
        name = dataset.name(index)
        digest.update(_plain([index, name, _state(name, folders)]))
    return digest.hexdigest()


def recall(key: str) -> Stats | None:
    """What was kept under a key; None where nothing was, or it cannot be read."""
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
    """Where a set's names may be relative to: the folders that its options name, and lists'."""
    for value in options.values():
        if isinstance(value, str) and os.sep in value:
            yield Path(value)
            yield Path(value).parent


def _state(name: str, folders: Sequence[Path]) -> tuple[int, int] | None:
    """Size and time of change of the file that a name means, if it means one."""
    for folder in (Path(), *folders):
        try:
            status = (folder / name).stat()
        except (OSError, ValueError):  # no such file, or a name that no file can have
            continue
        return status.st_size, status.st_mtime_ns
    return None


def _plain(content: Any) -> bytes:  # noqa: ANN401 (anything that JSON holds)
    return json.dumps(content, sort_keys=True).encode()
