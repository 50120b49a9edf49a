"""AdamW and SGD with the papers' parameter groups, and layer-wise learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.sections import AdamW


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, free: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Split into decayed parameters and others: 1-D ones, biases, those named in ``free``.

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


def layer_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    free: Iterable[str],
    *,
    layer_of: Callable[[str], int],
    depth: int,
    decay: float,
) -> list[dict[str, Any]]:
    """Split the groups of ``parameter_groups`` by layer, each with its ``lr_scale``.

    A layer's scale is ``decay ** (depth + 1 - layer)``: 1 behind the blocks, where the head is, and
    smallest in the embedding (MAE, util/lr_decay.py:15-76; VideoMAE, optim_factory.py:24-46).

    Args:
        parameters: names and tensors.
        weight_decay: of the decayed group.
        free: names that are not decayed.
        layer_of: 0 for the embedding, i + 1 for block i, depth + 1 behind them.
        depth: how many blocks there are.
        decay: a layer's rate over that of the one above it.
    """
    free = set(free)
    layers: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters:
        layers.setdefault(layer_of(name), []).append((name, parameter))
    return [
        group | {"lr_scale": decay ** (depth + 1 - layer)}
        for layer in sorted(layers)
        for group in parameter_groups(layers[layer], weight_decay, free)
    ]


def tokens_free_of_decay(model: MaskedAutoencoder) -> list[str]:
    """Return full names of what backbone and decoder list in ``no_decay``."""
    names = [f"backbone.{name}" for name in model.backbone.no_decay()]
    if model.decoder is not None:
        names += [f"decoder.{name}" for name in model.decoder.no_decay()]
    return names


def make_optimizer(model: nn.Module, options: AdamW, free: Iterable[str] = ()) -> torch.optim.AdamW:
    """Build the optimizer of a training; its learning rate is set at each step."""
    return make_adamw(
        parameter_groups(model.named_parameters(), options.weight_decay, free), options
    )


def make_adamw(groups: list[dict[str, Any]], options: AdamW) -> torch.optim.AdamW:
    """Build AdamW over given groups."""
    # Fused everywhere: one kernel, and the only variant that can skip a step on the device.
    return torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.eps, fused=True)


def make_sgd(groups: list[dict[str, Any]], momentum: float) -> torch.optim.SGD:
    """Build SGD with momentum: m = momentum * m + g, p = p - lr * m; without Nesterov."""
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=momentum, fused=True)  # as above
    if momentum:
        # Its first step leaves the momentum uninitialized where it is skipped; from zeros the first
        # one that is made is the same.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class LARS(torch.optim.Optimizer):
    """Momentum SGD whose steps are scaled, matrix by matrix, to the size of what they change.

    For a parameter p with more than one axis: g = g + weight_decay * p, then g is multiplied by
    trust * |p| / |g| (by 1 where either norm is 0). Biases and norms take the plain gradient. Then
    m = momentum * m + g and p = p - lr * m.

    Like torch's fused optimizers it skips a step where ``found_inf`` is set, without waiting.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float = 0.0,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.grad_scale: Tensor | None = None
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one update; a skipped one leaves parameters and momentum as they are."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        if parameter.ndim > 1:
            gradient = gradient + group["weight_decay"] * parameter
            size, slope = parameter.norm(), gradient.norm()
            usable = (size > 0) & (slope > 0)
            gradient = gradient * torch.where(usable, group["trust"] * size / slope, 1.0)
        changed = group["momentum"] * momentum + gradient
        if self.found_inf is not None:
            # Decided on the device: a non-finite gradient must not touch the momentum.
            skip = self.found_inf.to(parameter.device) > 0
            changed = torch.where(skip, momentum, changed)
            moved = torch.where(skip, parameter, parameter - group["lr"] * changed)
        else:
            moved = parameter - group["lr"] * changed
        momentum.copy_(changed)
        parameter.copy_(moved)
