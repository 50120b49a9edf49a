"""Pictures of training: what the target does not ask for is not shown as if it were predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from maekit.data.batch import Batch
from maekit.engine.build import build_model
from maekit.engine.precision import Precision
from maekit.visualize import training
from maekit.visualize.panel import masked as hatched
from maekit.weights.header import Header


def header(target: dict[str, Any], mean: float = 0.5, std: float = 0.2) -> Header:
    return Header.model_validate(
        {
            "backbone": {"name": "video-vit", "size": "tiny", "width": 16, "depth": 1, "heads": 2,
                         "patch": [2, 8, 8]},
            "decoder": {"name": "vit", "width": 16, "depth": 0, "heads": 2},
            "target": target,
            "clip": (6, 16, 16),
            "channels": 3,
            "mean": (mean,) * 3,
            "std": (std,) * 3,
        }
    )  # fmt: skip


def rows_of(
    monkeypatch: pytest.MonkeyPatch, header: Header, pixels: np.ndarray
) -> list[list[np.ndarray]]:
    """Return what stands in the panel of one clip, half of whose tokens are hidden."""
    seen: list[Any] = []
    monkeypatch.setattr(training, "panel", lambda rows, captions: seen.extend(rows))
    hidden = np.arange(12)[None] % 2 == 0
    batch = Batch((pixels,), hidden, None, np.ones(1, np.float32), np.zeros(1), (), ())
    training.reconstructions(build_model(header), batch, Precision.of("fp32", torch.device("cpu")))
    return seen


def test_only_what_is_asked_for_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).random((1, 3, 6, 16, 16), dtype=np.float32)
    target = {"name": "pixel", "frames": "center"}
    [[original, masked, alone, pasted]] = rows_of(monkeypatch, header(target), pixels)
    nothing = hatched(original, np.ones((3, 2, 2), bool), (2, 8, 8))
    # The middle frame's slot is the second of three.
    np.testing.assert_array_equal(alone[[0, 1, 4, 5]], nothing[[0, 1, 4, 5]])
    assert (alone[2:4, :, :8] != nothing[2:4, :, :8]).any()
    np.testing.assert_array_equal(pasted[[0, 1, 4, 5]], masked[[0, 1, 4, 5]])
    assert (original[:, :, :8] != masked[:, :, :8]).any()


def test_pixels_of_no_known_range_are_shown_by_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).normal(300, 20, (1, 3, 6, 16, 16)).astype(np.float32)
    shown = header({"name": "pixel"}, mean=300, std=20)
    [[original, *_]] = rows_of(monkeypatch, shown, pixels)
    assert 0.45 < original.mean() < 0.55
    assert original.std() == pytest.approx(1 / 6, rel=0.1)
