"""What a foreign file says of its model beside its tensors: a config, or a training's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from maekit.errors import WeightsError
from maekit.weights.foreign import Foreign

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.45,) * 3, (0.225,) * 3)  # mae_st, util/kinetics.py
T = TypeVar("T")
HF_MODELS = {"vit_mae": "mae", "vit": "mae", "videomae": "videomae"}


@dataclass(frozen=True)
class Given:
    """What the user says of a file that does not say it itself.

    Attributes:
        target: "pixel" or "norm-pixel": what the decoder was trained to predict.
        heads, decoder_heads: attention heads, which no tensor's shape tells.
        clip: the model's own input in pixels, (T, H, W).
    """

    target: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    clip: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Hints:
    """The same, from the file or its folder; None where it does not say."""

    target: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


def hints_of(found: Foreign, family: str) -> Hints:
    """What a file says of itself.

    Raises:
        WeightsError: the config is of another model, or contradicts what is known.
    """
    if found.config:
        return _of_config(found, family)
    args = found.args
    normalized = args.get("norm_pix_loss", args.get("normlize_target"))
    target = None
    # VideoMAE's flag is type=bool: whatever was typed, it is a bool here.
    if isinstance(normalized, bool):
        target = "norm-pixel" if normalized else "pixel"
    return Hints(
        target=target,
        frames=_count(args.get("num_frames")),
        size=_size(args.get("input_size")),
    )


def _of_config(found: Foreign, family: str) -> Hints:
    config = found.config
    if "architecture" in config and "model_type" not in config:
        return _of_timm(found, family)
    model = str(config.get("model_type"))
    if HF_MODELS.get(model) != family:
        msg = f"config.json is of a {model} model, the tensors are not"
        raise WeightsError(msg, where=found.where, hint="put the right config.json beside them")
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        msg = f"config.json has hidden_act {activation!r}; maekit computes gelu"
        raise WeightsError(msg, where=found.where, hint="give weights trained with gelu")
    notes = []
    epsilon = _said(config, "layer_norm_eps", _number, found.where)
    if epsilon not in (None, 1e-6):
        notes.append(
            f"config.json has layer_norm_eps {epsilon}; maekit computes with 1e-6, as the papers' "
            "code does: features differ from transformers' in about the fifth digit"
        )
    normalized = _said(config, "norm_pix_loss", _flag, found.where)
    target = None if normalized is None else ("norm-pixel" if normalized else "pixel")
    return Hints(
        target=target,
        heads=_said(config, "num_attention_heads", _count, found.where),
        decoder_heads=_said(config, "decoder_num_attention_heads", _count, found.where),
        frames=_said(config, "num_frames", _count, found.where),
        size=_said(config, "image_size", _size, found.where),
        mean=_said(found.preprocessor, "image_mean", _floats, found.where),
        std=_said(found.preprocessor, "image_std", _deviations, found.where),
        notes=tuple(notes),
    )


def _of_timm(found: Foreign, family: str) -> Hints:
    """What timm's hub folders say: {"architecture": ..., "pretrained_cfg": {...}}."""
    if family != "mae":
        msg = f"config.json is of timm's {found.config['architecture']}, the tensors are not"
        raise WeightsError(msg, where=found.where, hint="put the right config.json beside them")
    said = found.config.get("pretrained_cfg")
    config = said if isinstance(said, Mapping) else {}
    size = _said(config, "input_size", _channels_and_size, found.where)
    return Hints(
        size=None if size is None else size[1:],
        mean=_said(config, "mean", _floats, found.where),
        std=_said(config, "std", _deviations, found.where),
    )


def _said(
    config: Mapping[str, Any], key: str, read: Callable[[object], T | None], where: str
) -> T | None:
    """What a file says under a key; None where it has no such key or null.

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


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and _flag(value) is None and value > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and _flag(value) is None else None


def _counts(value: object) -> tuple[int, ...]:
    """Empty where one is none."""
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
