"""Predict what a mask hides: with a model, and without any, which a model has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from maekit.contracts import PixelTarget
from maekit.errors import WeightsError
from maekit.origin import origin_of
from maekit.registry import find, listed
from maekit.tokens import (
    channel_means,
    coordinates,
    flat_patches,
    gather,
    interpolate_from_visible,
    patchify,
)

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.grid import Grid
    from maekit.model import MaskedAutoencoder
    from maekit.tokens import Mask

VISIBLE_STATS, ORACLE_STATS, CEILING = "visible_stats", "oracle_stats", "ceiling"


def predicts_pixels(model: MaskedAutoencoder) -> bool:
    """Tell whether the model's target can be shown as a picture."""
    return isinstance(model.target, PixelTarget)


def required_pixel_target(model: MaskedAutoencoder) -> PixelTarget:
    """Return the model's target, which predicts pixels.

    Raises:
        WeightsError: there is no decoder, or what it predicts is unknown or not pixels.
    """
    model.required_decoder()
    target = model.required_target()
    if not isinstance(target, PixelTarget):
        origin = origin_of(target)
        name = type(target).__name__ if origin is None else f"'{origin.name}'"
        msg = f"the target {name} does not predict pixels: no picture of it"
        own = (each for each in listed("targets") if each.distribution == "maekit")
        paint = [
            each.name for each in own if issubclass(find("targets", each.full_name), PixelTarget)
        ]
        hint = f"use weights whose target does, as {', '.join(paint)} do of maekit's own"
        raise WeightsError(msg, hint=hint)
    return target


def predictable_tokens(model: MaskedAutoencoder) -> np.ndarray:
    """Return the tokens that the target predicts where they are hidden, bool ``[N]``."""
    wants = None if model.target is None else model.target.wants(model.grid)
    if wants is None:
        return np.ones(model.grid.tokens, np.bool_)
    return np.ascontiguousarray(wants).reshape(-1)


@torch.no_grad()
def predict(
    model: MaskedAutoencoder, views: Sequence[Tensor], mask: Mask, *, baselines: bool = False
) -> dict[str, Tensor]:
    """Predict the pixels at a mask's queries, float32 ``[B, Q, pt*ph*pw*C]`` each.

    - ``visible_stats``: what the target has taken out of its patches (mean and variance) is put
      back as visible patches have it. This is the model's honest picture.
    - ``oracle_stats``: it is put back as the hidden patches themselves have it, which leaks the
      answer. Equal to ``visible_stats`` where the target takes nothing out.
    - with ``baselines``, those of ``inpainting_baselines`` and ``zero_prediction``; and, where all
      of the target's views are given, the ``ceiling``: the target's own truth with the statistics
      of visible patches, the best picture that any model could make.

    Args:
        model: one whose target predicts pixels.
        views: ``[B, C, T, H, W]`` in [0, 1], the model's own first.
        mask: for this batch.
        baselines: whether to add what the prediction is measured by.

    Raises:
        WeightsError: the model does not predict pixels.
    """
    target = required_pixel_target(model)
    pixels = views[0]
    encoded = model.encode_for_decoder(model.normalize(pixels), mask)
    pred = model.decode(encoded, mask)

    def decoded(prediction: Tensor, statistics: Literal["visible", "truth"]) -> Tensor:
        return target.decode(prediction, pixels, mask, statistics).float()

    found: dict[str, Tensor] = {}
    if baselines:
        found = inpainting_baselines(pixels, mask, model.grid, model.backbone.patch)
        # A baseline as well, so that a model that predicts zeros gains nothing on any picture. For
        # norm-pixel per channel it equals interpolated_mean; with statistics that channels share it
        # is gray, and for raw pixels the data's mean, which no other baseline is.
        found["zero_prediction"] = decoded(torch.zeros_like(pred), "visible")
    found[VISIBLE_STATS] = decoded(pred, "visible")
    found[ORACLE_STATS] = decoded(pred, "truth")
    if baselines and model.target is not None and len(views) > len(model.target.views):
        found[CEILING] = decoded(model.target.encode(views, mask), "visible")
    return found


def inpainting_baselines(
    pixels: Tensor, mask: Mask, grid: Grid, patch: tuple[int, int, int]
) -> dict[str, Tensor]:
    """Fill the queries from visible patches, without a model, ``[B, Q, pt*ph*pw*C]`` each.

    - ``visible_mean``: the mean color of all that is visible.
    - ``nearest_visible``: the visible patch that is nearest on the token grid, the first in raster
      order of several; a whole copy, not its mean.
    - ``interpolated_mean``: the mean colors of visible patches, as
      ``tokens.interpolate_from_visible`` spreads them: what a model that predicts zeros paints
      with norm-pixel per channel.

    Args:
        pixels: ``[B, C, T, H, W]``.
        mask: for this batch.
        grid: tokens along time, height and width.
        patch: pixels a token.
    """
    patches = patchify(pixels, patch)
    visible = gather(patches, mask.visible)
    like = gather(patches, mask.queries)
    means = channel_means(visible, pixels.shape[1])
    return {
        "visible_mean": flat_patches(means.mean(dim=1, keepdim=True), like).expand_as(like),
        "nearest_visible": gather(visible, _nearest(mask, grid)),
        "interpolated_mean": flat_patches(interpolate_from_visible(means, mask, grid), like),
    }


def _nearest(mask: Mask, grid: Grid) -> Tensor:
    """Find which of the K visible tokens is nearest to each query, int64 ``[B, Q]``."""
    where = coordinates(grid).to(mask.visible.device, torch.float32)
    # Roots of whole numbers, so that equally near tokens are ties on every machine.
    distance = torch.cdist(
        where[mask.queries], where[mask.visible], compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distance.argmin(dim=-1)
