"""Pictures while a model trains: the same held-out samples, step after step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.contracts import Paints
from maekit.engine.step import make_mask, to_unit
from maekit.tokens import Mask, patchify, unpatchify
from maekit.visualise.panel import masked, panel, paste

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from maekit.data.batch import Batch
    from maekit.engine.precision import Precision
    from maekit.model import MaskedAutoencoder

COLUMNS = ("original", "masked", "prediction", "prediction in the visible part")
LEAKING = "the same, uses ground-truth mean/variance"
_DEVIATIONS = 3  # from black to the mean, and from there to white, of pixels in no known range


def can_paint(model: MaskedAutoencoder) -> bool:
    """Whether the model's target predicts pixels."""
    return isinstance(model.target, Paints)


@torch.no_grad()
def reconstructions(model: MaskedAutoencoder, batch: Batch, precision: Precision) -> Image | None:
    """A panel of the good samples of a batch; None where all are bad.

    Hidden tokens that the target does not ask for stay hatched. Pixels that are not within [0, 1]
    are shown by the data's own range, three deviations about the mean of each channel. Where a
    target's pictures change with the true statistics of hidden patches, that picture has a column
    of its own, labelled so: it leaks the answer.
    """
    good = torch.from_numpy(np.flatnonzero(batch.weight > 0))
    if len(good) == 0:
        return None
    was_training = model.training
    model.eval()
    device = model.mean.device
    pixels = to_unit(batch.views[0], device)[good]
    every = make_mask(model, batch)
    mask = Mask(every.visible[good], every.queries[good], every.weight[good], every.tokens).to(
        device
    )
    with precision.autocast():
        honest, leaking = (model.paint(pixels, mask, how) for how in ("visible", "truth"))
    model.train(was_training)
    painted = [_in_place(model, honest, pixels, mask)]
    if not torch.equal(honest, leaking):
        painted.append(_in_place(model, leaking, pixels, mask))
    return _panel(model, pixels, mask, painted)


def _in_place(model: MaskedAutoencoder, patches: Tensor, pixels: Tensor, mask: Mask) -> np.ndarray:
    """Patches ``[B, Q, P]`` where they belong, the original elsewhere: ``[B, T, H, W, C]``."""
    canvas = patchify(pixels, model.backbone.patch)
    index = mask.queries[..., None].expand(-1, -1, canvas.shape[-1])
    whole = canvas.scatter(1, index, patches.float())
    return _channels_last(unpatchify(whole, model.grid, model.backbone.patch))


def _panel(
    model: MaskedAutoencoder, pixels: Tensor, mask: Mask, painted: list[np.ndarray]
) -> Image:
    originals, patch = _channels_last(pixels), model.backbone.patch
    low, high = _range(model, originals)
    originals, *painted = [(picture - low) / (high - low) for picture in (originals, *painted)]
    hidden, asked = (
        tokens.reshape(-1, *model.grid).cpu().numpy() for tokens in (mask.hidden(), _asked(mask))
    )
    rows = []
    for row, original in enumerate(originals):
        seen = masked(original, hidden[row], patch)
        alone = paste(np.full_like(original, 0.5), painted[0][row], asked[row], patch)
        pasted = [paste(seen, picture[row], asked[row], patch) for picture in painted]
        rows.append([original, seen, alone, *pasted])
    captions = COLUMNS if len(painted) == 1 else (*COLUMNS, LEAKING)
    return panel(rows, captions)


def _asked(mask: Mask) -> Tensor:
    """Bool ``[B, N]``: hidden tokens whose prediction counts."""
    asked = torch.zeros_like(mask.hidden())
    return asked.scatter(1, mask.queries, mask.weight > 0) & mask.hidden()


def _range(
    model: MaskedAutoencoder, clips: np.ndarray
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """What is shown as black and as white, per channel."""
    if clips.min() >= 0 and clips.max() <= 1:
        return 0.0, 1.0
    mean, std = (np.asarray(values, np.float32) for values in model.statistics)
    return mean - _DEVIATIONS * std, mean + _DEVIATIONS * std


def _channels_last(pixels: Tensor) -> np.ndarray:
    array: np.ndarray = pixels.float().permute(0, 2, 3, 4, 1).cpu().numpy()
    return array
