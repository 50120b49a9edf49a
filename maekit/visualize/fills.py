"""Pictures without any model, from visible patches alone: what a prediction has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from maekit.engine.holdout import channel_means, flat_patches
from maekit.tokens import coordinates, gather, patchify, spread

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.grid import Grid
    from maekit.tokens import Mask


def fills(pixels: Tensor, mask: Mask, grid: Grid, patch: tuple[int, int, int]) -> dict[str, Tensor]:
    """Three guesses at the queries, each ``[B, Q, pt*ph*pw*C]``.

    - ``visible_mean``: the mean color of all that is visible.
    - ``nearest_visible``: the visible patch that is nearest on the token grid, the first in raster
      order of several; a whole copy, not its mean.
    - ``interpolated_mean``: the mean colors of visible patches, interpolated (``tokens.spread``):
      what a model that predicts zeros paints with norm-pixel per channel.

    Args:
        pixels: ``[B, C, T, H, W]``.
    """
    patches = patchify(pixels, patch)
    visible = gather(patches, mask.visible)
    like = gather(patches, mask.queries)
    means = channel_means(visible, pixels.shape[1])
    return {
        "visible_mean": flat_patches(means.mean(dim=1, keepdim=True), like).expand_as(like),
        "nearest_visible": gather(visible, _nearest(mask, grid)),
        "interpolated_mean": flat_patches(spread(means, mask, grid), like),
    }


def _nearest(mask: Mask, grid: Grid) -> Tensor:
    """Int64 ``[B, Q]``: which of the K visible tokens is nearest to each query."""
    where = coordinates(grid).to(mask.visible.device, torch.float32)
    # Roots of whole numbers, so that equally near tokens are ties on every machine.
    distance = torch.cdist(
        where[mask.queries], where[mask.visible], compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distance.argmin(dim=-1)
