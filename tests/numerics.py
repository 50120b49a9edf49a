"""How far apart two ways of computing the same numbers may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor


def close(
    actual: ArrayLike | Tensor,
    expected: ArrayLike | Tensor,
    *,
    terms: int,
    dtype: torch.dtype = torch.float32,
    scale: float | None = None,
) -> None:
    """Assert that two computations of the same numbers differ by no more than rounding does.

    A result in `dtype` is off by up to half an epsilon of its size. Which way depends on the order
    of summation, and that on the processor's vector width, the library, the batch size and the
    number of threads. So two computations of a number differ by about one epsilon for each of the
    `terms` roundings on the way to it; as these are as good as independent, they add up to
    sqrt(terms) of them. A tensor's small values are what is left of sums of large ones, so the
    epsilon is that of the largest expected value. Ten times as much is allowed.

    Args:
        actual: tensor, array or nested list.
        expected: what it is compared with, of the same shape.
        terms: the length of the sum that each number is; of sums of sums, all lengths in a row.
        dtype: the least exact one on the way.
        scale: the size of what is summed, where that is far above the expected values.
    """
    ours, theirs = (torch.as_tensor(each).detach().double().cpu() for each in (actual, expected))
    assert ours.shape == theirs.shape
    size = float(theirs.abs().max()) if scale is None else scale
    bound = 10 * torch.finfo(dtype).eps * math.sqrt(terms) * size
    apart = float((ours - theirs).abs().max())
    assert apart <= bound, f"{apart:.2g} apart, of {size:.2g}; rounding explains {bound:.2g}"


def vit_terms(patch: int, width: int, depth: int, tokens: int) -> int:
    """Return `close`'s terms of a transformer's tokens.

    A block sums over its width in two norms, qkv, scores, projection and fc1, over four times as
    much in fc2, and over all tokens where it attends.

    Args:
        patch: the values of a patch.
        width: of a token.
        depth: the number of blocks.
        tokens: that attend to each other.
    """
    return patch + depth * (10 * width + tokens)
