"""LARS as MAE's linear probe uses it (facebookresearch/mae, util/lars.py; arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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
        """One update; a skipped one leaves parameters and momentum as they are."""
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
