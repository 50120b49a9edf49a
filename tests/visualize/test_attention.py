"""Attention: rolled out as the paper says, and over the picture that it is of."""

from __future__ import annotations

import numpy as np
import torch

from maekit.visualize.attention import overlay, rollout


def test_rollout_multiplies_layers_with_their_residual_paths() -> None:
    torch.manual_seed(0)
    layers = [torch.rand(2, 3, 5, 5).softmax(-1) for _ in range(3)]
    expected = np.stack([np.eye(5)] * 2)
    for layer in layers:
        step = 0.5 * layer.mean(1).numpy() + 0.5 * np.eye(5)
        expected = np.einsum("bij,bjk->bik", step, expected)
    np.testing.assert_allclose(rollout(layers).numpy(), expected, atol=1e-6)


def test_what_is_looked_at_is_bright() -> None:
    original = np.full((4, 16, 24, 3), 0.5, np.float32)
    seen = np.zeros((2, 2, 3), np.float32)
    seen[1, 0, 2] = 1
    shown = overlay(original, seen, 2)
    assert shown.shape == (4, 16, 24, 3)
    brightness = shown.mean(-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape)[0] in (2, 3)
    assert brightness[3, 2, 22] > brightness[3, 14, 2] + 0.3
    np.testing.assert_allclose(shown[0], shown[1])
    assert np.isfinite(overlay(original, np.zeros_like(seen), 2)).all()
