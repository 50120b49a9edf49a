"""Pictures while a model trains: the same held-out samples, step after step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.engine.step import make_mask, to_unit
from maekit.tokens import Mask
from maekit.visualize.painting import (
    COLUMNS,
    LEAKING,
    asked_of,
    can_paint,
    channels_last,
    in_place,
    paint,
    shown_range,
    stages,
)
from maekit.visualize.panel import panel

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder

__all__ = ["can_paint", "reconstructions"]


@torch.no_grad()
def reconstructions(model: MaskedAutoencoder, batch: Batch, precision: Precision) -> Image | None:
    """A panel of the good samples of a batch; None where all are bad.

    Hidden tokens that the target does not ask for stay hatched. Pixels that are not within [0, 1]
    are shown by the data's own range, three deviations about the mean of each channel. Where a
    target's pictures change with the true statistics of hidden patches, that picture has a column
    of its own, labeled so: it leaks the answer.
    """
    good = torch.from_numpy(np.flatnonzero(batch.weight > 0))
    if len(good) == 0:
        return None
    was_training = model.training
    model.eval()
    device = model.device
    pixels = to_unit(batch.views[0], device)[good]
    every = make_mask(model, batch)
    mask = Mask(every.visible[good], every.queries[good], every.weight[good], every.tokens).to(
        device
    )
    with precision.autocast():
        painting = paint(model, pixels, mask)
    model.train(was_training)
    painted = [in_place(model, painting.honest, pixels, mask)]
    if painting.leaking is not None:
        painted.append(in_place(model, painting.leaking, pixels, mask))
    return _panel(model, pixels, mask, painted)


def _panel(
    model: MaskedAutoencoder, pixels: Tensor, mask: Mask, painted: list[np.ndarray]
) -> Image:
    originals, patch = channels_last(pixels), model.backbone.patch
    low, high = shown_range(model, originals)
    originals, *painted = [(picture - low) / (high - low) for picture in (originals, *painted)]
    hidden, asked = (
        tokens.reshape(-1, *model.grid).cpu().numpy() for tokens in (mask.hidden(), asked_of(mask))
    )
    rows = [
        stages(original, [picture[row] for picture in painted], hidden[row], asked[row], patch)
        for row, original in enumerate(originals)
    ]
    captions = COLUMNS if len(painted) == 1 else (*COLUMNS, LEAKING)
    return panel(rows, captions)
