"""Reading weights that others wrote: .pth and .bin pickles, safetensors, Hugging Face folders.

Nothing that a file asks to run is run: pickles go through ``torch.load(weights_only=True)``, which
knows tensors and plain data, and here the classes of ``plain_pickles``, in which training code
keeps its arguments and numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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
    other = folder / PREPROCESSOR
    return ForeignCheckpoint(
        found.tensors,
        str(folder),
        found.wrapper,
        found.unread,
        found.args,
        config,
        _json(other) if other.is_file() else {},
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


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.45,) * 3, (0.225,) * 3)  # mae_st, util/kinetics.py
T = TypeVar("T")
HF_MODELS = {"vit_mae": "mae", "vit": "mae", "videomae": "videomae"}


@dataclass(frozen=True)
class UserHints:
    """Facts that the user gives, as the file does not hold them.

    Attributes:
        target: "pixel" or "norm-pixel": what the decoder was trained to predict.
        heads, decoder_heads: attention heads, which no tensor's shape tells.
        clip: the model's own input in pixels, (T, H, W).
        classes: names of a classifier's outputs, in their order.
    """

    target: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    clip: tuple[int, int, int] | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FileHints:
    """The same, from the file or its folder; None where it does not say."""

    target: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    dropout: float | None = None  # of the features, before a classifier's head
    notes: tuple[str, ...] = ()


def read_file_hints(found: ForeignCheckpoint, family: str) -> FileHints:
    """Return what a file says of its model.

    Raises:
        WeightsError: the config is of another model, or contradicts what is known.
    """
    if found.config:
        return _hints_of_config(found, family)
    args = found.args
    normalized = args.get("norm_pix_loss", args.get("normlize_target"))
    target = None
    # VideoMAE's flag is type=bool: whatever was typed, it is a bool here.
    if isinstance(normalized, bool):
        target = "norm-pixel" if normalized else "pixel"
    return FileHints(
        target=target,
        frames=_count(args.get("num_frames")),
        size=_size(args.get("input_size")),
        dropout=next(filter(None, (_share(args.get(key)) for key in _DROPOUTS)), None),
    )


# Of VideoMAE, VideoMAEv2 and mae_st.
_DROPOUTS = ("fc_drop_rate", "head_drop_rate", "dropout")


def _hints_of_config(found: ForeignCheckpoint, family: str) -> FileHints:
    config = found.config
    if "architecture" in config and "model_type" not in config:
        return _hints_of_timm(found, family)
    model = str(config.get("model_type"))
    if HF_MODELS.get(model) != family:
        msg = f"config.json is of a {model} model, the tensors are not"
        raise WeightsError(msg, where=found.where, hint="put the right config.json next to them")
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        msg = f"config.json has hidden_act {activation!r}; maekit computes gelu"
        raise WeightsError(msg, where=found.where, hint="give weights trained with gelu")
    notes = []
    epsilon = _stated(config, "layer_norm_eps", _number, found.where)
    if epsilon not in (None, 1e-6):
        notes.append(
            f"config.json has layer_norm_eps {epsilon}; maekit computes with 1e-6, as the papers' "
            "code does: features differ from transformers' in about the fifth digit"
        )
    normalized = _stated(config, "norm_pix_loss", _flag, found.where)
    target = None if normalized is None else ("norm-pixel" if normalized else "pixel")
    return FileHints(
        target=target,
        heads=_stated(config, "num_attention_heads", _count, found.where),
        decoder_heads=_stated(config, "decoder_num_attention_heads", _count, found.where),
        frames=_stated(config, "num_frames", _count, found.where),
        size=_stated(config, "image_size", _size, found.where),
        mean=_stated(found.preprocessor, "image_mean", _floats, found.where),
        std=_stated(found.preprocessor, "image_std", _deviations, found.where),
        classes=_stated(config, "id2label", _names, found.where),
        notes=tuple(notes),
    )


def _hints_of_timm(found: ForeignCheckpoint, family: str) -> FileHints:
    """Read timm's hub folders: {"architecture": ..., "pretrained_cfg": {...}}."""
    if family != "mae":
        msg = f"config.json is of timm's {found.config['architecture']}, the tensors are not"
        raise WeightsError(msg, where=found.where, hint="put the right config.json next to them")
    said = found.config.get("pretrained_cfg")
    config = said if isinstance(said, Mapping) else {}
    size = _stated(config, "input_size", _channels_and_size, found.where)
    return FileHints(
        size=None if size is None else size[1:],
        mean=_stated(config, "mean", _floats, found.where),
        std=_stated(config, "std", _deviations, found.where),
    )


def _stated(
    config: Mapping[str, Any], key: str, read: Callable[[object], T | None], where: str
) -> T | None:
    """Return what a file says under a key; None where the key is missing or null.

    Raises:
        WeightsError: it is not what the key is for.
    """
    value = config.get(key)
    if value is None:
        return None
    found = read(value)
    if found is None:
        msg = f"{key} is {value!r}, which cannot be"
        raise WeightsError(msg, where=where, hint="mend it, or delete the line")
    return found


def _names(value: object) -> tuple[str, ...] | None:
    """Return the names of {"0": name, "1": name, ...} in the order of their numbers."""
    if not isinstance(value, Mapping):
        return None
    names = {str(key): name for key, name in value.items() if isinstance(name, str)}
    ordered = [names.get(str(number)) for number in range(len(value))]
    found = tuple(name for name in ordered if name is not None)
    return found if len(found) == len(value) else None


def _share(value: object) -> float | None:
    found = _number(value)
    return found if found is not None and 0 <= found < 1 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and _flag(value) is None and value > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and _flag(value) is None else None


def _counts(value: object) -> tuple[int, ...]:
    """Return whole numbers above 0; empty where one of them is not."""
    counts = [_count(each) for each in value] if isinstance(value, (list, tuple)) else []
    return () if None in counts else tuple(each for each in counts if each is not None)


def _size(value: object) -> tuple[int, int] | None:
    side = _count(value)
    if side is not None:
        return side, side
    sizes = _counts(value)
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def _channels_and_size(value: object) -> tuple[int, int, int] | None:
    sizes = _counts(value)
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else None


def _floats(value: object) -> tuple[float, ...] | None:
    numbers = [_number(each) for each in value] if isinstance(value, (list, tuple)) else [None]
    found = tuple(each for each in numbers if each is not None)
    return found if len(found) == len(numbers) else None


def _deviations(value: object) -> tuple[float, ...] | None:
    found = _floats(value)
    return found if found is not None and all(each > 0 for each in found) else None
