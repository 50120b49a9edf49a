"""Weights out for transformers: a folder that ``from_pretrained`` loads.

Keys are those of transformers' converters, which its versions before and after 5 read. Norms get
the model's epsilon, the papers' where nothing else is known, which is not transformers' default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maekit.atomic import write_text
from maekit.errors import RecipeError, WeightsError
from maekit.weights.export import (
    Exported,
    Structure,
    left_out_notes,
    patch_of,
    rename_tensors,
    require_exportable,
)
from maekit.weights.foreign import CONFIG, PREPROCESSOR, SINGLE
from maekit.weights.formats import (
    HF_MAE,
    HF_VIDEOMAE,
    Family,
    Layout,
    classifier_keys,
    without_biases,
)
from maekit.weights.header import ClassifierHeader, Header
from maekit.weights.importer import Weights
from maekit.weights.safetensors_io import write_weights
from maekit.weights.transformers_config import PYTORCH_EPS

BESIDE = ("preprocessing.json", "README.md")  # that may stand in the folder, too
# What transformers' models learn, by norm_pix_loss.
_ALWAYS = {"loss": "mse", "frames": "same"}
_TARGETS: Mapping[Family, Mapping[bool, Mapping[str, str]]] = {
    "mae": {
        False: {"name": "pixel", "space": "normalized"},
        True: {
            "name": "norm-pixel",
            "space": "normalized",
            "statistics": "joint",
            "eps": "inside",
        },
    },
    "videomae": {
        False: {"name": "pixel", "space": "unit"},
        True: {
            "name": "norm-pixel",
            "space": "unit",
            "statistics": "per-channel",
            "eps": "outside",
        },
    },
}


def export_hf(weights: Weights, path: Path) -> Exported:
    """Write a folder with config.json, model.safetensors and preprocessor_config.json.

    Raises:
        WeightsError: transformers' models cannot be this one.
        RecipeError: the folder holds other weights, which would be found first.
    """
    header = weights.header
    described = header.classifier
    family: Family = "videomae" if header.backbone.name == "video-vit" else "mae"
    model = "VideoMAE" if family == "videomae" else "ViTMAE" if described is None else "ViT"
    title = f"transformers' {model}"
    if described is not None:
        _check_head(described, family, title)
    structure = require_exportable(header, family, title, unbiased=True)
    _check_one_epsilon(structure, family, title)
    patch = patch_of(weights)
    if family == "mae":
        _check_square(header, patch, title)
    normalized = _norm_pix_loss(header, family, title)
    config = _config(header, structure, patch, normalized)
    keys = HF_VIDEOMAE if family == "videomae" else HF_MAE
    if structure.backbone.qkv_bias == "none":
        keys = without_biases(keys)
    if described is not None:
        keys = classifier_keys(keys, Layout.of(described), "classifier")
        config |= _head(described, family)
    tensors = rename_tensors(keys, structure, weights)
    if structure.decoder is None and described is None:
        # An encoder alone is the base model, whose keys have no prefix.
        prefix = "videomae." if family == "videomae" else "vit."
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    _prepare(path)
    write_weights(path / SINGLE[0], tensors)
    _json(path / PREPROCESSOR, _preprocessor(header, family))
    _json(path / CONFIG, config)
    notes = list(left_out_notes(weights))
    if described is not None and described.norm == "fresh" and described.norm_eps != PYTORCH_EPS:
        notes.append(
            "transformers computes VideoMAE's fc_norm with an epsilon of 1e-5, whatever the config "
            f"says: set model.fc_norm.eps = {described.norm_eps:g} for the same predictions"
        )
    decoder = structure.decoder
    if family == "videomae" and decoder is not None and decoder.epsilons.last != PYTORCH_EPS:
        notes.append(
            "transformers computes VideoMAE's decoder.norm with an epsilon of 1e-5, whatever the "
            f"config says: set model.decoder.norm.eps = {decoder.epsilons.last:g} for the same "
            "predictions"
        )
    notes.append(
        f"load it: transformers.{config['architectures'][0]}.from_pretrained({str(path)!r})"
    )
    return Exported(tensors, tuple(notes))


def _check_head(described: ClassifierHeader, family: Family, title: str) -> None:
    """Refuse heads that transformers' classifiers have no place for.

    ViT's stands on the class token behind the encoder's own norm, VideoMAE's on the mean token.
    """
    layout = Layout.of(described)
    wanted = Layout("mean", "fresh") if family == "videomae" else Layout("cls", "pretrained")
    if layout != wanted:
        probe = ", batch norm" if layout.batch_norm else ""
        msg = (
            f"{title} has its head on pool {wanted.pool}, norm {wanted.norm}; this one is on pool "
            f"{layout.pool}, norm {layout.norm}{probe}"
        )
        hint = "use --to timm, onnx or export; or --encoder for the encoder alone"
        raise WeightsError(msg, where="--to", hint=hint)


def _head(described: ClassifierHeader, family: Family) -> dict[str, Any]:
    """Return what a config says of a classifier."""
    video = family == "videomae"
    problems = {
        "multiclass": "single_label_classification",
        "multilabel": "multi_label_classification",
        "regression": "regression",
    }
    names = {str(place): name for place, name in enumerate(described.outputs)}
    more = {"use_mean_pooling": True} if video else {"model_type": "vit"}
    name = "VideoMAEForVideoClassification" if video else "ViTForImageClassification"
    return more | {
        "architectures": [name],
        "id2label": names,
        "label2id": {name: int(place) for place, name in names.items()},
        "problem_type": problems[described.kind],
    }


def _check_one_epsilon(structure: Structure, family: Family, title: str) -> None:
    """Refuse norms of more than one epsilon, which stands only once in a config.

    Attention has biases in both parts or in none, likewise.
    """
    backbone, decoder = structure
    known = {*backbone.epsilons}
    if decoder is not None:
        known |= {decoder.epsilons.blocks} if family == "videomae" else {*decoder.epsilons}
    problems = []
    if len(known) > 1:
        problems.append(f"norms of epsilons {', '.join(f'{each:g}' for each in sorted(known))}")
    if decoder is not None and decoder.qkv_bias != backbone.qkv_bias:
        problems.append(f"qkv_bias {backbone.qkv_bias} and, in the decoder, {decoder.qkv_bias}")
    if problems:
        msg = f"{title} cannot hold this model: {'; '.join(problems)}"
        raise WeightsError(msg, where="--to", hint="use --to maekit, which holds every model")


def _check_square(header: Header, patch: tuple[int, int, int], title: str) -> None:
    """Refuse grids that are not square.

    ViTMAE takes the root of the number of patches for both sides of its grid.
    """
    _, height, width = header.clip
    if height != width or patch[1] != patch[2]:
        msg = (
            f"{title} holds square pictures of square patches, this model has {height}x{width} "
            f"pixels and patches of {patch[1]}x{patch[2]}"
        )
        raise WeightsError(msg, where="--to", hint="use --to maekit, mae or timm")


def _norm_pix_loss(header: Header, family: Family, title: str) -> bool | None:
    """Return how transformers must normalize its target; None without a decoder."""
    if header.decoder is None:
        return None
    if header.target is None:
        msg = f"{title} must know what its decoder predicts, and the weights do not say"
        raise WeightsError(msg, where="--to", hint="give --target norm-pixel or --target pixel")
    target = header.target.written
    for normalized, wanted in _TARGETS[family].items():
        if all(target.get(key) == value for key, value in {**_ALWAYS, **wanted}.items()):
            return normalized
    said = ", ".join(f"{key} {value}" for key, value in target.items())
    msg = f"{title} has no such target: {said}"
    raise WeightsError(msg, where="--to", hint="use --to maekit, which keeps it")


def _config(
    header: Header, structure: Structure, patch: tuple[int, int, int], normalized: bool | None
) -> dict[str, Any]:
    """Return what transformers builds the model from; every size is written out."""
    backbone, decoder = structure
    video = header.backbone.name == "video-vit"
    shape, biased = backbone.shape, backbone.qkv_bias != "none"
    config: dict[str, Any] = {
        "model_type": "videomae" if video else "vit_mae",
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": int(shape.width * backbone.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": backbone.epsilons.blocks,
        "image_size": _side(header.clip[1:]),
        "patch_size": _side(patch[1:]),
        "num_channels": header.channels,
        "qkv_bias": biased,
    }
    if video:
        config |= {
            "num_frames": header.clip[0],
            "tubelet_size": patch[0],
            "qv_bias": biased,  # "qkv_bias" before its version 5
            "use_mean_pooling": False,
        }
    if decoder is not None:
        config |= {
            "decoder_hidden_size": decoder.width,
            "decoder_num_hidden_layers": decoder.depth,
            "decoder_num_attention_heads": decoder.heads,
            "decoder_intermediate_size": int(decoder.width * decoder.mlp_ratio),
            "norm_pix_loss": normalized,
        }
    ratio = None if header.masker is None else header.masker.written.get("ratio")
    if not video and ratio is not None:
        config["mask_ratio"] = ratio
    ending = "Model" if decoder is None else "ForPreTraining"
    name = "VideoMAE" if video else "ViTMAE"
    return config | {"architectures": [f"{name}{ending}"]}


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _preprocessor(header: Header, family: Family) -> dict[str, Any]:
    height, width = header.clip[1:]
    shared = {
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(header.mean),
        "image_std": list(header.std),
    }
    if family == "mae":
        size = {"height": height, "width": width}
        return {"image_processor_type": "ViTImageProcessor", "size": size, "resample": 3} | shared
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": min(height, width)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "resample": 2,
    } | shared


def _prepare(path: Path) -> None:
    """Make the folder; refuse one that holds other files, which might be loaded instead."""
    path.mkdir(exist_ok=True)
    mine = {SINGLE[0], CONFIG, PREPROCESSOR, *BESIDE}
    others = sorted(each.name for each in path.iterdir() if each.name not in mine)
    if others:
        msg = f"this folder holds other files: {', '.join(others[:5])}"
        raise RecipeError(msg, where=str(path), hint="name a new or empty folder")


def _json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
