"""The moving average of a model's weights, by which training from scratch is evaluated."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from maekit.engine.parallel import is_sharded
from maekit.weights.safetensors_io import AVERAGE


class MovingAverage:
    """average = decay * average + (1 - decay) * weights after every update, from the first weights.

    A step that is skipped because it was not finite averages the weights once more.

    Attributes:
        model: the averaged model.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.source, self.decay = model, decay
        self.model: nn.Module = copy.deepcopy(model).requires_grad_(False)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _after(self, *_: object) -> None:
        """Follow an update; nothing waits for the device."""
        pairs = list(zip(self.model.parameters(), self.source.parameters(), strict=True))
        # Ranks may share out what is trained, and what is frozen not: no kernel takes both.
        for cut in (False, True):
            chosen = [pair for pair in pairs if is_sharded(pair[0]) == cut]
            if chosen:
                averaged, weights = map(list, zip(*chosen, strict=True))
                torch._foreach_lerp_(averaged, weights, 1 - self.decay)
        for kept, buffer in zip(self.model.buffers(), self.source.buffers(), strict=True):
            kept.copy_(buffer)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {f"{AVERAGE}{name}": tensor for name, tensor in self.model.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``tensors`` returned; other names are ignored."""
        own = {k.removeprefix(AVERAGE): v for k, v in tensors.items() if k.startswith(AVERAGE)}
        self.model.load_state_dict(own)
