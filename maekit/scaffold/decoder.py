"""``my-part``: a decoder in which queries look at encoded tokens, and not at each other."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import MLP, Positions, attend, init_token, init_transformer
from maekit.tokens import Mask


class MyPart(Decoder, nn.Module):
    """Gives each query the mask token and its position, and lets it attend to what was encoded."""

    class Options(PartOptions):
        """Options of ``my-part``."""

        width: int = Field(128, ge=4, description="values a token")
        heads: int = Field(4, ge=1, description="of attention; they divide the width")

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        width = options.width
        if width % options.heads:
            what = f"width {width} does not divide into {options.heads} heads"
            raise PartError(what, hint="choose heads that divide the width")
        self.heads = options.heads
        self.returns_all = context.returns == "all"
        self.prefix = context.prefix_tokens
        self.embed = nn.Linear(context.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.where = Positions("sincos-3d", context.grid, width, self.prefix)
        self.norm_queries, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_queries, self.to_tokens = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mlp = MLP(width, 4 * width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, context.out_dim)
        init_transformer(self)
        init_token(self.mask_token, "mae")

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        """Turn ``encoded.tokens [B, prefix + K (or N), D]`` into ``[B, Q, out_dim]``."""
        prefix, table = self.where().split([self.prefix, grid.tokens])
        batch = mask.queries.shape[0]
        seen = table.expand(batch, -1, -1) if self.returns_all else table[mask.visible]
        places = torch.cat([prefix.expand(batch, -1, -1), seen], dim=1)
        tokens = self.norm_tokens(self.embed(encoded.tokens) + places)
        x = self.mask_token + table[mask.queries]
        keys, values = self._split(self.to_tokens(tokens)).chunk(2, dim=-1)
        queries = self._split(self.to_queries(self.norm_queries(x)))
        x = x + attend(queries, keys, values).transpose(1, 2).flatten(2)
        prediction: Tensor = self.head(self.norm(x + self.mlp(x)))
        return prediction

    def _split(self, tokens: Tensor) -> Tensor:
        """Split the width over heads: ``[B, S, W]`` to ``[B, heads, S, W / heads]``."""
        split: Tensor = tokens.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)
