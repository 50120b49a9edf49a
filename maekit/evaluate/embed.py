"""Features of any files, in parts that an interrupted run goes on from, then in one file.

The parts lie in ``<file>.parts/`` beside what will be the file: ``manifest.json`` says what they
are of, each ``part-00000.npz`` holds some inputs' features, and what could not be read. The same
inputs and weights give the same bytes, whatever the batch and however often it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from maekit.engine.checkpoint import write_text
from maekit.errors import RecipeError, StorageError
from maekit.evaluate.features import collect

if TYPE_CHECKING:
    from maekit.data.batch import BadFile
    from maekit.evaluate.features import Featurise
    from maekit.evaluate.views import ViewReader

Format = Literal["npz", "safetensors", "parquet"]
PART = 256  # inputs
_MANIFEST = "manifest.json"


@dataclass
class Unread:
    """Inputs that could not be read, in their order."""

    items: list[dict[str, str]] = field(default_factory=list)

    def add(self, bad: Iterable[BadFile], step: int) -> None:  # noqa: ARG002 - as BadFiles
        """Take what a batch could not read."""
        self.items += [{"input": each.file, "error": each.reason} for each in bad]


@dataclass(frozen=True)
class Embedding:
    """What was made: float32 features ``[n, D]`` or ``[n, N, D]``, and what they are of."""

    ids: tuple[str, ...]
    features: np.ndarray
    unread: tuple[dict[str, str], ...]


class Parts:
    """The parts of one embedding, on disk.

    Args:
        target: the file that they will become.
        about: what they depend on: weights, pool, layer, inputs; plain data.

    Raises:
        RecipeError: there are parts of another embedding.
        StorageError: the folder cannot be made.
    """

    def __init__(self, target: Path, about: dict[str, Any]) -> None:
        self.folder = target.with_name(f"{target.name}.parts")
        text = json.dumps(about, indent=1, sort_keys=True)
        manifest = self.folder / _MANIFEST
        if manifest.is_file() and manifest.read_text(encoding="utf-8") != text:
            msg = "these parts are of other inputs, weights or options"
            hint = f"remove {self.folder}, or give another --out"
            raise RecipeError(msg, where=str(self.folder), hint=hint)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(manifest, text)
        except OSError as error:
            msg = f"parts cannot be kept: {error}"
            raise StorageError(msg, where=str(self.folder), hint="give another --out") from error

    def has(self, number: int) -> bool:
        """Whether a part is there, whole."""
        return self._path(number).is_file()

    def keep(self, number: int, rows: np.ndarray, features: np.ndarray, unread: Unread) -> None:
        """Write a part, whole or not at all.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path = self._path(number)
        draft = path.with_name(f".{path.name}")
        try:
            with draft.open("wb") as file:
                np.savez(file, rows=rows, features=features, unread=json.dumps(unread.items))
            draft.replace(path)
        except OSError as error:
            msg = f"a part cannot be written: {error}"
            raise StorageError(msg, where=str(path), hint="free some space, then again") from error

    def assemble(self, count: int, names: Callable[[int], str]) -> Embedding:
        """All ``count`` parts in one."""
        rows, features, unread = [], [], []
        for number in range(count):
            with np.load(self._path(number)) as part:
                rows.append(part["rows"])
                features.append(part["features"])
                unread += json.loads(str(part["unread"]))
        # A part of which nothing could be read does not know how wide features are.
        wide = [each for each in features if len(each)] or features[:1]
        ids = tuple(names(row) for row in np.concatenate(rows).tolist())
        return Embedding(ids, np.concatenate(wide), tuple(unread))

    def remove(self) -> None:
        """Delete them: what they became is written."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.npz"


def embed(
    reader: ViewReader,
    way: Featurise,
    parts: Parts,
    *,
    device: torch.device,
    batch: int,
    workers: int,
    timeout: float,
    go_on: Callable[[int, int], bool],
) -> Embedding | None:
    """Make the features that are not there yet; None where ``go_on`` said no before the end.

    Args:
        reader: reads one view of each input.
        way: makes features.
        parts: where they are kept.
        device: where pixels are put.
        batch: inputs encoded at once.
        workers: loader processes.
        timeout: seconds that one input may take.
        go_on: hears how many inputs are done, of how many, after each part.
    """
    total = len(reader.dataset)
    count = -(-total // PART)
    for number in range(count):
        if not parts.has(number):
            unread = Unread()
            rows = range(number * PART, min(total, (number + 1) * PART))
            made = collect(
                reader,
                {"features": way},
                device=device,
                batch=batch,
                workers=workers,
                timeout=timeout,
                ledger=unread,
                rows=rows,
            )
            parts.keep(number, made.rows, made.features["features"][:, 0], unread)
        if not go_on(min(total, (number + 1) * PART), total) and number + 1 < count:
            return None
    return parts.assemble(count, reader.dataset.name)


def digest_of_inputs(paths: Iterable[str]) -> str:
    """A name for files as they are now: their names, sizes and times."""
    found = hashlib.sha256()
    for path in paths:
        found.update(os.fsencode(path) + b"\0")
        if os.path.isfile(path):  # noqa: PTH113 - names that are no text pass through a string
            status = os.stat(path)  # noqa: PTH116
            found.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return found.hexdigest()


def digest_of_weights(module: nn.Module) -> str:
    """A name for a module's tensors."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
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
    draft = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[kind](draft, made, about)
        draft.replace(path)
    except OSError as error:
        msg = f"the embedding cannot be written: {error}"
        raise StorageError(msg, where=str(path), hint="free some space, or --out") from error
    finally:
        draft.unlink(missing_ok=True)


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
