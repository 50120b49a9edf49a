"""MAE, VideoMAE and mae_st in float64: from their formulas, under their own names of tensors.

B clips of normalized pixels ``[B, C, T, H, W]``; nothing of maekit's, nor of their code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.45,) * 3, (0.225,) * 3)


def layer_norm(x: Tensor, state: State, name: str) -> Tensor:
    variance = x.var(-1, unbiased=False, keepdim=True)
    scaled = (x - x.mean(-1, keepdim=True)) / (variance + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def dense(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def queries_keys_values(x: Tensor, state: State, name: str) -> list[Tensor]:
    if f"{name}.q.weight" in state:  # mae_st
        return [dense(x, state, f"{name}.{part}") for part in "qkv"]
    parts = list((x @ state[f"{name}.qkv.weight"].T).chunk(3, -1))
    if f"{name}.qkv.bias" in state:
        biases = list(state[f"{name}.qkv.bias"].chunk(3))
    else:  # VideoMAE: keys have no bias
        q, v = state[f"{name}.q_bias"], state[f"{name}.v_bias"]
        biases = [q, torch.zeros_like(q), v]
    return [part + bias for part, bias in zip(parts, biases, strict=True)]


def block(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    normed = layer_norm(x, state, f"{name}.norm1")
    size = x.shape[-1] // heads
    q, k, v = (
        part.unflatten(-1, (heads, size)).transpose(1, 2)
        for part in queries_keys_values(normed, state, f"{name}.attn")
    )
    seen = ((q @ k.transpose(-1, -2)) / math.sqrt(size)).softmax(-1) @ v
    x = x + dense(seen.transpose(1, 2).flatten(2), state, f"{name}.attn.proj")
    wide = dense(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    return x + dense(wide * (1 + torch.erf(wide / math.sqrt(2))) / 2, state, f"{name}.mlp.fc2")


def blocks(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    index = 0
    while f"{name}.{index}.norm1.weight" in state:
        x = block(x, state, f"{name}.{index}", heads)
        index += 1
    return x


def cubes(pixels: Tensor, slots: int, side: int) -> Tensor:
    """Tokens of normalized ``[B, C, T, H, W]``, in the order of a convolution's kernel."""
    cut = pixels.unfold(2, slots, slots).unfold(3, side, side).unfold(4, side, side)
    return cut.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)


def embedded(pixels: Tensor, state: State) -> Tensor:
    kernel = state["patch_embed.proj.weight"]
    slots = kernel.shape[2] if kernel.ndim == 5 else 1
    x = (
        cubes(pixels, slots, kernel.shape[-1]) @ kernel.flatten(1).T
        + state["patch_embed.proj.bias"]
    )
    if "pos_embed" in state:  # MAE
        first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(x), -1, -1)
        return torch.cat([first, x + state["pos_embed"][:, 1:]], 1)
    if "pos_embed_spatial" in state:  # mae_st
        space, time = state["pos_embed_spatial"], state["pos_embed_temporal"]
        places = torch.cat([space + time[:, slot : slot + 1] for slot in range(time.shape[1])], 1)
        first = (state["cls_token"] + state["pos_embed_class"]).expand(len(x), -1, -1)
        return torch.cat([first, x + places], 1)
    width = x.shape[-1]
    table = [
        [
            (math.cos if j % 2 else math.sin)(place / 10000 ** (2 * (j // 2) / width))
            for j in range(width)
        ]
        for place in range(x.shape[1])
    ]
    return x + torch.tensor(table, dtype=torch.float64)


def normalized(pixels: Tensor, statistics: Any) -> Tensor:
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None, None] for v in statistics)
    return (pixels.double() - mean) / std


def logits(pixels: Tensor, official: State, statistics: Any, *, pool: str, heads: int) -> Tensor:
    """Of pixels in [0, 1], as models_vit.py and modeling_finetune.py compute them."""
    state = {name: tensor.double() for name, tensor in official.items()}
    x = embedded(normalized(pixels, statistics), state)
    x = blocks(x, state, "blocks", heads)
    prefix = 1 if "cls_token" in state else 0
    pooled = x[:, 0] if pool == "cls" else x[:, prefix:].mean(1)
    features = layer_norm(pooled, state, "fc_norm" if "fc_norm.weight" in state else "norm")
    if "head.0.running_mean" not in state:
        return dense(features, state, "head")
    features = features - state["head.0.running_mean"]
    return dense(features / (state["head.0.running_var"] + 1e-6).sqrt(), state, "head.1")
