"""Decoder ``convnext``: one block of ConvNeXt V2 over the whole map (FCMAE, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import TOKEN_STD
from maekit.tokens import Mask, gather
from maekit_convnext.block import Block, initialize


class ConvDecoder(Decoder, nn.Module):
    """Fills what is hidden with the mask token, and convolves; positions are in the map itself."""

    class Options(PartOptions):
        width: int = Field(512, ge=1, description="channels of the map (FCMAE: 512)")
        depth: int = Field(1, ge=0, description="blocks (FCMAE: 1)")

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        if context.grid.t != 1:
            msg = f"a map of one time slot is decoded, and there are {context.grid.t}"
            raise PartError(msg, hint="take the decoder vit")
        self.prefix_tokens = context.prefix_tokens
        self.embed = nn.Linear(context.width, options.width)
        self.blocks = nn.ModuleList(Block(options.width) for _ in range(options.depth))
        self.head = nn.Linear(options.width, context.out_dim)
        initialize(self)
        self.mask_token = None
        if context.returns == "visible":
            self.mask_token = nn.Parameter(torch.zeros(1, 1, options.width))
            nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        """Turn tokens ``[B, prefix + K (or N), D]`` into ``[B, Q, out_dim]``."""
        x: Tensor = self.embed(encoded.tokens[:, self.prefix_tokens :])
        if self.mask_token is not None:
            index = mask.visible[..., None].expand_as(x)
            everywhere = self.mask_token.to(x.dtype).expand(len(x), mask.tokens, -1)
            x = everywhere.scatter(1, index, x)
        x = x.view(-1, grid.h, grid.w, x.shape[-1])
        for block in self.blocks:
            x = block(x)
        prediction: Tensor = self.head(gather(x.flatten(1, 2), mask.queries))
        return prediction

    def no_decay(self) -> Iterable[str]:
        """Name the mask token."""
        return () if self.mask_token is None else ("mask_token",)
