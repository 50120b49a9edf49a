"""Pictures while a model trains: the same held-out samples, step after step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.engine.step import make_mask, to_device_float01
from maekit.targets.dvae_networks import as_pictures
from maekit.tokens import Mask
from maekit.visualize.painting import COLUMNS, ORACLE_COLUMN, as_shown, paint_sample
from maekit.visualize.panel import beside, panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder
    from maekit.targets.dvae_networks import DVAE

_SEVERAL = 4  # samples
REBUILT_COLUMNS = ("original", "reconstruction")


@torch.no_grad()
def reconstructions(model: MaskedAutoencoder, batch: Batch, precision: Precision) -> Image | None:
    """Show the good samples of a batch and what is predicted of them; None where all are bad.

    Hidden tokens that the target does not ask for stay hatched. Pixels that are not within [0, 1]
    are shown by the data's own range, three deviations around the mean of each channel. Where a
    target's pictures change with the true statistics of hidden patches, that picture has a column
    of its own, labeled so: it leaks the answer.
    """
    good = torch.from_numpy(np.flatnonzero(batch.weight > 0))
    if len(good) == 0:
        return None
    was_training = model.training
    model.eval()
    pixels = to_device_float01(batch.views[0], model.device)[good]
    every = make_mask(model, batch)
    mask = Mask(every.visible[good], every.queries[good], every.weight[good], every.tokens).to(
        model.device
    )
    with precision.autocast():
        canvases = paint_sample(model, [pixels], [mask])
    model.train(was_training)
    hidden = mask.hidden()
    predicted = torch.zeros_like(hidden).scatter(1, mask.queries, mask.weight > 0) & hidden
    painted = as_shown(model, pixels, canvases, hidden.cpu().numpy(), predicted.cpu().numpy())
    oracle = painted.oracle_stats is not None
    stages = [np.split(stage, len(pixels)) for stage in painted.stages(oracle=oracle)]
    captions = (*COLUMNS, ORACLE_COLUMN) if oracle else COLUMNS
    return _sheet([list(row) for row in zip(*stages, strict=True)], captions)


def _sheet(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str]) -> Image:
    """Lay samples out; several pictures in two halves side by side, as screens are wide."""
    still = len(rows[0][0]) == 1
    if len(rows) < _SEVERAL or not still:
        return panel(rows, captions)
    half = -(-len(rows) // 2)
    return beside([panel(rows[:half], captions), panel(rows[half:], captions)])


@torch.no_grad()
def rebuilt(model: DVAE, batch: Batch, precision: Precision) -> Image | None:
    """Show the good samples of a batch next to what a discrete VAE's codes keep of them.

    Returns:
        None where all samples are bad.
    """
    good = batch.weight > 0
    if not good.any():
        return None
    was_training = model.training
    model.eval()
    clips = to_device_float01(batch.views[0][good], next(model.parameters()).device)
    with precision.autocast():
        pictures, _ = model.reconstruct(as_pictures(clips))
    model.train(was_training)
    again = pictures.float().unflatten(0, (-1, clips.shape[2])).movedim(2, -1)
    original = clips.permute(0, 2, 3, 4, 1)
    pairs = zip(original.cpu().numpy(), again.cpu().numpy(), strict=True)
    return _sheet([list(pair) for pair in pairs], REBUILT_COLUMNS)
