"""AdamW with the papers' parameter groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.training import AdamW


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, free: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Two groups: decayed, and not (1-D parameters, biases and those named in ``free``).

    As timm's ``add_weight_decay``, which both papers use. MAE gives it no further names, so that
    class and mask tokens are decayed; VideoMAE keeps them free.
    """
    free = set(free)
    groups: dict[bool, list[tuple[str, nn.Parameter]]] = {True: [], False: []}
    for name, parameter in parameters:
        if parameter.requires_grad:
            decayed = parameter.ndim > 1 and not name.endswith(".bias") and name not in free
            groups[decayed].append((name, parameter))
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for decayed, members in groups.items()
        if members
    ]


def tokens_free_of_decay(model: MaskedAutoencoder) -> list[str]:
    """Full names of what backbone and decoder list in ``no_decay``."""
    names = [f"backbone.{name}" for name in model.backbone.no_decay()]
    if model.decoder is not None:
        names += [f"decoder.{name}" for name in model.decoder.no_decay()]
    return names


def make_optimizer(model: nn.Module, options: AdamW, free: Iterable[str] = ()) -> torch.optim.AdamW:
    """The optimizer of a training; its learning rate is set at each step."""
    groups = parameter_groups(model.named_parameters(), options.weight_decay, free)
    # Fused everywhere: one kernel, and the only variant that can skip a step on the device.
    return torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.eps, fused=True)
