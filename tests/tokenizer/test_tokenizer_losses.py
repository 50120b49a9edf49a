"""The arithmetic of the tokenizer, against formulas written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numerics import close

from maekit.data.order import Key
from maekit.recipe.tokenizer import DVAESizes, KLWeight, Temperature
from maekit.targets.dvae_networks import DVAE, map_pixels
from maekit.tokenizer.losses import (
    annealed,
    divergence,
    gumbel_noise,
    mean_colors,
    perplexity,
    reconstruction,
    relaxed,
    relaxed_bound,
)

CPU = torch.device("cpu")


def test_dalles_ramps_in_a_long_run() -> None:
    budget = 3_000_000
    heat, weight = Temperature(), KLWeight()
    assert annealed(heat, 0, budget) == 1
    assert annealed(heat, 75_000, budget) == pytest.approx((1 + 1 / 16) / 2)
    assert annealed(heat, 150_000, budget) == annealed(heat, budget, budget) == 1 / 16
    assert annealed(weight, 0, budget) == 0
    assert annealed(weight, 5_000, budget) == 6.6
    third = annealed(weight, 5_000 // 3, budget)
    assert third == pytest.approx(6.6 * 0.5 * (1 - math.cos(math.pi / 3)), rel=1e-3)


@given(st.floats(0.01, 5), st.floats(0.01, 5), st.integers(0, 50), st.integers(1, 40), st.data())
def test_a_ramp_stays_between_its_ends_and_ends_with_the_run(
    start: float, end: float, steps: int, budget: int, data: st.DataObject
) -> None:
    ramp = Temperature(start=start, end=end, steps=steps)
    step = data.draw(st.integers(0, budget))
    value = annealed(ramp, step, budget)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9
    assert annealed(ramp, budget, budget) == pytest.approx(end)


def test_noise_is_gumbel_and_a_function_of_each_samples_key() -> None:
    from scipy import stats

    keys = [Key(0, index) for index in range(4)]
    noise = gumbel_noise(keys, (64, 8, 8), seed=3, device=CPU)
    assert stats.kstest(noise.flatten().numpy(), stats.gumbel_r.cdf).pvalue > 0.01
    torch.manual_seed(1)
    assert torch.equal(gumbel_noise(keys, (64, 8, 8), seed=3, device=CPU), noise)
    close(gumbel_noise(keys[2:], (64, 8, 8), seed=3, device=CPU), noise[2:], terms=1)
    for other in (
        gumbel_noise(keys, (64, 8, 8), seed=4, device=CPU),
        gumbel_noise([Key(1, key.index) for key in keys], (64, 8, 8), seed=3, device=CPU),
    ):
        assert not torch.equal(other, noise)


def test_a_relaxed_sample_is_the_softmax_of_disturbed_logits() -> None:
    rng = np.random.default_rng(0)
    logits, noise = rng.normal(size=(2, 5, 3, 3)), rng.gumbel(size=(2, 5, 3, 3))
    for heat in (1.0, 0.3):
        high = np.exp((logits + noise) / heat)
        expected = high / high.sum(axis=1, keepdims=True)
        found = relaxed(torch.tensor(logits), torch.tensor(noise), torch.tensor(heat))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    cold = relaxed(torch.tensor(logits), torch.tensor(noise), torch.tensor(1e-3))
    assert torch.equal(cold.argmax(1), torch.tensor((logits + noise).argmax(1)))
    assert float(cold.amax(1).min()) > 0.99


def test_divergence_is_from_uniform_codes() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 7, 3, 4)) * 2
    q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (q * np.log(q / (1 / 7))).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(divergence(torch.tensor(logits)), expected, rtol=1e-5)
    assert float(divergence(torch.zeros(1, 7, 3, 4))) == pytest.approx(0, abs=1e-5)
    sure = torch.zeros(1, 7, 1, 1)
    sure[:, 2] = 100
    assert float(divergence(sure)) == pytest.approx(math.log(7), rel=1e-5)


def test_the_logit_laplace_likelihood_is_that_of_a_laplace_logit() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    x, mu, log_b = rng.uniform(size=(2, 3, 4, 4)), rng.normal(size=(2, 3, 4, 4)), 0.3
    mapped = 0.8 * x + 0.1
    logit = np.log(mapped / (1 - mapped))
    # Change of variables: p(x) = p(logit(x)) / (x (1 - x)).
    expected = -(stats.laplace.logpdf(logit, mu, np.exp(log_b)) - np.log(mapped * (1 - mapped)))
    scale = torch.full((2, 3, 4, 4), log_b, dtype=torch.float64)
    found = reconstruction("logit-laplace", torch.tensor(mu), scale, torch.tensor(x))
    np.testing.assert_allclose(found, expected.mean(axis=(1, 2, 3)), rtol=1e-6)


def test_mse_and_l1_are_errors_of_the_picture() -> None:
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    shifted = torch.logit(map_pixels(pixels + 0.05))
    none = torch.zeros_like(pixels)
    for kind, expected in (("mse", 0.0025), ("l1", 0.05)):
        found = reconstruction(kind, shifted, none, pixels)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_bound_weighs_a_codes_divergence_by_its_values() -> None:
    model = DVAE(DVAESizes(vocabulary=6, width=4, groups=4, blocks=1, init_width=4), 3)
    pixels = torch.rand(2, 3, 16, 8)
    noise = torch.zeros(2, 6, 2, 1)
    heat = torch.tensor(1.0)
    bounds = [
        relaxed_bound(model, "mse", pixels, noise, heat, torch.tensor(weight))
        for weight in (0.0, 6.6)
    ]
    per_code = divergence(model.logits(pixels)) / 2
    torch.testing.assert_close(bounds[1] - bounds[0], 6.6 / 192 * per_code)


def test_measures() -> None:
    assert perplexity(torch.tensor([5, 5, 0, 5, 5])) == pytest.approx(4)
    assert perplexity(torch.tensor([0, 9])) == pytest.approx(1)
    pixels = torch.arange(16.0).reshape(1, 1, 4, 4)
    flat = mean_colors(pixels, 2)
    assert flat[0, 0, 0].tolist() == [2.5, 2.5, 4.5, 4.5]
    assert flat[0, 0, 3].tolist() == [10.5, 10.5, 12.5, 12.5]
