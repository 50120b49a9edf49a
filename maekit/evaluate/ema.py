"""The moving average of a model's weights, by which training from scratch is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from maekit.engine.parallel import is_sharded
from maekit.weights.safetensors_io import AVERAGE

Many = tuple[Tensor, ...] | list[Tensor]


class MovingAverage:
    """average = decay * average + (1 - decay) * weights after every update, from the first weights.

    A step that is skipped because it was not finite averages the weights once more.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.source = model
        every: Any = get_ema_multi_avg_fn(decay)

        def average(averaged: Many, weights: Many, updates: Tensor | int) -> None:
            # Ranks may share out what is trained, and what is frozen not: no kernel takes both.
            for cut in (False, True):
                pairs = zip(averaged, weights, strict=True)
                chosen = [pair for pair in pairs if is_sharded(pair[0]) == cut]
                if chosen:
                    every(*map(list, zip(*chosen, strict=True)), updates)

        self.from_views = AveragedModel(model, multi_avg_fn=average, use_buffers=False)
        self.from_views.requires_grad_(False)
        # The first update of torch's average copies: without it the average would begin behind
        # the first step instead of at the start.
        self.from_views.update_parameters(model)
        optimizer.register_step_post_hook(self._after)

    @property
    def model(self) -> nn.Module:
        """The averaged model."""
        module: nn.Module = self.from_views.module
        return module

    def _after(self, *_: object) -> None:
        self.from_views.update_parameters(self.source)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {f"{AVERAGE}{name}": tensor for name, tensor in self.model.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``tensors`` returned; other names are ignored."""
        own = {k.removeprefix(AVERAGE): v for k, v in tensors.items() if k.startswith(AVERAGE)}
        self.model.load_state_dict(own)
