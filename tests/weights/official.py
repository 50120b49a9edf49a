"""State dicts with the keys and shapes of other projects' code, written down from that code.

Nothing here comes from maekit's own maps. Values are random for small models; official sizes are
zeros that take no memory (one number, seen everywhere).
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Make = Callable[..., Tensor]
State = dict[str, Tensor]
TINY = {"width": 48, "depth": 2, "patch": 8}
TINY_DECODER = {"decoder_width": 32, "decoder_depth": 2}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.15


def hollow(*shape: int) -> Tensor:
    """Zeros of an official size at the price of one."""
    return torch.zeros(1).expand(*shape)


def _layer(name: str, out: int, inner: int, make: Make) -> State:
    return {f"{name}.weight": make(out, inner), f"{name}.bias": make(out)}


def _norm(name: str, width: int, make: Make) -> State:
    return {f"{name}.weight": make(width), f"{name}.bias": make(width)}


def _block(name: str, width: int, make: Make, attention: str) -> State:
    state = _norm(f"{name}.norm1", width, make)
    if attention == "fused":
        state |= _layer(f"{name}.attn.qkv", 3 * width, width, make)
    elif attention == "qv":
        state[f"{name}.attn.q_bias"], state[f"{name}.attn.v_bias"] = make(width), make(width)
        state[f"{name}.attn.qkv.weight"] = make(3 * width, width)
    else:
        for part in "qkv":
            state |= _layer(f"{name}.attn.{part}", width, width, make)
    state |= _layer(f"{name}.attn.proj", width, width, make)
    state |= _norm(f"{name}.norm2", width, make)
    state |= _layer(f"{name}.mlp.fc1", 4 * width, width, make)
    return state | _layer(f"{name}.mlp.fc2", width, 4 * width, make)


def mae(
    width: int, depth: int, patch: int, tokens: int = 16, make: Make = random, **decoder: int
) -> State:
    """facebookresearch/mae, models_mae.py; the decoder where it is asked for."""
    state = {"cls_token": make(1, 1, width), "pos_embed": make(1, tokens + 1, width)}
    state["patch_embed.proj.weight"] = make(width, 3, patch, patch)
    state["patch_embed.proj.bias"] = make(width)
    for i in range(depth):
        state |= _block(f"blocks.{i}", width, make, "fused")
    state |= _norm("norm", width, make)
    if not decoder:
        return state
    inner = decoder["decoder_width"]
    state |= {"mask_token": make(1, 1, inner), "decoder_pos_embed": make(1, tokens + 1, inner)}
    state |= _layer("decoder_embed", inner, width, make)
    for i in range(decoder["decoder_depth"]):
        state |= _block(f"decoder_blocks.{i}", inner, make, "fused")
    state |= _norm("decoder_norm", inner, make)
    return state | _layer("decoder_pred", patch * patch * 3, inner, make)


def videomae(width: int, depth: int, patch: int, make: Make = random, **decoder: int) -> State:
    """MCG-NJU/VideoMAE, modeling_pretrain.py."""
    inner = decoder["decoder_width"]
    state = {"mask_token": make(1, 1, inner)}
    state |= videomae_encoder(width, depth, patch, make, "encoder.")
    for i in range(decoder["decoder_depth"]):
        state |= _block(f"decoder.blocks.{i}", inner, make, "qv")
    state |= _norm("decoder.norm", inner, make)
    state |= _layer("decoder.head", 2 * patch * patch * 3, inner, make)
    return state | {"encoder_to_decoder.weight": make(inner, width)}


def videomae_encoder(
    width: int, depth: int, patch: int, make: Make = random, prefix: str = ""
) -> State:
    state = {f"{prefix}patch_embed.proj.weight": make(width, 3, 2, patch, patch)}
    state[f"{prefix}patch_embed.proj.bias"] = make(width)
    for i in range(depth):
        state |= _block(f"{prefix}blocks.{i}", width, make, "qv")
    return state | _norm(f"{prefix}norm", width, make)


def mae_st(
    width: int, depth: int, patch: int, places: int = 16, make: Make = random, **decoder: int
) -> State:
    """facebookresearch/mae_st, models_mae.py, with separable positions and class tokens."""
    state: State = {}

    def positions(prefix: str, dim: int) -> State:
        return {
            f"{prefix}pos_embed_spatial": make(1, places, dim),
            f"{prefix}pos_embed_temporal": make(1, 8, dim),
            f"{prefix}pos_embed_class": make(1, 1, dim),
        }

    state = {"cls_token": make(1, 1, width)} | positions("", width)
    state["patch_embed.proj.weight"] = make(width, 3, 2, patch, patch)
    state["patch_embed.proj.bias"] = make(width)
    for i in range(depth):
        state |= _block(f"blocks.{i}", width, make, "split")
    state |= _norm("norm", width, make)
    inner = decoder["decoder_width"]
    state |= {"decoder_cls_token": make(1, 1, inner), "mask_token": make(1, 1, inner)}
    state |= positions("decoder_", inner) | _layer("decoder_embed", inner, width, make)
    for i in range(decoder["decoder_depth"]):
        state |= _block(f"decoder_blocks.{i}", inner, make, "split")
    state |= _norm("decoder_norm", inner, make)
    return state | _layer("decoder_pred", patch * patch * 3, inner, make)


def slowfast(width: int, depth: int, patch: int, make: Make = random, **decoder: int) -> State:
    """PySlowFast's masked.py, as mae_st#17 lists the keys of a published file: a count of 8 slots.

    Its decoder is a head of blocks and a norm, which gets the encoder's class token.
    """
    state = mae_st(width, depth, patch, make=make, **decoder)
    inner, blocks = decoder["decoder_width"], decoder["decoder_depth"]
    head = "pred_head.transforms.0"
    names = {f"decoder_blocks.{i}.": f"{head}.{i}." for i in range(blocks)}
    names |= {"decoder_norm.": f"{head}.{blocks}.", "decoder_pred.": "pred_head.projections.0."}
    names["decoder_pos_embed_"] = "dec_pos_embed_"
    del state["decoder_cls_token"]
    for old, new in names.items():
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    assert state[f"{head}.{blocks}.weight"].shape == (inner,)
    return state


def training_checkpoint(state: State, **args: Any) -> dict[str, Any]:
    """As MAE's util/misc.py saves it."""
    return {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 799,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(batch_size=64, **args),
    }


def tuned(state: State, classes: int, *, fc_norm: bool, probe: bool = False) -> State:
    """Put a head on an encoder: models_vit.py, modeling_finetune.py, main_linprobe.py."""
    width = state["norm.weight"].shape[0]
    kept = {key: tensor for key, tensor in state.items() if not (fc_norm and key[:5] == "norm.")}
    if fc_norm:
        kept |= _norm("fc_norm", width, random)
    if not probe:
        return kept | _layer("head", classes, width, random)
    kept |= {"head.0.running_mean": random(width), "head.0.running_var": random(width).abs() + 0.1}
    kept["head.0.num_batches_tracked"] = torch.tensor(7020)
    return kept | _layer("head.1", classes, width, random)


def encoder_of(state: State) -> State:
    """Return what of mae_st's pre-training its fine-tuning keeps."""
    return {
        key: tensor for key, tensor in state.items()
        if not key.startswith(("decoder", "mask_token"))
    }  # fmt: skip


def videomae_checkpoint(state: State, **args: Any) -> dict[str, Any]:
    """As VideoMAE's utils.save_model: rates are numpy's, args hold paths where scripts set them."""
    groups = [{"lr": np.float64(7e-4), "weight_decay": np.float64(0.05), "lr_scale": 0.75}]
    return {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": groups},
        "epoch": 74,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "args": argparse.Namespace(output_dir=Path("/out"), lr=np.float64(1e-3), **args),
    }


def deepspeed_checkpoint(state: State, **args: Any) -> dict[str, Any]:
    """As DeepSpeed's mp_rank_00_model_states.pt, with VideoMAE's client state."""
    shapes = OrderedDict((key, tensor.shape) for key, tensor in state.items())
    return {
        "module": OrderedDict(state),
        "buffer_names": ["pos_embed"],
        "optimizer": None,
        "param_shapes": [shapes],
        "lr_scheduler": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 3,
        "global_steps": 46900,
        "global_samples": 1 << 24,
        "dp_world_size": 64,
        "mp_world_size": 1,
        "ds_config": {"train_batch_size": 512, "optimizer": {"type": "Adam"}},
        "ds_version": "0.5.8",
        "epoch": 74,
        "args": argparse.Namespace(**args),
    }
