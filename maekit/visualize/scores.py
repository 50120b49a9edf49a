"""Score pictures where they are painted: PSNR, SSIM, and the gain over the best baseline.

All pixels are in [0, 1] (or the data's own range brought to it) and are not clipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from maekit.engine.validation import psnr

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.visualize.painting import Painted

MOST = 100.0  # dB: what an exact picture gets, so that every score is a number
_RADIUS, _SIGMA = 5, 1.5  # of SSIM's window: 11 x 11 pixels (Wang et al. 2004, section III-B)
_C1, _C2 = 0.01**2, 0.03**2  # for a range of 1
_DIGITS = 4


@dataclass(frozen=True)
class PictureScore:
    """Compare one picture with the original, over the pixels that were predicted.

    Attributes:
        squares: sum of squared differences.
        values: how many: pixels times channels.
        ssim: their mean structural similarity.
    """

    squares: float
    values: int
    ssim: float

    @property
    def psnr(self) -> float:
        """The peak signal-to-noise ratio in dB, at most ``MOST``."""
        return min(psnr(self.squares / self.values), MOST)

    def plain(self) -> dict[str, float]:
        """Return what is written as JSON."""
        return {"psnr": round(self.psnr, _DIGITS), "ssim": round(self.ssim, _DIGITS)}


@dataclass(frozen=True)
class Scores:
    """The scores of one reconstruction.

    Attributes:
        prediction: with the statistics of visible patches.
        baselines: pictures made without a model, by name: those of ``inpainting_baselines``, and
            ``zero_prediction``.
        oracle_stats: with those of the hidden patches, which leak the answer; None where the
            target takes none out.
        ceiling: the target's own truth, with the statistics of visible patches; None where that is
            the original.
        hidden: the fraction of tokens that was hidden and predicted.
    """

    prediction: PictureScore
    baselines: Mapping[str, PictureScore]
    oracle_stats: PictureScore | None
    ceiling: PictureScore | None
    hidden: float

    @property
    def gain_db(self) -> float:
        """The PSNR less that of the best baseline.

        One of the baselines is what a prediction of zeros paints, so zeros gain nothing on any
        picture. Another constant may be lucky on one; over a set in which each picture is as likely
        as its negative none gains anything, as its error there is that of zeros and its own square.
        """
        return self.prediction.psnr - max(each.psnr for each in self.baselines.values())

    def plain(self) -> dict[str, Any]:
        """Return what is written as JSON, as design section 8 has it."""
        oracle = self.oracle_stats
        return {
            **self.prediction.plain(),
            "gain_db": round(self.gain_db, _DIGITS),
            "fills": {name: each.plain() for name, each in self.baselines.items()},
            "truth_statistics": None if oracle is None else oracle.plain(),
            "ceiling": None if self.ceiling is None else round(self.ceiling.psnr, _DIGITS),
            "hidden": round(self.hidden, _DIGITS),
        }


def compare(original: np.ndarray, picture: np.ndarray, where: np.ndarray) -> PictureScore:
    """Compare two pictures over some of their pixels.

    Args:
        original: ``[T, H, W, C]``.
        picture: of that shape, the original where nothing was painted, so that SSIM's windows see
            what an eye sees.
        where: bool ``[T, H, W]``: the pixels that count, at least one. SSIM takes the windows that
            are centered on them.
    """
    difference = (picture.astype(np.float64) - original)[where]
    similarity = ssim_map(original, picture)
    return PictureScore(
        float((difference**2).sum()), difference.size, float(similarity[where].mean())
    )


def score(painted: Painted) -> Scores:
    """Compare everything that was painted with the original, where it was predicted."""

    def against(picture: np.ndarray | None) -> PictureScore | None:
        return None if picture is None else compare(painted.original, picture, where)

    where = painted.predicted_pixels
    best = against(painted.ceiling)
    return Scores(
        compare(painted.original, painted.visible_stats, where),
        {
            name: compare(painted.original, picture, where)
            for name, picture in painted.baselines.items()
        },
        against(painted.oracle_stats),
        None if best is None or best.psnr >= MOST else best,
        float(painted.predicted.mean()),
    )


def dataset_score(scores: Iterable[Scores]) -> dict[str, Any]:
    """Score all pixels together: the error of a set of pictures, not a mean of decibels."""
    listed = list(scores)
    if not listed:
        return {"psnr": None, "gain_db": None, "fills": {}}
    names = listed[0].baselines
    prediction = _together(each.prediction for each in listed)
    baselines = {name: _together(each.baselines[name] for each in listed) for name in names}
    return {
        "psnr": round(prediction, _DIGITS),
        "gain_db": round(prediction - max(baselines.values()), _DIGITS),
        "fills": {name: round(value, _DIGITS) for name, value in baselines.items()},
    }


def _together(scores: Iterable[PictureScore]) -> float:
    listed = list(scores)
    squares, values = (sum(each.squares for each in listed), sum(each.values for each in listed))
    return min(psnr(squares / values), MOST)


def ssim_map(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the structural similarity around each pixel, float64 ``[T, H, W]``.

    Wang et al. 2004 (IEEE TIP 13(4)) with its Gaussian window, the mean over channels; frames are
    compared one by one, and pictures are mirrored at their edges, so that every pixel has a window.

    Args:
        one: ``[T, H, W, C]``, for a range of 1.
        other: of that shape.
    """
    return np.stack([_similarity(*pair) for pair in zip(one, other, strict=True)])


def _similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute ``ssim_map`` of one frame ``[H, W, C]``."""
    x, y = (
        torch.from_numpy(np.ascontiguousarray(each, np.float64)).permute(2, 0, 1)[:, None]
        for each in (one, other)
    )
    mean_x, mean_y, xx, yy, xy = (_blurred(each) for each in (x, y, x * x, y * y, x * y))
    var_x, var_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    )
    frame: np.ndarray = similarity.mean(dim=(0, 1)).numpy()
    return frame


def _blurred(planes: Tensor) -> Tensor:
    """Take Gaussian means, ``[M, 1, H, W]``."""
    steps = torch.arange(-_RADIUS, _RADIUS + 1, dtype=planes.dtype)
    window = torch.exp(-(steps**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    height, width = planes.shape[-2:]
    padded = planes[..., _mirrored(height), :][..., _mirrored(width)]
    rows = F.conv2d(padded, window.view(1, 1, -1, 1))
    return F.conv2d(rows, window.view(1, 1, 1, -1))


def _mirrored(length: int) -> Tensor:
    """List indices ``-radius .. length + radius - 1``, those outside mirrored at the edge."""
    places = torch.arange(-_RADIUS, length + _RADIUS) % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)
