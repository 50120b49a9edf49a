"""Count floating-point operations the same way wherever they are asked for.

They are torch's count (``torch.utils.flop_counter``): matrix products, convolutions and attention,
two operations for each multiply-add.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = Sequence[int]

_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"


def flop_counter() -> FlopCounterMode:
    """Return a context that counts what runs in it, attention included, printing nothing.

    torch before 2.15 has no formula for the fused attention of CPUs and counts it as nothing.
    """
    formulas = {_ATTENTION: _forward, f"{_ATTENTION}_backward": _backward}
    mapping = {getattr(torch.ops.aten, name): formula for name, formula in formulas.items()}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _forward(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Count attention's forward pass from the shapes ``(B, heads, S, D/heads)``."""
    return int(sdpa_flop_count(query, key, value))


def _backward(grad: Shape, query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Count its backward pass, which computes the scores again."""
    return int(sdpa_backward_flop_count(grad, query, key, value))
