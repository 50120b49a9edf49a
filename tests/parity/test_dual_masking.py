"""VideoMAEv2's dual masking, by an example that is worked out by hand (arXiv 2303.16727).

The decoder predicts the tokens of its own mask, visible ones among them, and the loss is the mean
over those that the encoder did not see (engine_for_pretraining.py: ``cal_loss_mask``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from maekit.contracts import Encoded, Grid, PartContext
from maekit.layers import Statistics
from maekit.model import MaskedAutoencoder
from maekit.targets.pixel import NormPixel
from maekit.tokens import Mask

GRID = Grid(2, 2, 2)
CONTEXT = PartContext((2, 2, 4), 1, (0.5,), (0.2,), grid=GRID, patch=(1, 1, 2), width=1)


class Given(nn.Module):
    """Stands for encoder and decoder: predicts what it was given, at the queries."""

    layers: Sequence[int] = ()
    returns, prefix_tokens, width = "visible", 0, 1

    def __init__(self, predictions: Tensor) -> None:
        super().__init__()
        self.predictions = predictions

    def grid(self, _: object) -> Grid:
        return GRID

    def forward(self, first: object, mask: Mask, *_: object) -> Encoded | Tensor:
        if isinstance(first, Encoded):
            index = mask.queries[..., None].expand(-1, -1, 2)
            return self.predictions.gather(1, index)
        return Encoded(torch.zeros(2, mask.visible.shape[1], 1))


def test_the_loss_is_the_mean_over_what_is_decoded_and_was_not_seen() -> None:
    # Two clips of eight tokens in two time slots; a token is two pixels, the second the brighter
    # one. Normalized by their own mean and unbiased deviation, any two such pixels a < b become
    # -1/sqrt(2) and 1/sqrt(2): ((a - b) / 2) / (|a - b| / sqrt(2)).
    pixels = torch.tensor([0.2, 0.6]).repeat(2, 8).view(2, 1, 2, 2, 4)
    # The encoder sees tokens 0 and 5 of the first clip, 2 and 3 of the second; the decoder's cells
    # choose 0 and 1 of the first slot, 5 and 6 of the second.
    hidden = torch.ones(2, 8, dtype=torch.bool)
    hidden[0, [0, 5]] = hidden[1, [2, 3]] = False
    decoded = torch.zeros(2, 8, dtype=torch.bool)
    decoded[:, [0, 1, 5, 6]] = True
    mask = Mask.build(hidden, requested=decoded)
    assert mask.queries.tolist() == [[0, 1, 5, 6]] * 2
    assert mask.weight.tolist() == [[0, 1, 0, 1], [1, 1, 1, 1]]
    # A prediction of zeros costs ((1/sqrt(2))^2 * 2) / 2 = 1/2, the truth reversed
    # ((2/sqrt(2))^2 * 2) / 2 = 2; what the encoder saw does not count, however wrong.
    predictions = torch.zeros(2, 8, 2)
    predictions[0, [0, 5]] = 1000.0
    predictions[0, 6] = torch.tensor([0.5**0.5, -(0.5**0.5)])
    target = NormPixel(
        NormPixel.Options(statistics="per-channel", eps="outside", space="unit"), CONTEXT
    )
    given = Given(predictions)
    model = MaskedAutoencoder(
        given,  # type: ignore[arg-type]
        given,  # type: ignore[arg-type]
        target,
        (2, 2, 4),
        Statistics((0.5,), (0.2,)),
    )
    loss = model.masked_loss([pixels], mask) / mask.weight.sum()
    # Tokens 1 and 6 of the first clip, four of the second: (1/2 + 2 + 4 * 1/2) / 6. The epsilon of
    # 1e-6 beside a deviation of 0.28 changes the seventh digit.
    assert float(loss) == pytest.approx(4.5 / 6, rel=1e-5)
    # Of the first clip alone: 1/2 + 2, a sum.
    alone = replace(mask, weight=mask.weight * torch.tensor([[1.0], [0.0]]))
    assert float(model.masked_loss([pixels], alone)) == pytest.approx(2.5, rel=1e-5)
