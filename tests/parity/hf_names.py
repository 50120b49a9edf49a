"""Tensors of transformers' models, weights or gradients, under maekit's names.

Joining their three projections to our one is linear, so gradients map as weights do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BLOCK = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
KINDS = ("weight", "bias")


class Tensors:
    """Their tensors, each to be taken once."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.left = dict(tensors)
        self.ours: dict[str, Tensor] = {}

    def rename(self, theirs: str, ours: str) -> None:
        self.ours[ours] = self.left.pop(theirs)

    def rename_layer(self, theirs: str, ours: str) -> None:
        for kind in KINDS:
            self.rename(f"{theirs}.{kind}", f"{ours}.{kind}")

    def join(self, theirs: list[str], ours: str) -> None:
        self.ours[ours] = torch.cat([self.left.pop(name) for name in theirs])

    def depth(self, prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in self.left if prefix in name})

    def done(self) -> dict[str, Tensor]:
        assert not self.left, f"not mapped: {sorted(self.left)}"
        return self.ours


def vit_mae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ViTMAEForPreTraining's; the frozen position tables may be missing."""
    names = Tensors(tensors)
    names.rename("vit.embeddings.cls_token", "backbone.class_token")
    names.rename("decoder.mask_token", "decoder.mask_token")
    tables = {
        "vit.embeddings.position_embeddings": "backbone.positions.table",
        "decoder.decoder_pos_embed": "decoder.positions.table",
    }
    for theirs, ours in tables.items():
        if theirs in names.left:
            names.rename(theirs, ours)
    names.rename_layer("vit.embeddings.patch_embeddings.projection", "backbone.patch_embed")
    weight = names.ours["backbone.patch_embed.weight"]
    names.ours["backbone.patch_embed.weight"] = weight.unsqueeze(2)  # one frame
    names.rename_layer("vit.layernorm", "backbone.norm")
    for theirs, ours in {"embed": "embed", "norm": "norm", "pred": "head"}.items():
        names.rename_layer(f"decoder.decoder_{theirs}", f"decoder.{ours}")
    for prefix, blocks in {
        "vit.layers.": "backbone.transformer",
        "decoder.decoder_layers.": "decoder.blocks",
    }.items():
        for i in range(names.depth(prefix)):
            theirs, ours = f"{prefix}{i}", f"{blocks}.{i}"
            for kind in KINDS:
                fused = [f"{theirs}.attention.{which}_proj.{kind}" for which in "qkv"]
                names.join(fused, f"{ours}.attn.qkv.{kind}")
            layers = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
            for our_layer, their_layer in (layers | BLOCK).items():
                names.rename_layer(f"{theirs}.{their_layer}", f"{ours}.{our_layer}")
    return names.done()


def videomae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """VideoMAEForPreTraining's, whose position tables are no parameters."""
    names = Tensors(tensors)
    names.rename("mask_token", "decoder.mask_token")
    names.rename("encoder_to_decoder.weight", "decoder.embed.weight")
    names.rename_layer("videomae.embeddings.patch_embeddings.projection", "backbone.patch_embed")
    names.rename_layer("videomae.layernorm", "backbone.norm")
    names.rename_layer("decoder.norm", "decoder.norm")
    names.rename_layer("decoder.head", "decoder.head")
    for prefix, blocks in {
        "videomae.encoder.layer.": "backbone.transformer",
        "decoder.decoder_layers.": "decoder.blocks",
    }.items():
        for i in range(names.depth(prefix)):
            theirs, ours = f"{prefix}{i}", f"{blocks}.{i}"
            attention = f"{theirs}.attention.attention"
            fused = [f"{attention}.{which}.weight" for which in ("query", "key", "value")]
            names.join(fused, f"{ours}.attn.qkv.weight")
            names.rename(f"{attention}.query.bias", f"{ours}.attn.q_bias")
            names.rename(f"{attention}.value.bias", f"{ours}.attn.v_bias")
            layers = {
                "attn.proj": "attention.output.dense",
                "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }
            for our_layer, their_layer in (layers | BLOCK).items():
                names.rename_layer(f"{theirs}.{their_layer}", f"{ours}.{our_layer}")
    return names.done()
