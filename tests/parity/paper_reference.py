"""MAE, VideoMAE and VideoMAEv2 from their formulas alone: float64, loops, nothing of maekit's.

Weights come as a mapping under maekit's names, so that autograd gives the gradients too. A clip is
``[C, T, H, W]``; a patch or cube is ``[pt, ph, pw, C]``; tokens are numbered in raster order (t,
then h, then w). MAE: models_mae.py, util/pos_embed.py. VideoMAE: modeling_pretrain.py,
modeling_finetune.py, engine_for_pretraining.py. VideoMAEv2: models/modeling_pretrain.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Patch = tuple[int, int, int]
Grid = tuple[int, int, int]
EPS = 1e-6


class Paper(NamedTuple):
    """How one paper's model is put together."""

    patch: Patch
    heads: int
    decoder_heads: int
    encoder_table: Tensor  # [N, D]
    decoder_table: Tensor
    class_row: tuple[Tensor, Tensor] | None = None  # encoder's and decoder's; None: no class token
    key_bias: bool = True  # False: VideoMAE's q_bias and v_bias


def patches(clip: Tensor, patch: Patch) -> list[Tensor]:
    """All of a clip, one after the other."""
    _, frames, height, width = clip.shape
    pt, ph, pw = patch
    return [
        clip[:, t : t + pt, y : y + ph, x : x + pw].permute(1, 2, 3, 0)
        for t in range(0, frames, pt)
        for y in range(0, height, ph)
        for x in range(0, width, pw)
    ]


def mae_table(grid: Grid, width: int) -> Tensor:
    """2-D sine-cosine ``[h*w, D]``: first half of the row for the column, second for the row."""
    _, rows, columns = grid
    quarter = width // 4
    table = []
    for y in range(rows):
        for x in range(columns):
            row = []
            for position in (x, y):
                angles = [position / 10000 ** (k / quarter) for k in range(quarter)]
                row += [math.sin(angle) for angle in angles]
                row += [math.cos(angle) for angle in angles]
            table.append(row)
    return torch.tensor(table, dtype=torch.float64)


def videomae_table(grid: Grid, width: int) -> Tensor:
    """1-D over t*h*w positions ``[N, D]``: sine at even places, cosine at odd ones."""
    return torch.tensor(
        [
            [
                (math.cos if j % 2 else math.sin)(position / 10000 ** (2 * (j // 2) / width))
                for j in range(width)
            ]
            for position in range(math.prod(grid))
        ],
        dtype=torch.float64,
    )


def mae_st_table(weights: Weights, part: str) -> Tensor:
    """Learned positions ``[1 + N, D]``: the class token's own, then space plus time."""
    space, time, own = (
        weights[f"{part}.positions.{which}"][0] for which in ("spatial", "temporal", "prefix")
    )
    return torch.stack([own[0], *(place + slot for slot in time for place in space)])


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Over the last axis, with the biased variance."""
    centered = x - x.mean(-1, keepdim=True)
    deviation = (centered.pow(2).mean(-1, keepdim=True) + EPS).sqrt()
    return centered / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """``x W^T + b``, without b where there is none."""
    out = x @ weights[f"{name}.weight"].T
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def attention(x: Tensor, weights: Weights, name: str, heads: int, *, key_bias: bool) -> Tensor:
    """One sample's tokens ``[S, D]``, head after head."""
    width = x.shape[1]
    size = width // heads
    fused = x @ weights[f"{name}.qkv.weight"].T
    q, k, v = fused[:, :width], fused[:, width : 2 * width], fused[:, 2 * width :]
    if key_bias:
        bias = weights[f"{name}.qkv.bias"]
        q, k, v = q + bias[:width], k + bias[width : 2 * width], v + bias[2 * width :]
    else:
        q, v = q + weights[f"{name}.q_bias"], v + weights[f"{name}.v_bias"]
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = (q[:, part] @ k[:, part].T) / math.sqrt(size)
        likely = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out.append(likely @ v[:, part])
    return linear(torch.cat(out, dim=1), weights, f"{name}.proj")


def block(x: Tensor, weights: Weights, name: str, heads: int, *, key_bias: bool) -> Tensor:
    """Pre-norm: attention, then an MLP with the exact GELU."""
    normed = layer_norm(x, weights, f"{name}.norm1")
    x = x + attention(normed, weights, f"{name}.attn", heads, key_bias=key_bias)
    wide = linear(layer_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
    wide = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
    return x + linear(wide, weights, f"{name}.mlp.fc2")


def blocks(x: Tensor, weights: Weights, name: str, heads: int, *, key_bias: bool) -> Tensor:
    """As many as there are weights for."""
    index = 0
    while f"{name}.{index}.norm1.weight" in weights:
        x = block(x, weights, f"{name}.{index}", heads, key_bias=key_bias)
        index += 1
    return x


def encode(clip: Tensor, visible: list[int], weights: Weights, paper: Paper) -> Tensor:
    """Encode a normalized clip to ``[prefix + K, D]``."""
    cut = patches(clip, paper.patch)
    kernel, bias = weights["backbone.patch_embed.weight"], weights["backbone.patch_embed.bias"]
    tokens = []
    if paper.class_row is not None:
        tokens.append(weights["backbone.class_token"][0, 0] + paper.class_row[0])
    for token in visible:
        convolved = (kernel * cut[token].permute(3, 0, 1, 2)).sum(dim=(1, 2, 3, 4))
        tokens.append(convolved + bias + paper.encoder_table[token])
    x = torch.stack(tokens)
    x = blocks(x, weights, "backbone.transformer", paper.heads, key_bias=paper.key_bias)
    return layer_norm(x, weights, "backbone.norm")


def mae_decode(encoded: Tensor, visible: list[int], weights: Weights, paper: Paper) -> Tensor:
    """MAE's: the class token, then the whole grid in its order; ``[N, out]`` without the former."""
    assert paper.class_row is not None
    x = linear(encoded, weights, "decoder.embed")
    tokens = list(weights["decoder.mask_token"][0].expand(len(paper.decoder_table), -1))
    for place, token in enumerate(visible):
        tokens[token] = x[1 + place]
    sequence = torch.stack([x[0], *tokens])
    sequence = sequence + torch.cat([paper.class_row[1][None], paper.decoder_table])
    heads = paper.decoder_heads
    sequence = blocks(sequence, weights, "decoder.blocks", heads, key_bias=paper.key_bias)
    return linear(layer_norm(sequence, weights, "decoder.norm"), weights, "decoder.head")[1:]


def videomae_decode(
    encoded: Tensor, visible: list[int], asked: list[int], weights: Weights, paper: Paper
) -> Tensor:
    """VideoMAE's: visible tokens, then mask tokens; ``[Q, out]`` of the latter.

    VideoMAEv2's, where ``asked`` holds other tokens than the hidden ones.
    """
    seen = linear(encoded, weights, "decoder.embed") + paper.decoder_table[visible]
    masks = weights["decoder.mask_token"][0] + paper.decoder_table[asked]
    heads = paper.decoder_heads
    x = torch.cat([seen, masks])
    x = blocks(x, weights, "decoder.blocks", heads, key_bias=paper.key_bias)
    x = layer_norm(x[-len(asked) :], weights, "decoder.norm")
    return linear(x, weights, "decoder.head")


def raw(patch: Tensor) -> Tensor:
    """Return a patch as it is, flattened with c fastest."""
    return patch.reshape(-1)


def mae_normalized(patch: Tensor) -> Tensor:
    """All values of a patch together; epsilon inside the root."""
    values = patch.reshape(-1)
    mean = values.sum() / len(values)
    variance = (values - mean).pow(2).sum() / (len(values) - 1)
    return (values - mean) / (variance + EPS) ** 0.5


def videomae_normalized(cube: Tensor) -> Tensor:
    """Each channel of a cube by itself; epsilon outside the root."""
    out = torch.empty_like(cube)
    for channel in range(cube.shape[-1]):
        values = cube[..., channel]
        mean = values.sum() / values.numel()
        variance = (values - mean).pow(2).sum() / (values.numel() - 1)
        out[..., channel] = (values - mean) / (variance**0.5 + EPS)
    return out.reshape(-1)


Target = Callable[[Tensor], Tensor]


def truth(clip: Tensor, tokens: list[int], patch: Patch, target: Target) -> Tensor:
    """Return what is to be predicted of a clip in the target's space, ``[Q, out]``."""
    cut = patches(clip, patch)
    return torch.stack([target(cut[token]) for token in tokens])
