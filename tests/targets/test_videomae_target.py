"""VideoMAE's target and loss, value by value from its formula.

engine_for_pretraining.py: cubes of [0, 1] pixels in the order (p0 p1 p2) c, each channel of a cube
less its mean, over the root of its unbiased variance plus 1e-6; the loss is a plain mean.
"""

from __future__ import annotations

import math

import pytest
import torch

from maekit.contracts import Grid, PartContext
from maekit.targets.pixel import NormPixel
from maekit.tokens import Mask

CLIP, PATCH, GRID = (4, 6, 8), (2, 3, 4), Grid(2, 2, 2)
CONTEXT = PartContext(CLIP, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), grid=GRID, patch=PATCH)


def videomae() -> NormPixel:
    options = {"space": "unit", "statistics": "per-channel", "eps": "outside"}
    return NormPixel(NormPixel.Options.model_validate(options), CONTEXT)


def test_each_value_stands_where_videomae_puts_it() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, *CLIP, dtype=torch.float64)
    mask = Mask.build(torch.ones(1, 8, dtype=torch.bool).index_fill(1, torch.tensor([5]), False))
    truth = videomae().encode([pixels.float()], mask)[0].tolist()
    for row, token in zip(truth, mask.queries[0].tolist(), strict=True):
        t, rest = divmod(token, GRID.h * GRID.w)
        h, w = divmod(rest, GRID.w)
        cube = pixels[0, :, 2 * t : 2 * t + 2, 3 * h : 3 * h + 3, 4 * w : 4 * w + 4]
        for c in range(3):
            values = [
                float(cube[c, p0, p1, p2]) for p0 in range(2) for p1 in range(3) for p2 in range(4)
            ]
            mean = sum(values) / 24
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 23) + 1e-6
            expected = [(v - mean) / deviation for v in values]
            assert row[c::3] == pytest.approx(expected, abs=1e-4)


def test_the_loss_over_a_batch_is_a_plain_mean() -> None:
    torch.manual_seed(0)
    mask = Mask.build(torch.rand(3, 8).argsort(1) < 6)
    target = videomae()
    truth = target.encode([torch.rand(3, 3, *CLIP)], mask)
    pred = torch.randn_like(truth)
    each = target.loss(pred, truth) * mask.weight
    plain = torch.nn.MSELoss()(pred, truth)
    torch.testing.assert_close(each.sum() / mask.weight.sum(), plain)
