"""The step of pre-training: from a loader's arrays to the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maekit.engine.loop import Weighed
from maekit.tokens import Mask

if TYPE_CHECKING:
    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder


class PretrainStep:
    """Mask, encode, decode and compare."""

    def __init__(
        self,
        model: MaskedAutoencoder,
        precision: Precision,
        *,
        loss_on: Literal["hidden", "all"] = "hidden",
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.precision = precision
        self.loss_on: Literal["hidden", "all"] = loss_on
        # The bound method is compiled, not the module: saved keys stay as they are.
        self._loss: Callable[[Sequence[Tensor], Mask], Tensor] = (
            torch.compile(model.masked_loss) if compiled else model.masked_loss
        )

    def weigh(self, batch: Batch) -> Weighed:
        """Build the mask; the weight is the sum of those of all queries."""
        mask = make_mask(self.model, batch, self.loss_on)
        return Weighed(batch, float(mask.weight.sum()), mask)

    def loss(self, weighed: Weighed) -> Tensor:
        """Return the weighted sum of the loss over queries."""
        device, mask = self.model.device, weighed.mask
        assert mask is not None  # noqa: S101 - ``weigh`` built it
        views = [to_device_float01(view, device) for view in weighed.batch.views]
        with self.precision.autocast():
            return self._loss(views, mask.to(device))


def make_mask(
    model: MaskedAutoencoder, batch: Batch, loss_on: Literal["hidden", "all"] = "hidden"
) -> Mask:
    """Build the batch's Mask on the CPU; every batch has the same number of queries."""
    if batch.hidden is None:
        msg = "this batch was read without a masker"
        raise ValueError(msg)
    hidden = torch.from_numpy(batch.hidden)
    requested = None if batch.decode is None else torch.from_numpy(batch.decode)
    count = None
    wants = None if model.target is None else model.target.wants(model.grid)
    if wants is not None:
        wanted = torch.from_numpy(np.ascontiguousarray(wants)).reshape(-1)
        if requested is None:
            requested = torch.ones_like(hidden) if loss_on == "all" else hidden
        count = min(int(requested[0].sum()), int(wanted.sum()))
        requested = requested & wanted
    return Mask.build(
        hidden,
        requested=requested,
        count=count,
        loss_on=loss_on,
        sample_weight=torch.from_numpy(batch.weight),
        token_weight=None if batch.known is None else torch.from_numpy(batch.known),
    )


def to_device_float01(view: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """Convert clips ``[B, C, T, H, W]``, uint8 or float32, to float32 on a device.

    uint8 crosses to the device as it is, a quarter of the bytes; it is divided by 255 there.
    """
    tensor = send(torch.from_numpy(view), device)
    return tensor / 255 if tensor.dtype == torch.uint8 else tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device, without waiting for what that still computes."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Run blocks again in the backward pass instead of keeping what they made."""
    for block in blocks:
        block.forward = Recomputed(block.forward)


class Recomputed:
    """A block's forward pass that keeps nothing; a copy of the block has a copy's (an EMA's)."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward  # bound to the block: a deep copy of it to the block's copy

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (any block's signature)
        """Call the block."""
        return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; afterwards it is in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
