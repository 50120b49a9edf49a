"""Weights out: files that the code of MAE, VideoMAE and timm loads without an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor

from maekit.atomic import write_atomically
from maekit.errors import RecipeError, WeightsError
from maekit.layers import LAYER_NORM_EPS
from maekit.weights.formats import (
    LAYOUTS,
    MAE,
    VIDEOMAE,
    VIDEOMAE_ENCODER,
    Family,
    Layout,
    classifier_keys,
)
from maekit.weights.header import Header
from maekit.weights.hints import IMAGENET
from maekit.weights.importer import Weights
from maekit.weights.infer import DECODER_HEADS, PIXELS, published_heads, target_part
from maekit.weights.keymap import KeyMap, to_theirs
from maekit.weights.safetensors_io import OURS, TARGET, write_weights


class Exported(NamedTuple):
    """Tensors that a conversion wrote, and notes for the user."""

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def export_maekit(weights: Weights, path: Path) -> Exported:
    """Write safetensors with a header: everything is kept."""
    write_weights(path, weights.tensors, weights.header)
    return Exported(weights.tensors)


def export_mae(weights: Weights, path: Path) -> Exported:
    """Write a pickle of {"model": ...} for facebookresearch/mae, with decoder or head if any."""
    structure = require_exportable(weights.header, "mae", "facebookresearch/mae")
    tensors = rename_tensors(keys_of(MAE, weights.header), structure, weights)
    write_pickle(path, {"model": tensors})
    notes = list(left_out_notes(weights))
    if weights.header.clip[1] != weights.header.clip[2]:
        notes.append("not square: the file does not say its grid; give --clip to read it again")
    return Exported(tensors, (*notes, *_missing_facts(weights.header, structure, "mae")))


def export_videomae(weights: Weights, path: Path) -> Exported:
    """Write a pickle of {"model": ...} as MCG-NJU/VideoMAE's pre-training or fine-tuning does."""
    structure = require_exportable(weights.header, "videomae", "MCG-NJU/VideoMAE")
    own = VIDEOMAE if weights.header.classifier is None else VIDEOMAE_ENCODER
    tensors = rename_tensors(keys_of(own, weights.header), structure, weights)
    write_pickle(path, {"model": tensors})
    clip = "x".join(map(str, weights.header.clip))
    kept = f"the file does not say its clip, {clip}; give it with --clip to read it again"
    missing = _missing_facts(weights.header, structure, "videomae")
    return Exported(tensors, (*left_out_notes(weights), kept, *missing))


def keys_of(encoder: KeyMap, header: Header) -> KeyMap:
    """Return a format's keys for a model: those of its classifier, where it is one."""
    if header.classifier is None:
        return encoder
    return classifier_keys(encoder, Layout.of(header.classifier))


def rename_tensors(keys: KeyMap, structure: Structure, weights: Weights) -> dict[str, Tensor]:
    """Return the model's tensors under a format's names."""
    return to_theirs(keys.rules_for(*structure.depths), weights.tensors)


def patch_of(weights: Weights) -> tuple[int, int, int]:
    """Return the pixels per token of maekit's own ViTs: (pt, ph, pw)."""
    pt, ph, pw = weights.tensors["backbone.patch_embed.weight"].shape[2:]
    return pt, ph, pw


def left_out_notes(weights: Weights) -> tuple[str, ...]:
    """Name the tensors that other formats have no place for."""
    fitted = [name for name in weights.tensors if name.startswith(TARGET)]
    if not fitted:
        return ()
    return (f"left out: {', '.join(fitted)}, which the target fitted; only maekit keeps them",)


def count_parameters(tensors: Mapping[str, Tensor]) -> int:
    """Count the values in the encoder's and the decoder's tensors."""
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(OURS))


def other_epsilons(structure: Structure, where: str) -> Iterator[str]:
    """Name the norms that others' code computes with the papers' epsilon, and this model not."""
    parts = {"encoder": structure.backbone, "decoder": structure.decoder}
    found = [
        f"{name} {eps:g}"
        for name, options in parts.items()
        for eps in dict.fromkeys(() if options is None else options.epsilons)
        if eps != LAYER_NORM_EPS
    ]
    if found:
        yield (
            f"norms add {LAYER_NORM_EPS:g} to the variance in {where}, in this model the "
            f"{', the '.join(found)}: set that there too, or features are only near"
        )


def _missing_facts(header: Header, structure: Structure, family: Family) -> Iterator[str]:
    """Name what neither the file nor its shapes tell, and what readers assume instead."""
    encoder, decoder = structure.backbone.shape, structure.decoder
    yield from other_epsilons(structure, "its code")
    flags = []
    if published_heads(header.backbone.name).get(encoder.width) != encoder.heads:
        flags.append(f"--heads {encoder.heads}")
    if decoder is not None and DECODER_HEADS[family].get(decoder.width) != decoder.heads:
        flags.append(f"--decoder-heads {decoder.heads}")
    if flags:
        yield f"the file does not say its heads; give {' '.join(flags)} to read it again"
    if (header.mean, header.std) != IMAGENET:
        yield (
            f"the file does not say its mean {list(header.mean)} and std {list(header.std)}: its "
            "readers take their own"
        )
    if decoder is not None:
        yield _target_note(header, family)
    if header.classifier is not None:
        yield "the file does not name its classes; keep them, and give --classes to read it again"


def _target_note(header: Header, family: Family) -> str:
    """Say what the decoder predicts, and whether ``--target`` can name it."""
    target = header.target
    if target is None:
        return "the file does not say its target: unknown"
    note = f"the file does not say its target: {target.name}"
    if target.name not in PIXELS:
        return f"{note}, which {family}'s code does not know"
    own = target.options.model_dump(mode="json")
    usual = target_part(family, target.name).written
    differ = [f"{key} {value}" for key, value in own.items() if usual[key] != value]
    return f"{note}, with {', '.join(differ)}, unlike {family}'s" if differ else note


def write_pickle(path: Path, value: object) -> None:
    """Write as ``torch.save`` does, whole or not at all."""

    def write(draft: Path) -> None:
        with draft.open("wb") as file:  # given a path, torch.save keeps its name in the archive
            torch.save(value, file)

    write_atomically(path, write)


def check_destination(path: Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse a destination that is there, or whose folder does not exist.

    Args:
        path: where to write.
        folder: whether a folder is to be written, else a file.
        overwrite: whether what is there may be replaced.

    Raises:
        RecipeError: either is so, or what is there is not to be replaced by the other kind.
    """
    if path.exists() and path.is_dir() != folder:
        due = "a folder" if folder else "a file"
        raise RecipeError(f"expected {due} here", where=str(path), hint="name another one")
    if path.exists() and not overwrite:
        raise RecipeError("it is there already", where=str(path), hint="another name, --overwrite")
    if not path.parent.is_dir():
        raise RecipeError("no such folder", where=str(path.parent), hint="make it first")


Exporter = Callable[[Weights, Path], Exported]


Allowed = Mapping[str, tuple[object, ...]]

_TABLES = ("sincos-2d", "learned")  # both are saved
_BACKBONES: Mapping[str, tuple[str, Allowed]] = {
    "mae": (
        "image-vit",
        {
            "class_token": (True,),
            "qkv_bias": ("all",),
            "mask_token": (False,),
            "positions": _TABLES,
        },
    ),
    "videomae": (
        "video-vit",
        {
            "class_token": (False,),
            "qkv_bias": ("qv",),
            "mask_token": (False,),
            "positions": ("sincos-1d",),
            "positions_grid": (None,),  # its code makes the table for the grid that it runs at
        },
    ),
}
_DECODERS: Mapping[str, Allowed] = {
    "mae": {
        "qkv_bias": ("all",),
        "embed_bias": (True,),
        "class_token": (False,),
        "positions": _TABLES,
    },
    "videomae": {
        "qkv_bias": ("qv",),
        "embed_bias": (False,),
        "class_token": (False,),
        "positions": ("sincos-1d",),
        "positions_grid": (None,),
    },
}


class Structure(NamedTuple):
    """A model's options, as far as formats differ in them."""

    backbone: Any  # ViTOptions of a backbone
    decoder: Any  # the decoder's options, or None

    @property
    def depths(self) -> tuple[int, int | None]:
        """Blocks of the encoder and of the decoder."""
        return self.backbone.shape.depth, None if self.decoder is None else self.decoder.depth


def require_exportable(
    header: Header,
    family: Family,
    title: str,
    *,
    encoder: bool = False,
    unbiased: bool = False,
) -> Structure:
    """Return the options of a model that a format can hold.

    Args:
        header: describes the model.
        family: whose conventions the format follows.
        title: what errors call the format.
        encoder: the format holds encoders only: whatever the decoder is, it stays behind.
        unbiased: the format may also hold attention without biases.

    Raises:
        WeightsError: it cannot hold this model; every reason is named.
    """
    name, wanted = _BACKBONES[family]
    none: Allowed = {"qkv_bias": (*wanted["qkv_bias"], "none")} if unbiased else {}
    problems = []
    if header.backbone.name != name:
        msg = f"{title} holds the backbone {name}, this is {header.backbone.name}"
        raise WeightsError(msg, where="--to", hint=_OTHERS)
    backbone: Any = header.backbone.options
    problems += _misfits("backbone", backbone, {**wanted, **none})
    decoder = None
    if header.decoder is not None and not encoder:
        if header.decoder.name != "vit":
            problems.append(f"decoder {header.decoder.name} (vit)")
        else:
            decoder = header.decoder.options
            default = {"positions": "sincos-2d" if header.clip[0] == 1 else "sincos-1d"}
            problems += _misfits("decoder", decoder, {**_DECODERS[family], **none}, default)
    described = header.classifier
    if described is not None and Layout.of(described) not in LAYOUTS[family]:
        probe = ", batch norm" if described.batch_norm else ""
        problems.append(f"a head on pool {described.pool}, norm {described.norm}{probe}")
    if problems:
        msg = f"{title} cannot hold this model: " + "; ".join(problems)
        raise WeightsError(msg, where="--to", hint=_OTHERS)
    return Structure(backbone, decoder)


_OTHERS = "use --to maekit, which holds every model"


def _misfits(
    part: str, options: BaseModel, wanted: Allowed, default: Mapping[str, object] | None = None
) -> list[str]:
    """Name options that a format has no place for, with what it could hold."""
    found = []
    for key, allowed in wanted.items():
        value = getattr(options, key)
        value = (default or {}).get(key) if value is None else value
        if value not in allowed:
            held = " or ".join("unset" if each is None else str(each) for each in allowed)
            found.append(f"{part}.{key} {value} ({held})")
    return found
