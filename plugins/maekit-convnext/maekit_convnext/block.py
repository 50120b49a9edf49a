"""The block of ConvNeXt V2, over maps with channels last, some of whose places may be hidden."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maekit.layers import LAYER_NORM_EPS, DropPath

_EPS = 1e-6  # of the response norm


class Block(nn.Module):
    """Depthwise 7 x 7 convolution, norm, and an MLP with a global response norm; a residual.

    The first block of a stage halves the map before, with a norm and a 2 x 2 convolution.

    What is hidden is zero before and after, as if the convolution were sparse: it has no part in
    its neighbors' values, nor in the response norm (ConvNeXt V2, section 3.1).
    """

    def __init__(self, width: int, drop_path: float = 0.0, shrinks: int | None = None) -> None:
        super().__init__()
        self.shrink = None if shrinks is None else Shrink(shrinks, width)
        self.conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, 4 * width)
        self.response = ResponseNorm(4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Map ``[B, h, w, D]`` to itself, or ``[B, 2h, 2w, D/2]`` to it.

        ``seen [B, h, w, 1]`` is 0 where a place is hidden, of what is returned.
        """
        if self.shrink is not None:
            x = self.shrink(x)
            x = x if seen is None else x * seen
        branch = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        branch = F.gelu(self.fc1(self.norm(branch)))
        branch = branch if seen is None else branch * seen
        branch = self.fc2(self.response(branch))
        dropped: Tensor = self.drop_path(branch.flatten(1, 2))
        x = x + dropped.reshape(x.shape)
        return x if seen is None else x * seen


class Shrink(nn.Module):
    """Half the map a side, of another width: a norm, then a 2 x 2 convolution."""

    def __init__(self, width: int, following: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.conv = nn.Conv2d(width, following, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, 2h, 2w, D]`` to ``[B, h, w, D']``."""
        shrunk: Tensor = self.conv(self.norm(x).permute(0, 3, 1, 2))
        return shrunk.permute(0, 2, 3, 1)


class ResponseNorm(nn.Module):
    """Divide each channel's length over the map by the mean of all channels', and learn from it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, h, w, D]`` to itself."""
        length = x.norm(dim=(1, 2), keepdim=True)
        share = length / (length.mean(dim=-1, keepdim=True) + _EPS)
        scaled: Tensor = x + self.weight * (x * share) + self.bias
        return scaled


def initialize(module: nn.Module) -> None:
    """Draw weights from a normal of 0.02 cut at two deviations; biases are 0.

    ConvNeXt's own are cut at +-2, that is, not at all.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-0.04, b=0.04)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
