"""Pictures while a discrete VAE trains: held-out samples beside what their codes keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from maekit.engine.step import to_unit
from maekit.targets.dvae_networks import as_pictures
from maekit.visualize.panel import panel

if TYPE_CHECKING:
    from PIL.Image import Image

    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.targets.dvae_networks import DVAE

COLUMNS = ("original", "reconstruction")


@torch.no_grad()
def rebuilt(model: DVAE, batch: Batch, precision: Precision) -> Image | None:
    """A panel of the good samples of a batch; None where all are bad."""
    good = batch.weight > 0
    if not good.any():
        return None
    was_training = model.training
    model.eval()
    clips = to_unit(batch.views[0][good], next(model.parameters()).device)
    with precision.autocast():
        pictures, _ = model.reconstruct(as_pictures(clips))
    model.train(was_training)
    frames = clips.shape[2]
    again = pictures.float().unflatten(0, (-1, frames)).movedim(2, -1)
    original = clips.permute(0, 2, 3, 4, 1)
    pairs = zip(original.cpu().numpy(), again.cpu().numpy(), strict=True)
    return panel([list(pair) for pair in pairs], COLUMNS)
