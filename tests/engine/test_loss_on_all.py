"""``loss_on: all``: every token that a target can be asked for counts, hidden or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from maekit.contracts import Encoded
from maekit.data.batch import Batch
from maekit.engine.build import build_model
from maekit.engine.precision import Precision
from maekit.engine.step import PretrainStep, make_mask
from maekit.tokens import Mask
from maekit.weights.header import Header

TARGETS: list[dict[str, Any]] = [
    {"name": "pixel"},
    {"name": "norm-pixel"},
    {"name": "pca", "components": 8},
    {"name": "pixel", "frames": "center"},
    {"name": "norm-pixel", "frames": "double"},
    {"name": "pca", "components": 8, "frames": "center"},
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss_on", ["all", "hidden"])
def test_the_loss_is_over_the_tokens_asked_for(target: dict[str, Any], loss_on: Any) -> None:
    header = Header.model_validate(
        {
            "backbone": {"name": "video-vit", "size": "tiny", "width": 16, "depth": 1, "heads": 2,
                         "patch": [2, 8, 8]},
            "decoder": {"name": "vit", "width": 16, "depth": 1, "heads": 2},
            "target": target,
            "clip": (6, 16, 16),
            "channels": 3,
            "mean": (0.5,) * 3,
            "std": (0.2,) * 3,
        }
    )  # fmt: skip
    model = build_model(header)
    assert model.target is not None
    rng = np.random.default_rng(0)
    frames = (6, 12) if target.get("frames") == "double" else (6,)
    views = tuple(rng.random((2, 3, count, 16, 16), dtype=np.float32) for count in frames)
    tensors = [torch.from_numpy(view) for view in views]
    if hasattr(model.target, "fit"):
        model.target.fit([tensors])
    hidden = np.stack([rng.permutation(12) < 8 for _ in range(2)])
    weight = np.ones(2, np.float32)
    batch = Batch(views, hidden, None, weight, np.zeros(2, np.int64), (), ())
    precision = Precision.of("fp32", torch.device("cpu"))
    step = PretrainStep(model, precision, loss_on=loss_on)
    weighed = step.weigh(batch)
    total, weights = step.loss(weighed), weighed.weight

    asked = np.ones((2, 12), bool) if loss_on == "all" else hidden.copy()
    if target.get("frames") == "center":
        asked[:, :4] = asked[:, 8:] = False  # the second of three time slots
    assert weights == asked.sum()
    # One query at a time, so that nothing depends on how queries are laid out.
    every = make_mask(model, batch, loss_on)
    by_hand = 0.0
    with torch.no_grad():
        encoded = model.encode_visible(model.normalize(tensors[0]), every)
        for row, token in zip(*np.nonzero(asked), strict=True):
            one = Mask(
                every.visible[row : row + 1],
                torch.tensor([[token]]),
                torch.ones(1, 1),
                12,
            )
            truth = model.target.encode([view[row : row + 1] for view in tensors], one)
            pred = _prediction(model, encoded, every, row, token)
            by_hand += float(model.target.loss(pred, truth))
    assert float(total.detach()) == pytest.approx(by_hand, rel=1e-4)


def _prediction(model: Any, encoded: Encoded, mask: Mask, row: int, token: int) -> Any:
    """Predict the whole row, of which one is taken: tokens attend to each other."""
    pred = model.decode(encoded, mask)
    place = int((mask.queries[row] == token).nonzero())
    return pred[row : row + 1, place : place + 1]
