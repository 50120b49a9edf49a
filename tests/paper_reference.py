"""MAE, VideoMAE, VideoMAEv2 and mae_st from their formulas alone: float64, nothing of maekit's.

Weights come as a mapping, so that autograd gives the gradients too: of pre-training under maekit's
names, of classifiers under the official ones (blocks have the same in both). A clip is
``[C, T, H, W]``; a patch or cube is ``[pt, ph, pw, C]``; tokens are numbered in raster order (t,
then h, then w). MAE: models_mae.py, models_vit.py, util/pos_embed.py. VideoMAE:
modeling_pretrain.py, modeling_finetune.py, engine_for_pretraining.py. VideoMAEv2:
models/modeling_pretrain.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Patch = tuple[int, int, int]
Grid = tuple[int, int, int]
EPS = 1e-6
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.45,) * 3, (0.225,) * 3)


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


def queries_keys_values(x: Tensor, weights: Weights, name: str) -> list[Tensor]:
    """Return the three, of all heads; which biases there are is as the paper's weights have it."""
    if f"{name}.q.weight" in weights:  # mae_st
        return [linear(x, weights, f"{name}.{part}") for part in "qkv"]
    q, k, v = (x @ weights[f"{name}.qkv.weight"].T).chunk(3, -1)
    if f"{name}.qkv.bias" in weights:
        of_q, of_k, of_v = weights[f"{name}.qkv.bias"].chunk(3)
        return [q + of_q, k + of_k, v + of_v]
    return [q + weights[f"{name}.q_bias"], k, v + weights[f"{name}.v_bias"]]  # VideoMAE


def attention(x: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    """Attention among the tokens ``[..., S, D]`` of each sample, head after head."""
    size = x.shape[-1] // heads
    q, k, v = queries_keys_values(x, weights, name)
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = (q[..., part] @ k[..., part].transpose(-1, -2)) / math.sqrt(size)
        likely = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out.append(likely @ v[..., part])
    return linear(torch.cat(out, dim=-1), weights, f"{name}.proj")


def block(x: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    """Pre-norm: attention, then an MLP with the exact GELU."""
    normed = layer_norm(x, weights, f"{name}.norm1")
    x = x + attention(normed, weights, f"{name}.attn", heads)
    wide = linear(layer_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
    wide = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
    return x + linear(wide, weights, f"{name}.mlp.fc2")


def blocks(x: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    """As many as there are weights for."""
    index = 0
    while f"{name}.{index}.norm1.weight" in weights:
        x = block(x, weights, f"{name}.{index}", heads)
        index += 1
    return x


def encode(clip: Tensor, visible: list[int], weights: Weights, paper: Paper) -> Tensor:
    """Encode a normalized clip to ``[prefix + K, D]``."""
    keys_too = "backbone.transformer.0.attn.qkv.bias" in weights
    assert keys_too == paper.key_bias, "a bias of keys that the paper does not have, or none"
    cut = patches(clip, paper.patch)
    kernel, bias = weights["backbone.patch_embed.weight"], weights["backbone.patch_embed.bias"]
    tokens = []
    if paper.class_row is not None:
        tokens.append(weights["backbone.class_token"][0, 0] + paper.class_row[0])
    for token in visible:
        convolved = (kernel * cut[token].permute(3, 0, 1, 2)).sum(dim=(1, 2, 3, 4))
        tokens.append(convolved + bias + paper.encoder_table[token])
    x = torch.stack(tokens)
    x = blocks(x, weights, "backbone.transformer", paper.heads)
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
    sequence = blocks(sequence, weights, "decoder.blocks", heads)
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
    x = blocks(x, weights, "decoder.blocks", heads)
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


def embedded(clips: Tensor, weights: Weights) -> Tensor:
    """Tokens of normalized ``[B, C, T, H, W]`` with positions, by an official classifier."""
    kernel = weights["patch_embed.proj.weight"]
    kernel = kernel if kernel.ndim == 5 else kernel[:, :, None]
    _, _, pt, ph, pw = kernel.shape
    cut = torch.stack([torch.stack(patches(clip, (pt, ph, pw))) for clip in clips])
    x = cut.flatten(2) @ kernel.permute(0, 2, 3, 4, 1).flatten(1).T
    x = x + weights["patch_embed.proj.bias"]
    if "pos_embed" in weights:  # MAE
        own, places = weights["pos_embed"][:, :1], weights["pos_embed"][:, 1:]
    elif "pos_embed_spatial" in weights:  # mae_st
        space, time = weights["pos_embed_spatial"], weights["pos_embed_temporal"]
        own = weights["pos_embed_class"]
        places = torch.cat([space + time[:, slot : slot + 1] for slot in range(time.shape[1])], 1)
    else:  # VideoMAE: no class token
        return x + videomae_table((x.shape[1], 1, 1), x.shape[-1])
    first = (weights["cls_token"] + own).expand(len(x), -1, -1)
    return torch.cat([first, x + places], 1)


def normalized(pixels: Tensor, statistics: Any) -> Tensor:
    """Pixels in [0, 1], in the space that an official classifier works in."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None, None] for v in statistics)
    return (pixels.double() - mean) / std


def logits(pixels: Tensor, official: Weights, statistics: Any, *, pool: str, heads: int) -> Tensor:
    """Of pixels in [0, 1], as models_vit.py and modeling_finetune.py compute them."""
    state = {name: tensor.double() for name, tensor in official.items()}
    x = embedded(normalized(pixels, statistics), state)
    x = blocks(x, state, "blocks", heads)
    prefix = 1 if "cls_token" in state else 0
    pooled = x[:, 0] if pool == "cls" else x[:, prefix:].mean(1)
    features = layer_norm(pooled, state, "fc_norm" if "fc_norm.weight" in state else "norm")
    if "head.0.running_mean" not in state:
        return linear(features, state, "head")
    features = features - state["head.0.running_mean"]
    return linear(features / (state["head.0.running_var"] + 1e-6).sqrt(), state, "head.1")
