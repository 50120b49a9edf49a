"""Decoder ``cross``: mask tokens look at the encoder's tokens, and never at each other.

After CrossMAE (arXiv 2401.14391; TonyLianLong/CrossMAE, models_cross.py): each block is
cross-attention and an MLP; each block looks at a weighted sum of the encoder's layers of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import (
    LAYER_NORM_EPS,
    MLP,
    TOKEN_STD,
    Positions,
    attend,
    init_transformer,
)
from maekit.tokens import Mask


class Cross(Decoder, nn.Module):
    """Predicts each query from the visible tokens alone.

    ``weighted`` layers of the encoder, spread evenly over it and ending with the last, are summed
    for each block with weights of its own, which are trained; with 0, all blocks see the encoder's
    output.
    """

    class Options(PartOptions):
        load_time: ClassVar[frozenset[str]] = frozenset(
            {"positions", "positions_grid", "resize_positions"}
        )
        positioned: ClassVar[bool] = True

        width: int = Field(512, ge=4, description="values a token")
        depth: int = Field(12, ge=1, description="blocks (CrossMAE: 12)")
        heads: int = Field(16, ge=1, description="of attention; they divide the width")
        mlp_ratio: float = Field(
            4.0, gt=0, description="hidden width of a block's MLP over its own"
        )
        weighted: int = Field(
            0, ge=0, description="layers of the encoder that each block weighs (ViT-B: 12); 0: none"
        )
        positions: Literal["sincos-1d", "sincos-2d", "sincos-3d", "learned"] | None = Field(
            None, description="as the decoder vit's"
        )
        positions_grid: tuple[int, int, int] | None = Field(
            None, description="as the decoder vit's: the grid that a fixed table was made for"
        )
        resize_positions: Literal["resample", "rebuild"] = Field(
            "resample", description="as the decoder vit's"
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        width = options.width
        if width % options.heads:
            msg = f"width {width} does not divide into {options.heads} heads"
            raise PartError(msg, hint="choose heads that divide the width")
        if context.returns == "all":
            msg = "the encoder returns hidden tokens too: there is nothing to look for"
            raise PartError(msg, hint="set mask_token: false, or take the decoder linear")
        self.layers = _spread(options.weighted, context.layer_widths)
        self.weigh = None
        self.norms = None
        if self.layers:
            self.weigh = nn.Linear(len(self.layers), options.depth, bias=False)
            self.norms = nn.ModuleList(
                nn.LayerNorm(context.width, eps=LAYER_NORM_EPS) for _ in range(options.depth)
            )
        kind = options.positions or ("sincos-2d" if context.grid.t == 1 else "sincos-1d")
        self.table = Positions(kind, context.grid, width, made_for=options.positions_grid)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            CrossBlock(width, context.width, options.heads, options.mlp_ratio)
            for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(width, context.out_dim)
        init_transformer(self)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)
        if self.weigh is not None:
            nn.init.normal_(self.weigh.weight, std=len(self.layers) ** -0.5)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:  # noqa: ARG002
        """Turn tokens ``[B, prefix + K, D]`` (and layers) into ``[B, Q, out_dim]``."""
        x = self.mask_token + self.table()[mask.queries]
        x = x.to(encoded.tokens.dtype)
        for index, block in enumerate(self.blocks):
            x = block(x, self._seen(encoded, index))
        prediction: Tensor = self.head(self.norm(x))
        return prediction

    def _seen(self, encoded: Encoded, index: int) -> Tensor:
        """Return what one block looks at, ``[B, prefix + K, D]``."""
        if self.weigh is None or self.norms is None:
            return encoded.tokens
        weights = self.weigh.weight[index]
        mixed = sum(w * layer for w, layer in zip(weights, encoded.layers, strict=True))
        seen: Tensor = self.norms[index](mixed)
        return seen

    def no_decay(self) -> Iterable[str]:
        """Name the mask token and trained positions."""
        free = ("mask_token", "table.")
        return [name for name, _ in self.named_parameters() if name.startswith(free)]


class CrossBlock(nn.Module):
    """Cross-attention, then an MLP, each before a norm and with a residual."""

    def __init__(self, width: int, seen_width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(seen_width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Map queries ``[B, Q, D]`` that look at ``[B, S, D']`` to ``[B, Q, D]``."""
        q = self.q(self.norm1(x))
        k, v = self.kv(seen).chunk(2, dim=-1)
        heads = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        x = x + self.proj(attend(*heads).transpose(1, 2).flatten(2))
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


def _spread(count: int, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``count`` of the encoder's blocks, evenly spaced, the last one included."""
    if not count:
        return ()
    if count > len(widths):
        msg = f"weighted: {count}, and the encoder has {len(widths)} blocks"
        raise PartError(msg, hint=f"set weighted to {len(widths)} or fewer")
    if len(set(widths)) > 1:
        msg = f"the encoder's blocks have widths from {min(widths)} to {max(widths)}: no sum"
        raise PartError(msg, hint="set weighted to 0")
    step = len(widths) / count
    return tuple(round((place + 1) * step) - 1 for place in range(count))
