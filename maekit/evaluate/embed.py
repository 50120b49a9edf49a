"""Features of any files, in shards that an interrupted run resumes from, then in one file.

The same inputs, weights, batch and machine give the same bytes, however often it was interrupted.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from maekit.atomic import write_atomically
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.feature_cache import SHARD_SIZE, collect_shards, skip_bad
from maekit.evaluate.predictions import Reading
from maekit.text import as_text

if TYPE_CHECKING:
    from maekit.evaluate.feature_cache import FeatureShards
    from maekit.evaluate.predictions import Extractor
    from maekit.evaluate.views import ViewReader

Format = Literal["npz", "safetensors", "parquet", "csv"]
FORMATS: Sequence[Format] = get_args(Format)
_ONLY = "features"  # the one kind of them


@dataclass(frozen=True)
class Embedding:
    """Float32 features ``[n, D]`` or ``[n, N, D]`` of n inputs, and the inputs without any.

    Attributes:
        ids: the inputs' names.
        features: theirs.
        unread: inputs that could not be read: ``input`` and ``error``.
        left_out: what of the others was not shown, counts by reason.
    """

    ids: tuple[str, ...]
    features: np.ndarray
    unread: tuple[dict[str, str], ...]
    left_out: Mapping[str, int]


def make_features(
    reader: ViewReader,
    extractor: Extractor,
    shards: FeatureShards,
    reading: Reading,
) -> None:
    """Make the features that are not there yet; each rank makes some of the shards.

    Args:
        reader: reads one view of each input.
        extractor: makes features.
        shards: where they are kept.
        reading: how inputs are read and encoded.

    Raises:
        Interrupted: a signal asked for it; the shards that are done are kept.
        StorageError: a shard cannot be written.
    """
    collect_shards(
        reader,
        {_ONLY: extractor},
        shards,
        reading,
        size=SHARD_SIZE,
        on_bad=skip_bad,
        what="features",
    )


def assemble(reader: ViewReader, shards: FeatureShards) -> Embedding:
    """Return all features, once they are made.

    Raises:
        StorageError: a shard is damaged.
    """
    made = shards.load_all(SHARD_SIZE, len(reader.dataset))
    ids = tuple(reader.dataset.name(row) for row in made.rows.tolist())
    unread = tuple({"input": each.file, "error": each.reason} for each in made.unread)
    return Embedding(ids, made.features[_ONLY][:, 0], unread, made.left_out)


def digest_of_inputs(paths: Iterable[str]) -> str:
    """Hash names, sizes and times of files as they are now."""
    found = hashlib.sha256()
    for path in paths:
        found.update(os.fsencode(path) + b"\0")
        if os.path.isfile(path):  # noqa: PTH113 - names that are not text pass through a string
            status = os.stat(path)  # noqa: PTH116
            found.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return found.hexdigest()


def write(path: Path, kind: Format, made: Embedding, about: dict[str, Any]) -> None:
    """Write an embedding, whole or not at all; ``about`` is kept in it as JSON under ``maekit``.

    npz holds ``ids``, ``features`` and ``maekit``; safetensors ``features``, and in its metadata
    ``ids`` and what it is about; parquet the columns ``id`` and ``features`` (flat lists; the shape
    of one is in the metadata); csv a row for each input: ``id``, then the numbers, a column each.

    Raises:
        RecipeError: parquet without pyarrow.
        StorageError: the disk is full or not writable.
    """
    writers = {"npz": _npz, "safetensors": _safetensors, "parquet": _parquet, "csv": _csv}
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
    with path.open("wb") as file:  # pyarrow opens no name that is not UTF-8
        parquet.write_table(table.replace_schema_metadata(metadata), file)


def _csv(path: Path, made: Embedding, about: dict[str, Any]) -> None:  # noqa: ARG001 - no place
    flat = made.features.reshape(len(made.ids), -1)
    # A name's bytes that are not UTF-8 go as they are.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", *(f"feature_{place}" for place in range(flat.shape[1]))])
        for name, row in zip(made.ids, flat, strict=True):
            table.writerow([name, *map(str, row)])  # the fewest digits that give the same float32


def arrow_library() -> tuple[Any, Any]:
    """Import pyarrow and its parquet module.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        msg = "parquet needs pyarrow"
        hint = "pip install 'maekit[parquet]', or another --format"
        raise RecipeError(msg, where="--format parquet", hint=hint) from error
    return pa, parquet


def _text(about: dict[str, Any]) -> str:
    return as_text(json.dumps(about, sort_keys=True, ensure_ascii=False))
