"""The linear decoder begins as BEiT's head."""

from __future__ import annotations

import torch

from maekit.decoders.linear import LinearDecoder
from maekit.testing.modules import example


def test_weights_are_cut_at_one_deviation() -> None:
    torch.manual_seed(0)
    head = LinearDecoder(LinearDecoder.Options(), example(returns="all", width=64)).head
    assert not head.bias.any()
    largest = float(head.weight.detach().abs().max())
    assert 0.0199 < largest <= 0.02
    # Of a normal cut at one deviation: sqrt(1 - 2 phi(1) / (2 Phi(1) - 1)) = 0.5396 of it; of
    # 12,288 draws the estimate has a relative error of under 0.01 at three deviations.
    assert abs(float(head.weight.detach().std()) / 0.02 - 0.5396) < 0.01
