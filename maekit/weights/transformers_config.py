"""What transformers computes from a config.json, and what of it maekit computes too.

A key that is missing has the value of transformers' class (configuration_vit_mae.py,
configuration_videomae.py, configuration_vit.py), which is what its own from_pretrained would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maekit.errors import WeightsError
from maekit.weights.formats import BIASES
from maekit.weights.hints import IMAGENET, FileHints
from maekit.weights.stated import (
    as_count,
    as_deviations,
    as_flag,
    as_floats,
    as_names,
    as_number,
    as_size,
    stated,
)

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.weights.foreign import ForeignCheckpoint

HF_MODELS = {"vit_mae": "mae", "vit": "mae", "videomae": "videomae"}
_SHARED = {
    "num_attention_heads": 12, "layer_norm_eps": 1e-12, "image_size": 224, "hidden_act": "gelu",
    "qkv_bias": True,
}  # fmt: skip
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vit": _SHARED,
    "vit_mae": _SHARED | {"decoder_num_attention_heads": 16, "norm_pix_loss": False},
    "videomae": _SHARED
    | {
        "decoder_num_attention_heads": 6,
        "norm_pix_loss": True,
        "num_frames": 16,
        "use_mean_pooling": True,
    },
}
# Of its functions those that are maekit's: the error function's GELU.
_GELU = ("gelu", "gelu_python")
PYTORCH_EPS = 1e-5  # of norms that transformers builds without the config's epsilon
_OTHER_CONFIG = "put the right config.json next to them"


def hints_of_config(found: ForeignCheckpoint, family: str, *, classifier: bool) -> FileHints:
    """Return what a folder of transformers' says of its model.

    Raises:
        WeightsError: its config is of another model, or of one that maekit cannot compute.
    """
    where = found.where
    model = str(found.config.get("model_type"))
    if HF_MODELS.get(model) != family:
        msg = f"config.json is of a {model} model, the tensors are not"
        raise WeightsError(msg, where=where, hint=_OTHER_CONFIG)
    said = {key: value for key, value in found.config.items() if value is not None}
    config: dict[str, Any] = {**_DEFAULTS[model], **said}
    if config["hidden_act"] not in _GELU:
        msg = f"config.json has hidden_act {config['hidden_act']!r}; maekit computes gelu"
        raise WeightsError(msg, where=where, hint="give weights trained with gelu")
    eps = stated(config, "layer_norm_eps", _epsilon, where)
    video = model == "videomae"
    if video:
        _check_pooling(config, where, classifier=classifier)
    mean, std = _statistics(found)
    target, notes = _target(config, mean, std, where, video=video)
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropped = [key for key in dropouts if stated(config, key, as_number, where)]
    if dropped:
        notes.append(f"{' and '.join(dropped)}: maekit's models drop nothing while they train")
    return FileHints(
        target=target,
        heads=stated(config, "num_attention_heads", as_count, where),
        decoder_heads=stated(config, "decoder_num_attention_heads", as_count, where),
        frames=stated(config, "num_frames", as_count, where),
        size=stated(config, "image_size", as_size, where),
        mean=mean,
        std=std,
        classes=stated(config, "id2label", as_names, where),
        eps=eps,
        # Of a classifier, the norm behind its pooling is the last that was trained.
        last_eps=PYTORCH_EPS if video and classifier else eps,
        decoder_last_eps=PYTORCH_EPS if video else eps,
        pooled_eps=PYTORCH_EPS if video else None,
        space="normalized" if video and config.get("num_channels", 3) != 3 else None,
        notes=tuple(notes),
    )


def _check_pooling(config: Mapping[str, Any], where: str, *, classifier: bool) -> None:
    """Refuse VideoMAE's encoders without a last norm, and heads on its first token."""
    pooled = stated(config, "use_mean_pooling", as_flag, where)
    if pooled and not classifier:
        msg = (
            "config.json has use_mean_pooling true (transformers' default): its model then has no "
            "norm behind the last block, and maekit's encoders have one"
        )
        hint = "give a model with use_mean_pooling false, or a classifier of transformers'"
        raise WeightsError(msg, where=where, hint=hint)
    if classifier and not pooled:
        msg = (
            "config.json has use_mean_pooling false: transformers classifies by the first of the "
            "clip's tokens, and maekit by their mean"
        )
        hint = "for the encoder alone, convert with --allow-missing 'classifier.*'"
        raise WeightsError(msg, where=where, hint=hint)


def _target(
    config: Mapping[str, Any],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    where: str,
    *,
    video: bool,
) -> tuple[str | None, list[str]]:
    """Find which pixels the decoder predicts, as far as maekit has such a target."""
    normalized = stated(config, "norm_pix_loss", as_flag, where)
    name = {True: "norm-pixel", False: "pixel", None: None}[normalized]
    if not video:
        return name, []
    # VideoMAE's pixels go back to [0, 1] by ImageNet's statistics, whatever they were normalized
    # with; those of other than three channels do not go back (modeling_videomae.py, forward).
    if config.get("num_channels", 3) != 3:
        note = "target: transformers has none of raw pixels in other than three channels"
        return (name, []) if normalized else (None, [note])
    if (mean, std) == IMAGENET or mean is None:
        return name, []
    note = (
        "transformers takes pixels back to [0, 1] with ImageNet's mean and std, not with those of "
        "its own preprocessor"
    )
    if normalized:  # their own mean and deviation take that away again
        return name, [f"{note}; of normalized patches only their epsilon differs"]
    return None, [f"target: {note}: maekit has no such one"]


def _statistics(
    found: ForeignCheckpoint,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and deviation of the [0, 1] pixels, as the preprocessor applies them.

    Raises:
        WeightsError: it does what no mean and deviation stand for.
    """
    said, where = found.preprocessor, found.where
    if not said:
        return None, None
    if said.get("offset"):
        msg = "the preprocessor shifts pixels (offset), which maekit does not"
        raise WeightsError(msg, where=where, hint="set offset to false and say it by image_mean")
    mean = stated(said, "image_mean", as_floats, where)
    std = stated(said, "image_std", as_deviations, where)
    if stated(said, "do_normalize", as_flag, where) is False:
        channels = stated(found.config, "num_channels", as_count, where) or 3
        mean, std = (0.0,) * channels, (1.0,) * channels
    if mean is None or std is None:
        return mean, std
    factor = stated(said, "rescale_factor", as_number, where)
    if stated(said, "do_rescale", as_flag, where) is False:
        factor = 1.0
    scale = 1.0 if factor is None else 255 * factor
    if abs(scale - 1) < 1e-6:
        return mean, std
    return tuple(each / scale for each in mean), tuple(each / scale for each in std)


def _epsilon(value: object) -> float | None:
    found = as_number(value)
    return found if found is not None and found >= 0 else None


def check_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a config that states other sizes than its tensors have, which transformers would not.

    It would leave tensors out, or start them afresh.

    Args:
        config: of transformers.
        tensors: under maekit's names.
        where: the folder, for errors.

    Raises:
        WeightsError: names the first.
    """
    if "model_type" not in config:
        return
    for key, real in _sizes(tensors).items():
        said = config.get(key)
        pair = as_size(said) if key == "patch_size" else said
        if said is not None and pair != real:
            msg = f"config.json has {key} {said}, the tensors have {_text(real)}"
            raise WeightsError(msg, where=where, hint=_OTHER_CONFIG)


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes that tensors show, by the config's keys."""
    found: dict[str, Any] = {}
    embed = tensors.get("backbone.patch_embed.weight")
    if embed is not None and embed.ndim == 5:
        found = {"hidden_size": embed.shape[0], "num_channels": embed.shape[1]}
        found |= {"tubelet_size": embed.shape[2], "patch_size": (embed.shape[3], embed.shape[4])}
    stacks = {"": "backbone.transformer.", "decoder_": "decoder.blocks."}
    for prefix, start in stacks.items():
        numbers = {
            key.removeprefix(start).partition(".")[0] for key in tensors if key.startswith(start)
        }
        if not numbers:
            continue
        found[f"{prefix}num_hidden_layers"] = len(numbers)
        inner = tensors.get(f"{start}0.mlp.fc1.weight")
        if inner is not None and inner.ndim == 2:
            found[f"{prefix}intermediate_size"] = inner.shape[0]
            found[f"{prefix}hidden_size"] = inner.shape[1]
        biased = any(key.startswith(f"{start}0.") and key.endswith(BIASES) for key in tensors)
        found |= {"qkv_bias": biased, "qv_bias": biased}
    return found
