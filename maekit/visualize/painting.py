"""Turn predictions into pictures: the one painter of training pictures and of ``reconstruct``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maekit.errors import DataError
from maekit.tokens import Mask, patchify, unpatchify
from maekit.visualize.panel import masked, over_pixels, paste
from maekit.visualize.prediction import (
    CEILING,
    ORACLE_STATS,
    VISIBLE_STATS,
    predict,
    predictable_tokens,
)

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.model import MaskedAutoencoder
    from maekit.visualize.masks import MaskRow

COLUMNS = ("original", "masked", "prediction", "prediction in the visible part")
ORACLE_COLUMN = "the same, uses ground-truth mean/variance"
_DEVIATIONS = 3  # from black to the mean, and from there to white, of pixels in no known range


@dataclass(frozen=True)
class Painted:
    """Pictures of a batch, float32 ``[F, H, W, C]``: F frames, those of all samples in turn.

    They are brought to [0, 1], and are the original where nothing was predicted.

    Attributes:
        original: the clips.
        visible_stats: the prediction, with statistics of visible patches only.
        oracle_stats: the prediction with those of the hidden patches, which leak the answer; None
            where that is the same picture.
        ceiling: the best that any model could paint; None where it was not requested.
        baselines: pictures made without a model, by name.
        hidden: bool ``[F/pt, h, w]``, not seen by the encoder.
        predicted: bool ``[F/pt, h, w]``.
        patch: pixels a token.
    """

    original: np.ndarray
    visible_stats: np.ndarray
    oracle_stats: np.ndarray | None
    ceiling: np.ndarray | None
    baselines: dict[str, np.ndarray]
    hidden: np.ndarray
    predicted: np.ndarray
    patch: tuple[int, int, int]

    @property
    def predicted_pixels(self) -> np.ndarray:
        """Where pixels were predicted, bool ``[F, H, W]``."""
        return over_pixels(self.predicted, self.patch, self.original)

    def stages(self, *, oracle: bool) -> list[np.ndarray]:
        """Show original, masked original, prediction alone, and predictions pasted in.

        Hatching is where there is nothing: what is hidden, and around a prediction what is
        visible. What is hidden and not predicted stays hatched.

        Args:
            oracle: whether to add the prediction with ``oracle_stats``; where the target has none,
                it is the prediction again.
        """
        seen = masked(self.original, self.hidden, self.patch)
        alone = masked(self.visible_stats, ~self.predicted, self.patch)
        pasted = [
            paste(seen, each, self.predicted, self.patch) for each in self.predictions(oracle)
        ]
        return [self.original, seen, alone, *pasted]

    def whole_stages(self, *, oracle: bool) -> list[np.ndarray]:
        """Show original, masked original, and predictions of every patch, put together."""
        seen = masked(self.original, self.hidden, self.patch)
        return [self.original, seen, *self.predictions(oracle)]

    def predictions(self, oracle: bool) -> list[np.ndarray]:
        """Return the prediction, and on request what is painted with ``oracle_stats``."""
        leaking = self.visible_stats if self.oracle_stats is None else self.oracle_stats
        return [self.visible_stats, leaking] if oracle else [self.visible_stats]


def paint_sample(
    model: MaskedAutoencoder,
    views: Sequence[Tensor],
    masks: Sequence[Mask],
    *,
    baselines: bool = False,
) -> dict[str, Tensor]:
    """Predict one sample or batch, in one pass a mask, and lay all patches together.

    Args:
        model: one whose target predicts pixels.
        views: ``[B, C, T, H, W]`` in [0, 1], the model's own first.
        masks: of the passes, whose queries do not overlap.
        baselines: as ``predict`` takes it.

    Returns:
        Patches ``[B, N, pt*ph*pw*C]`` for each of ``predict``'s names, the original ones where
        nothing was predicted.
    """
    start = patchify(views[0], model.backbone.patch)
    canvases: dict[str, Tensor] = {}
    for mask in masks:
        for name, patches in predict(model, views, mask, baselines=baselines).items():
            places = mask.queries[..., None].expand(-1, -1, start.shape[-1])
            canvases[name] = canvases.get(name, start).scatter(1, places, patches)
    return canvases


def as_shown(
    model: MaskedAutoencoder,
    pixels: Tensor,
    canvases: Mapping[str, Tensor],
    hidden: np.ndarray,
    predicted: np.ndarray,
) -> Painted:
    """Show what was painted on ``[B, C, T, H, W]`` pixels.

    Args:
        model: that painted it.
        pixels: the original.
        canvases: as ``paint_sample`` returns them.
        hidden: bool ``[B, N]``, or ``[N]`` where all samples share it.
        predicted: bool, as ``hidden``.
    """

    def frames(patches: Tensor) -> np.ndarray:
        clips = unpatchify(patches, model.grid, model.backbone.patch)
        array: np.ndarray = clips.float().permute(0, 2, 3, 4, 1).flatten(0, 1).cpu().numpy()
        return array

    original = frames(patchify(pixels, model.backbone.patch))
    low, high = shown_range(model, original)
    shown = {name: (frames(canvas) - low) / (high - low) for name, canvas in canvases.items()}
    same = torch.equal(canvases[VISIBLE_STATS], canvases[ORACLE_STATS])
    prediction, oracle = shown.pop(VISIBLE_STATS), shown.pop(ORACLE_STATS)
    hidden, predicted = (
        np.broadcast_to(tokens, (len(pixels), model.grid.tokens)).reshape(-1, *model.grid[1:])
        for tokens in (hidden, predicted)
    )
    return Painted(
        original=(original - low) / (high - low),
        visible_stats=prediction,
        oracle_stats=None if same else oracle,
        ceiling=shown.pop(CEILING, None),
        baselines=shown,
        hidden=hidden,
        predicted=predicted,
        patch=model.backbone.patch,
    )


def paint_row(model: MaskedAutoencoder, views: Sequence[Tensor], row: MaskRow) -> Painted:
    """Paint a row of the sheet, with baselines: one mask, or several that hide everything.

    Args:
        model: one whose target predicts pixels.
        views: ``[B, C, T, H, W]`` in [0, 1], the model's own first; the batch shares the mask.
        row: what is hidden.

    Raises:
        DataError: the target predicts none of what is hidden.
    """
    predictable = predictable_tokens(model)
    passes = [(each.hidden, each.predicted & predictable) for each in row.passes]
    passes = [(hidden, predicted) for hidden, predicted in passes if predicted.any()]
    if not passes:
        what = "the target predicts none of the hidden patches"
        raise DataError(what, where=row.label, hint="hide more, or other frames")
    masks = [
        Mask.build(torch.from_numpy(hidden)[None], requested=torch.from_numpy(predicted)[None]).to(
            views[0].device
        )
        for hidden, predicted in passes
    ]
    # One sample at a time: what is held in between grows with the square of the tokens.
    samples = [
        paint_sample(model, each, masks, baselines=True)
        for each in zip(*(view.split(1) for view in views), strict=True)
    ]
    canvases = {name: torch.cat([each[name] for each in samples]) for name in samples[0]}
    together = np.logical_or.reduce([predicted for _, predicted in passes])
    return as_shown(model, views[0], canvases, row.passes[0].hidden, together)


def shown_range(
    model: MaskedAutoencoder, clips: np.ndarray
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return what is shown as black and as white: 0 and 1, or for data beyond them per channel.

    Then it is the data's own range, three of the model's deviations around its mean, ``[C]`` each.
    """
    if clips.min() >= 0 and clips.max() <= 1:
        return 0.0, 1.0
    mean, std = (np.asarray(values, np.float32) for values in model.statistics)
    return mean - _DEVIATIONS * std, mean + _DEVIATIONS * std
