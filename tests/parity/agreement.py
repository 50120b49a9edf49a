"""What the parity tests share: how agreement is measured, and weights under which it means much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from maekit.layers import Statistics

# Float32's epsilon is 1.2e-7. Outputs were found to differ by up to 1e-6, gradients, which are sums
# forth and back through the whole model, by up to 2e-6; a factor of ten is for other processors.
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 2e-5
IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# What is written to the stream of tokens that all blocks add to.
INTO_THE_STREAM = (
    "class_token", "cls_token", "mask_token", "position", "pos_embed", "patch_embed",
    "decoder.embed", "decoder_embed", "attn.proj", "o_proj", "mlp.fc2",
)  # fmt: skip
QUIET = 1e-3


def assert_agree(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> None:
    """Tensor by tensor ``|ours - theirs| <= tolerance |theirs|``; two exact zeros agree."""
    assert ours.keys() == theirs.keys()
    apart = {}
    for name, mine in ours.items():
        true = theirs[name].detach().double()
        assert mine.shape == true.shape, name
        difference, size = float((mine.detach().double() - true).norm()), float(true.norm())
        if not difference <= tolerance * size:  # also where there is a NaN
            apart[name] = f"{difference:.1e} of {size:.1e}"
    assert not apart, apart


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Of every trained parameter, each of which must have one."""
    found = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            found[name] = parameter.grad
    return found


@torch.no_grad()
def randomize(module: nn.Module, std: float = 0.15, *, quiet: bool = False, seed: int = 0) -> None:
    """Give all parameters normal values: a fresh model's zeros and ones would hide a mix-up.

    Args:
        quiet: keep the stream of tokens near 1e-3, where LayerNorm's epsilon of 1e-6 is as large
            as a token's variance. Frozen position tables are scaled too.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            values = torch.randn(parameter.shape, generator=generator) * std
            is_scale = "norm" in name and name.endswith("weight")
            parameter.copy_(values + 1 if is_scale else values)
        if quiet and any(part in name for part in INTO_THE_STREAM):
            parameter.mul_(QUIET)


@contextmanager
def output_of(module: nn.Module, pick: Callable[[Any], Tensor]) -> Iterator[list[Tensor]]:
    """Note what a module inside a model returns."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(pick(output)))
    try:
        yield seen
    finally:
        handle.remove()


def random_hidden(batch: int, tokens: int, count: int, seed: int = 1) -> Tensor:
    """Bool ``[B, N]``: each sample hides other tokens, so that a mixed-up order cannot pass."""
    noise = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(seed))
    return noise.argsort(1) < count


def uneven_pixels(*shape: int, seed: int = 2) -> Tensor:
    """Pixels in [0, 1], ``[B, C, T, H, W]``, whose right half has a fiftieth of the contrast.

    There it shows where the epsilon of a normalized target stands.
    """
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    half = shape[-1] // 2
    pixels[..., half:] = 0.5 + 0.02 * (pixels[..., half:] - 0.5)
    return pixels
