"""Features of any files, in parts that an interrupted run goes on from, then in one file.

The same inputs, weights, batch and machine give the same bytes, however often it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maekit.atomic import write_atomically
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.feature_cache import PART, collect_parts, lenient
from maekit.evaluate.predictions import Reading

if TYPE_CHECKING:
    from maekit.evaluate.feature_cache import Parts
    from maekit.evaluate.predictions import Network
    from maekit.evaluate.views import ViewReader

Format = Literal["npz", "safetensors", "parquet"]
_ONLY = "features"  # the one kind of them


@dataclass(frozen=True)
class Embedding:
    """What was made: float32 features ``[n, D]`` or ``[n, N, D]``, and what they are of."""

    ids: tuple[str, ...]
    features: np.ndarray
    unread: tuple[dict[str, str], ...]


def embed(
    reader: ViewReader,
    way: Network,
    parts: Parts,
    reading: Reading,
    go_on: Callable[[int, int], bool],
) -> Embedding | None:
    """Make the features that are not there yet; None where ``go_on`` said no before the end.

    Args:
        reader: reads one view of each input.
        way: makes features.
        parts: where they are kept.
        reading: how inputs are read and encoded.
        go_on: hears how many inputs are done, of how many, after each part.

    Raises:
        StorageError: a part cannot be written, or is damaged.
    """
    ways = {_ONLY: way}
    if not collect_parts(reader, ways, parts, reading, size=PART, check=lenient, go_on=go_on):
        return None
    made = parts.whole(PART, len(reader.dataset))
    ids = tuple(reader.dataset.name(row) for row in made.rows.tolist())
    unread = tuple({"input": each.file, "error": each.reason} for each in made.unread)
    return Embedding(ids, made.features[_ONLY][:, 0], unread)


def digest_of_inputs(paths: Iterable[str]) -> str:
    """A name for files as they are now: their names, sizes and times."""
    found = hashlib.sha256()
    for path in paths:
        found.update(os.fsencode(path) + b"\0")
        if os.path.isfile(path):  # noqa: PTH113 - names that are no text pass through a string
            status = os.stat(path)  # noqa: PTH116
            found.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return found.hexdigest()


def write(path: Path, kind: Format, made: Embedding, about: dict[str, Any]) -> None:
    """Write an embedding, whole or not at all; ``about`` is kept in it as JSON under ``maekit``.

    npz holds ``ids``, ``features`` and ``maekit``; safetensors ``features``, and in its metadata
    ``ids`` and what it is about; parquet the columns ``id`` and ``features`` (flat lists; the shape
    of one stands in the metadata).

    Raises:
        RecipeError: parquet without pyarrow.
        StorageError: the disk is full or not writable.
    """
    writers = {"npz": _npz, "safetensors": _safetensors, "parquet": _parquet}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda draft: writers[kind](draft, made, about))
    except OSError as error:
        msg = f"the embedding cannot be written: {error}"
        raise StorageError(msg, where=str(path), hint="free some space, or --out") from error


def _npz(path: Path, made: Embedding, about: dict[str, Any]) -> None:
    with path.open("wb") as file:  # np.savez would put another suffix on the name
        np.savez(
            file, ids=np.array(made.ids, dtype=str), features=made.features, maekit=_text(about)
        )


def _safetensors(path: Path, made: Embedding, about: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    # One key: safetensors writes several in any order, and bytes are to be the same.
    metadata = {"maekit": _text(about | {"ids": list(made.ids)})}
    save_file({"features": np.ascontiguousarray(made.features)}, path, metadata)


def _parquet(path: Path, made: Embedding, about: dict[str, Any]) -> None:
    arrow, parquet = arrow_library()
    shape = made.features.shape[1:]
    flat = arrow.array(made.features.reshape(-1))
    lists = arrow.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
    table = arrow.table({"id": arrow.array(made.ids, arrow.string()), "features": lists})
    metadata = {"maekit": _text(about | {"shape": list(shape)})}
    parquet.write_table(table.replace_schema_metadata(metadata), path)


def arrow_library() -> tuple[Any, Any]:
    """pyarrow and its parquet module.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        msg = "parquet needs pyarrow"
        hint = "pip install 'maekit[parquet]', or --format npz"
        raise RecipeError(msg, where="--format parquet", hint=hint) from error
    return pa, parquet


def _text(about: dict[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, ensure_ascii=False)


def format_of(path: Path | None, asked: Format | None) -> Format:
    """The format asked for, else that of the file's suffix, else npz.

    Raises:
        RecipeError: the two contradict each other, or the suffix is unknown.
    """
    formats: Sequence[Format] = ("npz", "safetensors", "parquet")
    if path is None:
        return asked or "npz"
    suffix = path.suffix.removeprefix(".").lower()
    for kind in formats:
        if suffix == kind and asked in (None, kind):
            return kind
    if asked is None or suffix in formats:
        msg = f"what --out {path} says and --format {asked or '(none)'} do not make one format"
        raise RecipeError(msg, where="--format", hint=f"a name that ends in {', '.join(formats)}")
    return asked
