"""Reading weights that others wrote: .pth and .bin pickles, safetensors, Hugging Face folders.

Nothing that a file asks to run is run: pickles go through ``torch.load(weights_only=True)``, which
knows tensors and plain data, and here the classes of ``plain_pickles``, in which training code
keeps its arguments and numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from maekit.errors import RecipeError, WeightsError
from maekit.weights.checks import check_plain
from maekit.weights.plain_pickles import read_pickle
from maekit.weights.safetensors_io import read_tensors

# Under which training code keeps a state dict: MAE and VideoMAE "model", mae_st also "model_state",
# DeepSpeed "module", MoCo v3 "state_dict".
WRAPPERS = ("model", "model_state", "module", "state_dict", "model_state_dict")
SINGLE = ("model.safetensors", "pytorch_model.bin")
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
PREPROCESSORS = (PREPROCESSOR, "video_preprocessor_config.json")  # transformers 5 writes either
_LONGEST_JSON = 1 << 26  # characters; an index of shards names every tensor
NESTED = 8  # wrappers within wrappers; a file may also contain itself


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Contents of a file or folder of another project, under its own names.

    Attributes:
        where: the file or folder, for messages.
        wrapper: the keys under which the state dict lay, outermost first.
        unread: what else was there: optimizer, scaler, epoch.
        args: the training's arguments, where the file keeps them.
        config, preprocessor: of a Hugging Face folder.
    """

    tensors: dict[str, Tensor]
    where: str
    wrapper: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: a length of eight bytes, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read(path: Path) -> ForeignCheckpoint:
    """Read all tensors of a foreign file or Hugging Face folder, on the CPU.

    Raises:
        RecipeError: nothing is there.
        WeightsError: it cannot be read, holds no tensors, or a pickle tries to run code.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise RecipeError(f"no such weights file: {path}", hint="check the path")
    return _file(path)


def files_of(path: Path) -> list[Path]:
    """Return the files that hold a source's tensors."""
    if not path.is_dir():
        return [path]
    whole = [path / name for name in SINGLE if (path / name).is_file()]
    if whole:
        return whole[:1]
    indexes = [path / f"{name}.index.json" for name in SINGLE]
    return [file for index in indexes if index.is_file() for file in _shard_files(index)]


def _file(path: Path) -> ForeignCheckpoint:
    if is_safetensors(path):
        found = ForeignCheckpoint(read_tensors(path), str(path))
    else:
        found = _unwrapped(read_pickle(path), str(path))
        check_plain(found.tensors, path.stat().st_size, str(path))
    if path.name in SINGLE and (path.parent / CONFIG).is_file():
        return _with_config(found, path.parent)
    return found


def _unwrapped(found: Any, where: str) -> ForeignCheckpoint:  # noqa: ANN401 (whatever was saved)
    """Take the state dict out of a training checkpoint."""
    wrapper: tuple[str, ...] = ()
    others: dict[str, None] = {}
    read = set[str]()
    args: Mapping[str, Any] = {}
    for _ in range(NESTED):
        if not isinstance(found, Mapping):
            break
        if isinstance(found.get("args"), argparse.Namespace):
            args = vars(found["args"])
            read.add("args")
        inner = next((key for key in WRAPPERS if _holds_tensors(found.get(key))), None)
        if inner is None:
            break
        others |= dict.fromkeys(str(key) for key in found if key != inner)
        wrapper, found = (*wrapper, inner), found[inner]
    tensors = {}
    if isinstance(found, Mapping):
        tensors = {str(name): each for name, each in found.items() if isinstance(each, Tensor)}
        others |= dict.fromkeys(str(name) for name in found if str(name) not in tensors)
    if not tensors:
        held = f"it holds {', '.join(others)}" if others else f"it is a {type(found).__name__}"
        msg = f"no state dict in this file: {held}"
        hint = "give a state dict, alone or under " + ", ".join(WRAPPERS)
        raise WeightsError(msg, where=where, hint=hint)
    left = tuple(name for name in others if name not in read)
    return ForeignCheckpoint(tensors, where, wrapper, left, args)


def _holds_tensors(value: object, nested: int = NESTED) -> bool:
    """Return whether a value is a state dict, or a wrapper around one."""
    if not isinstance(value, Mapping) or not nested:
        return False
    if any(isinstance(each, Tensor) for each in value.values()):
        return True
    return any(_holds_tensors(value.get(key), nested - 1) for key in WRAPPERS)


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
    return ForeignCheckpoint(
        found.tensors,
        str(folder),
        found.wrapper,
        found.unread,
        found.args,
        config,
        _json(beside[0]) if beside else {},
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
