"""Weights out for timm: encoders, and classifiers of its plain ViTs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.errors import WeightsError
from maekit.weights.export import (
    Exported,
    Structure,
    keys_of,
    left_out_notes,
    other_epsilons,
    patch_of,
    rename_tensors,
    require_exportable,
    write_pickle,
)
from maekit.weights.formats import MAE
from maekit.weights.safetensors_io import write_weights
from maekit.weights.timm import version as timm_version

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maekit.weights.header import Header
    from maekit.weights.importer import Weights

TIMM_VIT = "timm-vit"  # the backbone that runs timm's own code
LOAD = "load it: "
_OWN = "backbone.model."  # before timm's own names
TIMM_SIZE = 224  # pixels a side that timm's names below stand for
TIMM_NAMES = {  # (width, depth, heads), patch
    ((192, 12, 3), 16): "vit_tiny_patch16_224",
    ((384, 12, 6), 16): "vit_small_patch16_224",
    ((768, 12, 12), 16): "vit_base_patch16_224",
    ((1024, 24, 16), 16): "vit_large_patch16_224",
    ((1280, 32, 16), 14): "vit_huge_patch14_224",
}
TIMM_OTHER = ((768, 12, 12), 16)


def export_timm(weights: Weights, path: Path) -> Exported:
    """Write a state dict for timm, with the head if any, by the suffix safetensors or a pickle.

    Raises:
        WeightsError: a linear probe, whose batch norm timm has no place for; another encoder.
    """
    if weights.header.backbone.name == TIMM_VIT:
        return _export_timms_own(weights, path)
    title = "timm's plain ViT, with a class token and one frame,"
    structure = require_exportable(weights.header, "mae", title, encoder=True)
    described = weights.header.classifier
    if described is not None and described.batch_norm:
        hint = "--to mae or maekit"
        raise WeightsError(f"{title} has no batch norm before its head", where="--to", hint=hint)
    tensors = rename_tensors(keys_of(MAE, weights.header), structure, weights)
    _write(tensors, path)
    notes = _left_out(weights)
    notes += other_epsilons(structure._replace(decoder=None), "timm's")
    notes.append(f"{LOAD}{timm_call(weights.header, structure, patch_of(weights), path)}")
    return Exported(tensors, tuple(notes))


def _export_timms_own(weights: Weights, path: Path) -> Exported:
    """Write what timm's own code computed, under its own names, and the line that loads it.

    The head is none of it: behind timm's models it is pooled as each of them pools.
    """
    tensors = {
        name.removeprefix(_OWN): tensor
        for name, tensor in weights.tensors.items()
        if name.startswith(_OWN)
    }
    name, settings, expected = _timms_own(weights.header)
    strange = sorted(tensors.keys() - expected)
    if strange:
        msg = f"timm's {name} has no place for {', '.join(strange)}"
        hint = f"use the version of timm that it was trained with, not {timm_version()}"
        raise WeightsError(msg, where="--to", hint=hint)
    _write(tensors, path)
    notes = _left_out(weights)
    said = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    lacking = sorted(expected - tensors.keys())
    load = f"timm.create_model({name!r}, {said}"
    if lacking:
        notes.append(f"not in the file, as nothing trained it: {', '.join(lacking)}")
        load = f"model = {load}); timm.models.load_checkpoint(model, {str(path)!r}, strict=False)"
    else:
        load = f"{load}, checkpoint_path={str(path)!r})"
    return Exported(tensors, (*notes, f"{LOAD}{load}"))


def _timms_own(header: Header) -> tuple[str, dict[str, Any], set[str]]:
    """Return a model of timm's, what builds it as it was trained, and its tensors' names."""
    import timm
    import torch

    name = str(header.backbone.written["model"])
    # Without pooling, the last norm is called norm, as here.
    settings: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    if header.channels != 3:
        settings["in_chans"] = header.channels
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size and known.input_size[1:] != header.clip[1:]:
        settings["img_size"] = header.clip[1:]
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, **settings)
    return name, settings, set(model.state_dict())


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        write_weights(path, tensors)
    else:
        write_pickle(path, dict(tensors))


def _left_out(weights: Weights) -> list[str]:
    """Say what stays behind: the decoder, and what the target fitted."""
    behind = sum(name.startswith("decoder.") for name in weights.tensors)
    said = [f"left out: {behind} tensors of the decoder; timm holds encoders"] if behind else []
    return [*left_out_notes(weights), *said]


def load_timm(weights: Weights, path: Path) -> nn.Module:
    """Build timm's model as the line says that was printed, with what was written."""
    import timm

    structure = require_exportable(weights.header, "mae", "timm's", encoder=True)
    name, settings = _timm_model(weights.header, structure, patch_of(weights))
    model: nn.Module = timm.create_model(name, **settings, checkpoint_path=str(path))
    return model.eval()


def timm_call(header: Header, structure: Structure, patch: tuple[int, int, int], path: Path) -> str:
    """Return the line of Python that builds timm's model."""
    name, settings = _timm_model(header, structure, patch)
    said = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"timm.create_model({name!r}, {said}, checkpoint_path={str(path)!r})"


def _timm_model(
    header: Header, structure: Structure, patch: tuple[int, int, int]
) -> tuple[str, dict[str, Any]]:
    """Return the name of timm's model, and only what differs from its architecture."""
    shape = structure.backbone.shape
    key = ((shape.width, shape.depth, shape.heads), patch[1])
    square = patch[1] == patch[2]
    name = TIMM_NAMES.get(key) if square else None
    described = header.classifier
    settings: dict[str, Any] = {"num_classes": 0 if described is None else len(described.outputs)}
    if described is not None and described.pool == "mean":
        settings["global_pool"] = "avg"
    if name is None:
        name, (_, usual) = TIMM_NAMES[TIMM_OTHER], TIMM_OTHER
        settings |= {"embed_dim": shape.width, "depth": shape.depth, "num_heads": shape.heads}
        if patch[1:] != (usual, usual):
            settings["patch_size"] = patch[1] if square else patch[1:]
    if structure.backbone.mlp_ratio != 4:
        settings["mlp_ratio"] = structure.backbone.mlp_ratio
    if header.clip[1:] != (TIMM_SIZE, TIMM_SIZE):
        height, width = header.clip[1:]
        settings["img_size"] = height if height == width else (height, width)
    if header.channels != 3:
        settings["in_chans"] = header.channels
    return name, settings
