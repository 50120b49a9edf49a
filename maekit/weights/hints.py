"""What a foreign file says of its model beside its tensors: a config, or a training's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maekit.errors import WeightsError
from maekit.weights.foreign import Foreign

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.45,) * 3, (0.225,) * 3)  # mae_st, util/kinetics.py
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
    normalised = args.get("norm_pix_loss", args.get("normlize_target"))
    target = None
    # VideoMAE's flag is type=bool: whatever was typed, it is a bool here.
    if isinstance(normalised, bool):
        target = "norm-pixel" if normalised else "pixel"
    frames = args.get("num_frames")
    return Hints(
        target=target,
        frames=frames if isinstance(frames, int) else None,
        size=_size(args.get("input_size")),
    )


def _of_config(found: Foreign, family: str) -> Hints:
    config = found.config
    model = str(config.get("model_type"))
    if HF_MODELS.get(model) != family:
        msg = f"config.json is of a {model} model, the tensors are not"
        raise WeightsError(msg, where=found.where, hint="put the right config.json beside them")
    notes = []
    epsilon = config.get("layer_norm_eps")
    if epsilon is not None and float(epsilon) != 1e-6:
        notes.append(
            f"config.json has layer_norm_eps {epsilon}; maekit computes with 1e-6, as the papers' "
            "code does: features differ from transformers' in about the fifth digit"
        )
    normalised = config.get("norm_pix_loss")
    target = None if normalised is None else ("norm-pixel" if normalised else "pixel")
    mean, std = (_floats(found.preprocessor.get(key)) for key in ("image_mean", "image_std"))
    return Hints(
        target=target,
        heads=_int(config, "num_attention_heads"),
        decoder_heads=_int(config, "decoder_num_attention_heads"),
        frames=_int(config, "num_frames"),
        size=_size(config.get("image_size")),
        mean=mean,
        std=std,
        notes=tuple(notes),
    )


def _int(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) else None


def _size(value: object) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    return None


def _floats(value: object) -> tuple[float, ...] | None:
    return tuple(map(float, value)) if isinstance(value, (list, tuple)) else None
