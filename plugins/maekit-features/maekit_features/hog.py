"""Target ``hog``: histograms of oriented gradients, as MaskFeat predicts them.

Values follow the code of MaskFeat (facebookresearch/SlowFast, slowfast/models/operators.py): Sobel
gradients of each channel, unsigned orientations in equal bins without interpolation, each pixel's
magnitude weighted by a Gaussian over tiles of 2 x 2 cells, histograms of a cell of unit length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from maekit.contracts import PartContext, PartError, PartOptions, Target
from maekit.tokens import Mask, gather

_EPS = 1e-12  # of the length of a histogram, as torch's normalize has it: flat cells are zeros


class HOG(Target):
    """Histograms of a patch's cells: ``ph/cell * pw/cell * channels * bins`` values.

    Of a clip, those of the first frame of each time slot (MaskFeat, section 3.2).
    """

    class Options(PartOptions):
        bins: int = Field(9, ge=2, le=90, description="orientations in half a turn")
        cell: int = Field(8, ge=2, description="pixels a side of what has a histogram of its own")
        gaussian: bool = Field(
            True, description="weigh pixels by a Gaussian over each tile of 2 x 2 cells"
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        self.options = options
        self.grid, self.patch = context.grid, context.patch
        _, ph, pw = context.patch
        if ph % options.cell or pw % options.cell:
            msg = f"patches of {ph}x{pw} pixels do not divide into cells of {options.cell}"
            raise PartError(msg, hint=f"set cell to a divisor, as {math.gcd(ph, pw)}")
        cells = (ph // options.cell) * (pw // options.cell)
        self.out_dim = cells * context.channels * options.bins

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Turn clips ``[B, C, T, H, W]`` in [0, 1] into histograms ``[B, Q, out_dim]``."""
        # In float32 also under autocast: orientations of small gradients are all that counts.
        with torch.autocast(views[0].device.type, enabled=False):
            frames = views[0][:, :, :: self.patch[0]].float()
            b, c, t, h, w = frames.shape
            pictures = frames.transpose(1, 2).reshape(b * t, c, h, w)
            found = hog(pictures, self.options.bins, self.options.cell, self.options.gaussian)
        grid = self.grid
        rows, columns = found.shape[3] // grid.h, found.shape[4] // grid.w
        found = found.reshape(b, t, c, -1, grid.h, rows, grid.w, columns)
        tokens = found.permute(0, 1, 4, 6, 5, 7, 2, 3).reshape(b, grid.tokens, self.out_dim)
        return gather(tokens, mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of each token: float32 ``[B, Q]``."""
        return F.mse_loss(pred.float(), target, reduction="none").mean(dim=-1)


def hog(pictures: Tensor, bins: int, cell: int, gaussian: bool) -> Tensor:
    """Return histograms of unit length, ``[B, C, bins, H/cell, W/cell]``, of ``[B, C, H, W]``."""
    b, c, h, w = pictures.shape
    sobel = pictures.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = torch.stack([sobel, sobel.T])[:, None]
    padded = F.pad(pictures, (1, 1, 1, 1), mode="reflect").reshape(b * c, 1, h + 2, w + 2)
    across, down = F.conv2d(padded, kernels).reshape(b, c, 2, h, w).unbind(2)
    magnitude = torch.hypot(across, down)
    if gaussian:
        magnitude = magnitude * _tiles(magnitude, 2 * cell)
    turns = torch.atan2(across, down) / math.pi * bins
    index = turns.floor().long() % bins
    votes = magnitude.new_zeros(b, c, bins, h, w).scatter_(
        2, index[:, :, None], magnitude[:, :, None]
    )
    cells = votes.unflatten(4, (-1, cell)).unflatten(3, (-1, cell)).sum(dim=(4, 6))
    return F.normalize(cells, dim=2, eps=_EPS)


def _tiles(like: Tensor, size: int) -> Tensor:
    """Return Gaussians with a deviation of half a tile, repeated over a picture: ``[H, W]``."""
    places = torch.arange(size, device=like.device, dtype=torch.float32)
    one = torch.exp(-0.5 * ((places - places.mean()) / (size // 2)) ** 2)
    tile = torch.outer(one, one)
    height, width = like.shape[-2:]
    repeated = tile.repeat(-(-height // size), -(-width // size))
    return repeated[:height, :width] / tile.sum()
