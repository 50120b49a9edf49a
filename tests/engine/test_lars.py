"""LARS against arithmetic of its own (numpy, float64)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maekit.engine.optim import LARS


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_matrices_are_scaled_by_trust_and_biases_are_not(decay: float) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    tensors = [torch.nn.Parameter(torch.tensor(value)) for value in (weight, bias)]
    optimizer = LARS([{"params": tensors}], momentum=0.9, trust=0.001, weight_decay=decay)
    moments = [np.zeros((3, 4)), np.zeros(3)]
    for step in range(4):
        lr = 6.4 / (step + 1)
        optimizer.param_groups[0]["lr"] = lr
        slopes = [rng.normal(size=(3, 4)), rng.normal(size=3)]
        for parameter, slope in zip(tensors, slopes, strict=True):
            parameter.grad = torch.tensor(slope)
        optimizer.step()
        decayed = slopes[0] + decay * weight
        scaled = decayed * 0.001 * np.linalg.norm(weight) / np.linalg.norm(decayed)
        moments = [0.9 * moments[0] + scaled, 0.9 * moments[1] + slopes[1]]
        weight, bias = weight - lr * moments[0], bias - lr * moments[1]
        np.testing.assert_allclose(tensors[0].detach().numpy(), weight, rtol=1e-12)
        np.testing.assert_allclose(tensors[1].detach().numpy(), bias, rtol=1e-12)


def test_zero_weights_take_the_plain_gradient() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([{"params": [parameter]}], lr=0.5)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.full((2, 2), -0.5))


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([{"params": [parameter]}], lr=0.5)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    before = parameter.detach().clone(), optimizer.state[parameter]["momentum"].clone()
    parameter.grad = torch.full((2, 2), torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(parameter.detach(), before[0])
    assert torch.equal(optimizer.state[parameter]["momentum"], before[1])
    optimizer.found_inf = torch.tensor(0.0)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    assert not torch.equal(parameter.detach(), before[0])
