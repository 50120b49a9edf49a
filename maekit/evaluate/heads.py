"""What is put on pooled features: a linear layer, initialized as the papers say."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

HEAD_STD = 2e-5  # of MAE's fine-tuning (main_finetune.py:257)
LINEAR_STD = 0.02  # of VideoMAE's, before init_scale (modeling_finetune.py:232)
BATCH_NORM_EPS = 1e-6  # of MAE's linear probe (main_linprobe.py:222)


def make_head(
    width: int,
    outputs: int,
    *,
    dropout: float = 0.0,
    init_std: float = HEAD_STD,
    init_scale: float | None = None,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Features ``[B, width]`` to logits or values ``[B, outputs]``; the bias starts at 0.

    Args:
        dropout: of the features, before the linear layer.
        init_std: of the truncated normal that the weights are drawn from.
        init_scale: instead, 0.02 times this (VideoMAE's --init_scale).
        batch_norm: normalize features first, without scale and shift (MAE's linear probe).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if batch_norm:
        parts["batch_norm"] = nn.BatchNorm1d(width, affine=False, eps=BATCH_NORM_EPS)
    parts["dropout"] = nn.Dropout(dropout)
    linear = nn.Linear(width, outputs)
    std = init_std if init_scale is None else LINEAR_STD * init_scale
    # Cut at +-2, not at two deviations, as timm's is: in effect not cut at all.
    nn.init.trunc_normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    parts["linear"] = linear
    return nn.Sequential(parts)
