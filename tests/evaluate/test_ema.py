"""The moving average against its recursion."""

from __future__ import annotations

import torch
from numerics import close
from torch import nn

from maekit.evaluate.ema import MovingAverage
from maekit.weights.safetensors_io import AVERAGE


def test_the_average_begins_at_the_first_weights_and_follows_its_recursion() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    expected = model.weight.detach().double().clone()
    average = MovingAverage(model, optimizer, 0.9)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        expected = 0.9 * expected + 0.1 * model.weight.detach().double()
    found = average.model.weight
    close(found, expected, terms=2 * 5)
    assert not found.requires_grad
    kept = average.tensors()
    assert set(kept) == {f"{AVERAGE}weight", f"{AVERAGE}bias"}
    other = MovingAverage(nn.Linear(3, 2), optimizer, 0.9)
    other.load(kept | {"weight": torch.zeros(2, 3)})
    assert torch.equal(other.model.weight, found)
