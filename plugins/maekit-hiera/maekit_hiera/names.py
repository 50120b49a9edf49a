"""Names of timm's and the authors' Hiera, and ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from maekit.contracts import Foreign

_HEADS = {96: 1, 112: 2, 144: 2, 256: 4}  # of the first stage, by its width, in all sizes
# What is knowingly left out: heads, and of the authors' pre-training files all that decodes.
_LEFT_OUT = re.compile(
    r"head\.(fc|projection)\.|decoder_|mask_token|multi_scale_fusion_heads\.|encoder_norm\."
)
_NORM = re.compile(r"(head\.norm|norm)\.")
_POSITIONS = "pos_embed"


def ours(tensors: Mapping[str, Tensor]) -> Foreign | None:
    """Recognize a Hiera of timm's or of the authors'; None: this is none.

    Taken are Hieras of square images with positions of their own (timm's hiera_*_224, the authors'
    hiera_*_224 and mae_hiera_*_224), not those of clips, nor timm's abswin variants.
    """
    kept = {name: tensor for name, tensor in tensors.items() if _LEFT_OUT.match(name) is None}
    embed, table = kept.get("patch_embed.proj.weight"), kept.get(_POSITIONS)
    if embed is None or table is None or embed.ndim != 4 or table.ndim != 3:
        return None
    if "blocks.0.attn.qkv.weight" not in kept or embed.shape[-1] != 7:
        return None
    width, side = int(embed.shape[0]), math.isqrt(table.shape[1])
    stages = _stages(kept)
    if stages is None or width not in _HEADS or side * side != table.shape[1]:
        return None
    renamed: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        if name == _POSITIONS:
            renamed["table.table"] = tensor
        elif name.startswith("patch_embed.proj."):
            renamed[name.replace(".proj", "")] = tensor
        elif name.startswith("blocks."):
            renamed[name.replace("blocks.", "transformer.", 1)] = tensor
        elif _NORM.match(name):
            renamed[_NORM.sub("norm.", name)] = tensor
        else:
            return None
    options = {
        "width": width,
        "heads": _HEADS[width],
        "stages": stages,
        "last_norm": "norm.weight" in renamed,
    }
    left_out = len(tensors) - len(renamed)
    return Foreign(
        options=options,
        tensors=renamed,
        title="timm's Hiera (or the authors')",
        shape=(1, 4 * side, 4 * side),
        channels=int(embed.shape[1]),
        left_out={"of heads and decoders": left_out} if left_out else {},
    )


def _stages(kept: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """Count the blocks of each stage: a new one begins where the width grows."""
    depths: list[int] = []
    index, before = 0, None
    while (weight := kept.get(f"blocks.{index}.attn.proj.weight")) is not None:
        width = int(weight.shape[0])
        if width == before:
            depths[-1] += 1
        else:
            depths.append(1)
        before, index = width, index + 1
    return tuple(depths) or None
