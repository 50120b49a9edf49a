"""Reading weights that others wrote: .pth and .bin pickles, safetensors, Hugging Face folders.

Nothing that a file asks to run is run: pickles go through ``torch.load(weights_only=True)``, which
knows tensors and plain data, and here the classes of ``plain_pickles``, in which training code
keeps its arguments and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from maekit.errors import RecipeError, WeightsError
from maekit.weights.checks import check_plain
from maekit.weights.entries import Entry, take
from maekit.weights.plain_pickles import read_pickle
from maekit.weights.safetensors_io import read_tensors

SINGLE = ("model.safetensors", "pytorch_model.bin")
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
PREPROCESSORS = (PREPROCESSOR, "video_preprocessor_config.json")  # transformers 5 writes either
_LONGEST_JSON = 1 << 26  # characters; an index of shards names every tensor


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Contents of a file or folder of another project, under its own names.

    Attributes:
        where: the file or folder, for messages.
        wrapper: the keys under which the state dict lay, outermost first.
        unread: what else was there: optimizer, scaler, epoch.
        args: the training's arguments, where the file keeps them.
        config, preprocessor: of a Hugging Face folder.
        entries: the state dicts of the file, where it has several.
    """

    tensors: dict[str, Tensor]
    where: str
    wrapper: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: a length of eight bytes, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read(path: Path, entry: str | None = None) -> ForeignCheckpoint:
    """Read all tensors of a foreign file or Hugging Face folder, on the CPU.

    Args:
        path: the file or folder.
        entry: the model to take, of a file that holds several.

    Raises:
        RecipeError: nothing is there, or no such entry.
        WeightsError: it cannot be read, holds no tensors, or a pickle tries to run code.
    """
    if path.is_dir():
        if entry is not None:
            msg = f"a folder holds one model, and no entry '{entry}'"
            raise RecipeError(msg, where=str(path), hint="name a file, or leave the entry out")
        return _folder(path)
    if not path.is_file():
        raise RecipeError(f"no such weights file: {path}", hint="check the path")
    return _file(path, entry)


def files_of(path: Path) -> list[Path]:
    """Return the files that hold a source's tensors."""
    if not path.is_dir():
        return [path]
    whole = [path / name for name in SINGLE if (path / name).is_file()]
    if whole:
        return whole[:1]
    indexes = [path / f"{name}.index.json" for name in SINGLE]
    return [file for index in indexes if index.is_file() for file in _shard_files(index)]


def _file(path: Path, entry: str | None = None) -> ForeignCheckpoint:
    where, plain = str(path), is_safetensors(path)
    taken = take(read_tensors(path) if plain else read_pickle(path), where, entry)
    if not plain:
        check_plain(taken.tensors, path.stat().st_size, where)
    found = ForeignCheckpoint(
        taken.tensors, where, taken.wrapper, taken.left, taken.args, entries=taken.entries
    )
    if path.name in SINGLE and (path.parent / CONFIG).is_file():
        return _with_config(found, path.parent)
    return found


def _folder(path: Path) -> ForeignCheckpoint:
    """Read a Hugging Face folder: one weights file, or shards with an index."""
    for name in SINGLE:
        if (path / name).is_file():
            return _file(path / name)
        index = path / f"{name}.index.json"
        if index.is_file():
            return _with_config(ForeignCheckpoint(_shards(index), str(path)), path)
    msg = f"no {' or '.join(SINGLE)} in this folder, whole or in shards"
    raise RecipeError(msg, where=str(path), hint="give the folder that save_pretrained wrote")


def _shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in _shard_files(index):
        tensors |= _file(shard).tensors
    absent = sorted(_places(index).keys() - tensors.keys())
    if absent:
        msg = f"the shards lack {len(absent)} tensors of the index: {', '.join(absent)}"
        raise WeightsError(msg, where=str(index), hint="copy all shards again")
    return tensors


def _shard_files(index: Path) -> list[Path]:
    names = sorted(set(map(str, _places(index).values())))
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            msg = f"the index names a shard that is not in its folder: {name}"
            raise WeightsError(msg, where=str(index), hint="copy all shards next to the index")
    return [index.parent / name for name in names]


def _places(index: Path) -> Mapping[str, Any]:
    places = _json(index).get("weight_map")
    if not isinstance(places, Mapping) or not places:
        raise WeightsError("no weight_map in this index", where=str(index), hint="copy it again")
    return places


def _with_config(found: ForeignCheckpoint, folder: Path) -> ForeignCheckpoint:
    """Add what the folder says of its model."""
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    beside = [folder / name for name in PREPROCESSORS if (folder / name).is_file()]
    return replace(
        found,
        where=str(folder),
        config=config,
        preprocessor=_json(beside[0]) if beside else {},
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            value = json.loads(file.read(_LONGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"not readable as JSON: {error}", where=str(path), hint="copy it again"
        ) from error
    if not isinstance(value, dict):
        raise WeightsError("expected a JSON object", where=str(path), hint="copy it again")
    return value
