"""SGD against arithmetic of its own (numpy, float64), and steps that are skipped."""

from __future__ import annotations

import numpy as np
import torch

from maekit.engine.optim import make_sgd


def parameter(values: np.ndarray) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def test_momentum_is_that_of_the_paper_and_not_nesterovs() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    tensors = [parameter(weight), parameter(bias)]
    groups = [
        {"params": [tensors[0]], "weight_decay": 0.1},
        {"params": [tensors[1]], "weight_decay": 0.0},
    ]
    optimizer = make_sgd(groups, 0.9)
    moments = [np.zeros((3, 4)), np.zeros(3)]
    for step in range(4):
        lr = 0.4 / (step + 1)
        slopes = [rng.normal(size=(3, 4)), rng.normal(size=3)]
        for group, each, slope in zip(optimizer.param_groups, tensors, slopes, strict=True):
            group["lr"] = lr
            each.grad = torch.tensor(slope)
        optimizer.step()
        moments = [0.9 * moments[0] + slopes[0] + 0.1 * weight, 0.9 * moments[1] + slopes[1]]
        weight, bias = weight - lr * moments[0], bias - lr * moments[1]
        np.testing.assert_allclose(tensors[0].detach().numpy(), weight, rtol=1e-12)
        np.testing.assert_allclose(tensors[1].detach().numpy(), bias, rtol=1e-12)


def test_a_step_that_is_not_finite_changes_nothing_the_first_one_too() -> None:
    one, other = (parameter(np.ones((2, 2), np.float32)) for _ in range(2))
    skipping, plain = (make_sgd([{"params": [each], "lr": 0.5}], 0.9) for each in (one, other))
    bad, good = torch.full((2, 2), torch.nan), torch.full((2, 2), 0.25)
    for slope in (bad, good, bad, good):
        skipped = not bool(slope.isfinite().all())
        skipping.grad_scale, skipping.found_inf = None, torch.tensor(float(skipped))  # type: ignore[attr-defined]
        one.grad = slope.clone()
        skipping.step()
        if not skipped:
            other.grad = slope.clone()
            plain.step()
        assert torch.equal(one, other)
    assert torch.equal(one.detach(), torch.full((2, 2), 1 - 0.125 - 0.5 * 1.9 * 0.25))


def test_without_momentum_nothing_is_kept() -> None:
    weight = parameter(np.ones(3))
    optimizer = make_sgd([{"params": [weight], "lr": 0.5}], 0.0)
    weight.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    assert torch.equal(weight.detach(), torch.full((3,), 0.5, dtype=torch.float64))
    assert not optimizer.state[weight]
