"""From tensors under maekit's names to the header that describes their model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from maekit import registry
from maekit.contracts import Grid, PartOptions
from maekit.errors import RecipeError, WeightsError
from maekit.layers import LAYER_NORM_EPS, Epsilons, sincos_2d
from maekit.recipe.schema import BackboneSpec, DecoderSpec, TargetSpec
from maekit.registry import spec_of
from maekit.weights.formats import SEPARABLE, Family
from maekit.weights.header import Header
from maekit.weights.hints import IMAGENET, KINETICS, FileHints, UserHints

BLOCK, DECODER_BLOCK = "backbone.transformer.{}.", "decoder.blocks.{}."
# Widths besides the backbones' own sizes: VideoMAEv2's giant.
GIANT_HEADS = {1408: 16}
DECODER_HEADS: Mapping[Family, Mapping[int, int]] = {
    "mae": {512: 16},
    "videomae": {192: 3, 384: 6, 512: 8, 640: 8},
    "mae_st": {512: 16},
    "slowfast": {512: 8},  # head_helper.py: one for each 64 channels, half of what mae_st's has
}
CLIP = (16, 224, 224)  # of VideoMAE's released models, whose files do not say
PIXELS = ("pixel", "norm-pixel")
FIXED_TABLE = 1e-5  # a saved table this near to the fixed one is the fixed one


class _Evidence(NamedTuple):
    """Facts known of a file's model, and notes on what had to be assumed.

    Attributes:
        tensors: under maekit's names, as complete as the file is.
        family: whose conventions hold where tensors and file are silent.
        file: what the file says.
        user: what the user says, which counts for more.
        where: the file, for errors.
        biased: whether its attention has biases.
        notes: grows on the way.
    """

    tensors: Mapping[str, Tensor]
    family: Family
    file: FileHints
    user: UserHints
    where: str
    biased: bool
    notes: list[str]


class Inferred(NamedTuple):
    """A header, and what had to be assumed for it."""

    header: Header
    notes: tuple[str, ...]


def infer(
    tensors: Mapping[str, Tensor],
    family: Family,
    file_hints: FileHints,
    user_hints: UserHints,
    where: str,
    *,
    biased: bool,
) -> Inferred:
    """Describe the model that these tensors are of.

    Args:
        tensors: under maekit's names, as complete as the file is.
        family: whose conventions hold where tensors and file are silent.
        file_hints: what the file says.
        user_hints: what the user says, which counts for more.
        where: the file, for errors.
        biased: whether its attention has biases.

    Raises:
        WeightsError: something is missing that no default can stand for.
    """
    found = _Evidence(
        tensors, family, file_hints, user_hints, where, biased, list(file_hints.notes)
    )
    _, channels, *sizes = _shape(found, "backbone.patch_embed.weight", 5)
    patch = (sizes[0], sizes[1], sizes[2])
    clip = _clip(found, patch)
    backbone = _backbone(found, patch, clip)
    decoder = out_dim = target = None
    if any(name.startswith("decoder.") for name in tensors):
        decoder = _decoder(found, patch, clip)
        out_dim = _shape(found, "decoder.head.weight", 2)[0]
        target = _target(found, out_dim, clip, patch, channels)
    elif user_hints.target is not None:
        msg = "no decoder weights in this file, so it has no target"
        raise RecipeError(msg, where="--target", hint="leave --target out, or give a full file")
    mean, std = _statistics(found, channels)
    header = Header(
        backbone=backbone, decoder=decoder, target=target,
        out_dim=None if target is not None else out_dim,
        clip=clip, channels=channels, mean=mean, std=std,
        grid=Grid(*(size // step for size, step in zip(clip, patch, strict=True))),
    )  # fmt: skip
    return Inferred(header, tuple(found.notes))


def family_of(header: Header) -> Family:
    """Return whose conventions a model of maekit's own ViTs follows."""
    backbone, decoder = header.backbone, header.decoder
    if backbone.name == "image-vit":
        return "mae"
    separable = backbone.written.get("positions") == "learned-separable"
    if not (separable and backbone.written.get("class_token")):
        return "videomae"
    own = decoder is None or decoder.written.get("class_token")
    return "mae_st" if own else "slowfast"


def _shape(found: _Evidence, name: str, dims: int) -> tuple[int, ...]:
    """Return the sizes of a tensor that decides on the model; raise WeightsError without it."""
    if name not in found.tensors:
        msg = f"{name} is missing: without it the model cannot be inferred"
        raise WeightsError(msg, where=found.where, hint="give a whole file")
    shape = tuple(found.tensors[name].shape)
    if len(shape) != dims or 0 in shape:
        msg = f"{name} is {list(shape)} in the file: expected {dims} dimensions, none of them empty"
        raise WeightsError(msg, where=found.where, hint="give an unchanged file")
    return shape


def _clip(found: _Evidence, patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """Find the model's input in pixels: the user's, the file's, or a square of its positions."""
    places = None if found.family == "videomae" else _places(found)
    if found.user.clip is not None:
        clip = found.user.clip
    elif places is None:
        clip = (found.file.frames or CLIP[0], *(found.file.size or CLIP[1:]))
        if found.file.size is None or found.file.frames is None:
            found.notes.append(
                f"the file holds no positions: a clip of {_by(clip)} (frames x height x width) is "
                "taken, as VideoMAE's; --clip names another"
            )
    elif found.file.size is not None:
        clip = (places[0] * patch[0], *found.file.size)
    else:
        clip = _square(places, patch, found.where)
        found.notes.append(
            f"the file has {places[1]} positions and no size: a square grid is taken, a clip of "
            f"{_by(clip)} (frames x height x width) in pixels; --clip names another"
        )
    if any(size % step for size, step in zip(clip, patch, strict=True)):
        msg = f"a clip of {_by(clip)} does not divide into {_by(patch)} patches"
        raise WeightsError(msg, where=found.where, hint="give the right one with --clip")
    grid = Grid(*(size // step for size, step in zip(clip, patch, strict=True)))
    if places is not None and (grid.t, grid.h * grid.w) != places:
        msg = (
            f"a clip of {_by(clip)} makes a grid of {grid}, "
            f"and the file has positions for {places[0]} time slots of {places[1]} patches"
        )
        raise WeightsError(
            msg, where=found.where, hint="give the size it was trained at with --clip"
        )
    return clip


def _square(
    places: tuple[int, int], patch: tuple[int, int, int], where: str
) -> tuple[int, int, int]:
    side = math.isqrt(places[1])
    if side * side != places[1]:
        msg = (
            f"{places[1]} positions do not make a square grid, and the file does not name its grid"
        )
        hint = "convert it with `maekit weights convert` and --clip FRAMESxHEIGHTxWIDTH, in pixels"
        raise WeightsError(msg, where=where, hint=hint)
    return places[0] * patch[0], side * patch[1], side * patch[2]


def _places(found: _Evidence) -> tuple[int, int]:
    """Time slots, and positions in each, that a saved table is for."""
    if found.family in SEPARABLE:
        slots = _shape(found, "backbone.positions.temporal", 3)[1]
        return slots, _shape(found, "backbone.positions.spatial", 3)[1]
    return 1, _shape(found, "backbone.positions.table", 3)[1] - 1


def _by(sizes: tuple[int, ...] | list[int]) -> str:
    return "x".join(map(str, sizes))


def _backbone(
    found: _Evidence, patch: tuple[int, int, int], clip: tuple[int, int, int]
) -> BackboneSpec:
    name = "image-vit" if found.family == "mae" else "video-vit"
    options = registry.options_of("backbones", name)
    shapes = _published(options)
    width, depth, ratio = _sizes(found, BLOCK)
    heads = found.user.heads or _heads(
        "heads", width, published_heads(name), found.file.heads, found.where
    )
    if found.family == "videomae" and found.user.heads is None:
        _check_small(width, heads, found.where)
    named = next(
        (
            size
            for size, s in shapes.items()
            if (s.width, s.depth, s.heads) == (width, depth, heads)
        ),
        None,
    )
    size = {"size": named} if named else {"width": width, "depth": depth, "heads": heads}
    chosen: dict[str, Any] = size | {"mlp_ratio": ratio, "patch": patch}
    if found.family == "mae":
        square = patch[1] == patch[2]
        chosen["patch"] = patch[1] if square else patch[1:]
        chosen["positions"] = _table_kind(found.tensors, "backbone", patch, clip)
    elif found.family in SEPARABLE:
        chosen |= {"class_token": True, "qkv_bias": "all", "init": "mae"}
        chosen["positions"] = "learned-separable"
    chosen |= _unlike_papers(found, found.file.last_eps)
    return spec_of(BackboneSpec, {"name": name} | chosen)


def _unlike_papers(found: _Evidence, last_eps: float | None) -> dict[str, Any]:
    """Return what transformers' models can have otherwise than the papers' code."""
    options: dict[str, Any] = {} if found.biased else {"qkv_bias": "none"}
    eps = Epsilons.of(found.file.eps, last_eps)
    if eps.blocks != LAYER_NORM_EPS:
        options["norm_eps"] = eps.blocks
    if eps.last != eps.blocks:
        options["last_norm_eps"] = eps.last
    return options


def _published(options: type[PartOptions]) -> dict[str, Any]:
    """Return width, depth and heads of a backbone's named sizes."""
    return {
        size: options.model_validate({"size": size}).shape  # type: ignore[attr-defined]
        for size in get_args(options.model_fields["size"].annotation)
    }


def published_heads(backbone: str) -> dict[int, int]:
    """Return the number of heads that each published width has."""
    shapes = _published(registry.options_of("backbones", backbone)).values()
    return {shape.width: shape.heads for shape in shapes} | GIANT_HEADS


def _decoder(
    found: _Evidence, patch: tuple[int, int, int], clip: tuple[int, int, int]
) -> DecoderSpec:
    width = _shape(found, "decoder.embed.weight", 2)[0]
    _, depth, ratio = _sizes(found, DECODER_BLOCK)
    known = DECODER_HEADS[found.family]
    heads = found.user.decoder_heads or _heads(
        "decoder-heads", width, known, found.file.decoder_heads, found.where
    )
    chosen: dict[str, Any] = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": ratio}
    if found.family == "mae":
        kind = _table_kind(found.tensors, "decoder", patch, clip)
        chosen["positions"] = None if kind == "sincos-2d" else kind
    elif found.family == "videomae":
        one_slot = clip[0] == patch[0]
        chosen |= {"qkv_bias": "qv", "embed_bias": False, "init": "videomae"}
        chosen["positions"] = "sincos-1d" if one_slot else None
    else:
        own = found.family == "mae_st"
        chosen |= {"class_token": own, "positions": "learned-separable"}
    chosen |= _unlike_papers(found, found.file.decoder_last_eps)
    return spec_of(DecoderSpec, {"name": "vit"} | chosen)


def _sizes(found: _Evidence, block: str) -> tuple[int, int, float]:
    """Return width, depth and the MLP's ratio of a stack of blocks."""
    start = block.partition("{")[0]
    rest = (name.removeprefix(start) for name in found.tensors if name.startswith(start))
    depth = 1 + max((int(name.partition(".")[0]) for name in rest), default=-1)
    if depth == 0:
        return 0, 0, 4.0
    hidden, width = _shape(found, f"{block.format(0)}mlp.fc1.weight", 2)
    ratio = hidden / width
    # A width times this quotient may come out a hair below the hidden width that it stands for.
    return width, depth, ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _heads(flag: str, width: int, known: Mapping[int, int], hinted: int | None, where: str) -> int:
    heads = hinted or known.get(width)
    if heads is None:
        msg = (
            f"width {width} is none of the published ones, and no tensor shows the number of heads"
        )
        hint = f"give them: maekit weights convert SRC DST --to maekit --{flag} N"
        raise WeightsError(msg, where=where, hint=hint)
    return heads


def _check_small(width: int, heads: int, where: str) -> None:
    """Refuse 16 heads at width 384.

    transformers' converted small model says 16 heads where MCG-NJU's has 6.
    """
    if (width, heads) == (384, 16):
        msg = (
            "config.json says 16 heads for width 384: transformers' converter wrote that for "
            "VideoMAE's small model, which has 6 (huggingface/transformers#25868)"
        )
        hint = (
            "convert it with `maekit weights convert` and --heads 6 if the weights come from "
            "MCG-NJU's, --heads 16 if they were trained with transformers"
        )
        raise WeightsError(msg, where=where, hint=hint)


def _table_kind(
    tensors: Mapping[str, Tensor],
    part: str,
    patch: tuple[int, int, int],
    clip: tuple[int, int, int],
) -> str:
    """Return ``sincos-2d`` where the saved table is MAE's fixed one, else ``learned``."""
    table = tensors.get(f"{part}.positions.table")
    if table is None or table.shape[-1] % 4:
        return "learned"
    grid = Grid(*(size // step for size, step in zip(clip, patch, strict=True)))
    width = int(table.shape[-1])
    fixed = torch.cat([torch.zeros(1, width), sincos_2d(grid, width)])
    same = table.shape[1:] == fixed.shape and torch.allclose(
        table[0].float(), fixed, rtol=0, atol=FIXED_TABLE
    )
    return "sincos-2d" if same else "learned"


def _target(
    found: _Evidence,
    out_dim: int,
    clip: tuple[int, int, int],
    patch: tuple[int, int, int],
    channels: int,
) -> TargetSpec | None:
    """Find what the decoder predicts: no key names it (facebookresearch/mae#12)."""
    name = found.user.target or found.file.target
    if name is None:
        found.notes.append(_UNKNOWN[found.family])
        return None
    target = target_of(found.family, name, out_dim, clip, (*patch, channels), found.where)
    if found.file.space is None:
        return target
    return target.with_options(target.options.model_copy(update={"space": found.file.space}))


def target_of(
    family: Family,
    name: str,
    out_dim: int,
    clip: tuple[int, int, int],
    patch: tuple[int, int, int, int],
    where: str,
) -> TargetSpec:
    """Return a pixel target as a family's code computes it, with the frames that are predicted.

    Args:
        family: whose.
        name: pixel or norm-pixel.
        out_dim: values that the decoder predicts a token.
        clip: (T, H, W) in pixels.
        patch: frames, height, width and channels of a token.
        where: the file, for errors.

    Raises:
        RecipeError: it is another target.
        WeightsError: the decoder predicts no such number of values.
    """
    frame = math.prod(patch[1:])
    predicted = out_dim // frame
    # mae_st predicts some of the frames, PySlowFast the first of each slot; the others all.
    few = {"mae_st": range(1, patch[0] + 1), "slowfast": (1, patch[0])}
    possible = few.get(family, (patch[0],))
    if out_dim % frame or predicted not in possible:
        msg = f"the decoder predicts {out_dim} values a token, the target has {patch[0] * frame}"
        raise WeightsError(msg, where=where, hint="leave --target out")
    if predicted == patch[0]:
        return target_part(family, name)
    first = family == "slowfast"
    return target_part(family, name, "first" if first else predicted * (clip[0] // patch[0]))


def target_part(
    family: Family, name: str, frames: int | Literal["first"] | None = None
) -> TargetSpec:
    """Return a pixel target as a family's code computes it.

    Args:
        family: whose.
        name: pixel or norm-pixel.
        frames: how many of the clip's frames are predicted, or which; None: all.

    Raises:
        RecipeError: it is another target.
    """
    if name not in PIXELS:
        msg = f"'{name}' is not what these decoders predict"
        raise RecipeError(msg, where="--target", hint=f"give {' or '.join(PIXELS)}")
    chosen: dict[str, Any] = {} if frames is None else {"frames": frames}
    if family == "videomae":
        chosen = {"space": "unit"}
        if name == "norm-pixel":
            chosen |= {"statistics": "per-channel", "eps": "outside"}
    return spec_of(TargetSpec, {"name": name} | chosen)


_GIVE = "without it the model encodes, and predicts, but draws no pictures"
_UNKNOWN: Mapping[Family, str] = {
    "mae": (
        "target unknown, no key names it: give --target norm-pixel for mae_pretrain_*_full.pth, "
        f"--target pixel for mae_visualize_*.pth; {_GIVE}"
    ),
    "videomae": (
        "target unknown, no key names it: give --target norm-pixel (all of VideoMAE's scripts) "
        f"or --target pixel; {_GIVE}"
    ),
    "mae_st": (
        "target unknown, no key names it: give --target norm-pixel (mae_st's command) or --target "
        f"pixel; {_GIVE}"
    ),
    "slowfast": (
        "target unknown, no key names it: give --target norm-pixel (FINETUNE.md says so of all "
        f"that mae_st published) or --target pixel; {_GIVE}"
    ),
}


def _statistics(found: _Evidence, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    hints = found.file
    if hints.mean and hints.std and len(hints.mean) == len(hints.std) == channels:
        return hints.mean, hints.std
    if channels != 3:
        found.notes.append(
            f"mean and std of {channels} channels are not in the file: 0 and 1 are taken"
        )
        return (0.0,) * channels, (1.0,) * channels
    whose, (mean, std) = (
        ("mae_st's", KINETICS) if found.family in SEPARABLE else ("ImageNet's", IMAGENET)
    )
    found.notes.append(
        f"mean and std are not in the file: {whose} are taken, as the official code's"
    )
    return mean, std
