"""``vit``: the light transformer decoder of MAE and VideoMAE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, Grid, PartContext, PartOptions
from maekit.errors import PartError
from maekit.layers import (
    Block,
    Epsilons,
    Init,
    PositionKind,
    Positions,
    QKVBias,
    ResizePositions,
    init_token,
    init_transformer,
)
from maekit.tokens import Mask, gather

Tokens = Annotated[int, Field(ge=1)]


class ViTDecoder(Decoder, nn.Module):
    """Attends to encoded tokens and to one mask token per query; predicts the queries.

    The order of a sequence does not matter to attention, so nothing is unshuffled: the sequence is
    prefix, visible tokens, mask tokens, each with its own position. Where every token is a query
    (``loss_on: all``), or the encoder already returns all (mask token in the encoder), it is the
    whole grid in raster order, and visible tokens answer for themselves.
    """

    class Options(PartOptions):
        load_time: ClassVar[frozenset[str]] = frozenset(
            {"init", "positions", "positions_grid", "resize_positions"}
        )
        inherited: ClassVar[frozenset[str]] = frozenset({"norm_eps", "last_norm_eps"})
        positioned: ClassVar[bool] = True

        width: int = Field(512, ge=4, description="values a token")
        depth: int = Field(8, ge=0, description="blocks; 0: a linear head")
        heads: int = Field(16, ge=1, description="of attention; they divide the width")
        mlp_ratio: float = Field(
            4.0, gt=0, description="hidden width of a block's MLP over its own"
        )
        qkv_bias: QKVBias = Field("all", description="qv: none for the keys (VideoMAE)")
        class_token: bool = Field(
            False,
            description="a class token of its own in place of the encoder's prefix (mae_st)",
        )
        embed_bias: bool = Field(
            True, description="bias of the encoder-to-decoder projection; VideoMAE has none"
        )
        positions: PositionKind | None = Field(
            None,
            description="as video-vit's; unset: sincos-2d over one time slot (MAE), "
            "sincos-1d over more (VideoMAE)",
        )
        positions_grid: tuple[Tokens, Tokens, Tokens] | None = Field(
            None, description="as the backbone's: the grid that a fixed table was made for"
        )
        resize_positions: ResizePositions = Field("resample", description="as the backbone's")
        norm_eps: float | None = Field(None, ge=0, description="as the backbone's")
        last_norm_eps: float | None = Field(
            None, ge=0, description="as the backbone's (transformers' VideoMAE: 1e-5)"
        )
        init: Init = Field(
            "mae",
            description="mae: xavier encoder-to-decoder projection, normal mask token; mae-st: "
            "also queries, keys and values each by itself; videomae: PyTorch's own projection, "
            "truncated normal mask token",
        )

        def structure(self) -> dict[str, Any]:
            """Return what weights depend on, with the norms' epsilons filled in."""
            eps = self.epsilons
            return super().structure() | {"norm_eps": eps.blocks, "last_norm_eps": eps.last}

        @property
        def epsilons(self) -> Epsilons:
            """What the norms add to variances, filled in."""
            return Epsilons.of(self.norm_eps, self.last_norm_eps)

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        width = options.width
        if width % options.heads:
            msg = f"decoder width {width} does not divide into {options.heads} heads"
            raise PartError(msg, hint="choose model.decoder.heads that divide the width")
        self.encoded_prefix = context.prefix_tokens
        self.prefix_tokens = 1 if options.class_token else context.prefix_tokens
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if options.class_token else None
        self.all_encoded = context.returns == "all"
        self.embed = nn.Linear(context.width, width, bias=options.embed_bias)
        self.mask_token = None if self.all_encoded else nn.Parameter(torch.zeros(1, 1, width))
        kind = options.positions or ("sincos-2d" if context.grid.t == 1 else "sincos-1d")
        self.positions = Positions(
            kind, context.grid, width, self.prefix_tokens, options.positions_grid
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                options.heads,
                options.mlp_ratio,
                options.qkv_bias,
                norm_eps=options.epsilons.blocks,
            )
            for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(width, eps=options.epsilons.last)
        self.head = nn.Linear(width, context.out_dim)
        self._initialize(options.init)

    def _initialize(self, init: Init) -> None:
        """Initialize as the papers do (models_mae.py; modeling_pretrain.py).

        VideoMAE's projection belongs to neither its encoder nor its decoder, whose inits are the
        only ones applied, so that it keeps PyTorch's.
        """
        for part in (self.blocks, self.head) if init == "videomae" else (self,):
            init_transformer(part, init)
        class_token = None if init == "mae-st" else self.class_token  # mae_st's starts at 0
        for token in (self.mask_token, class_token):
            if token is not None:
                init_token(token, init)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        """Turn tokens ``[B, prefix + K (or N), D]`` into ``[B, Q, out_dim]``, as queried."""
        seen = encoded.tokens
        prefix_table, table = self.positions().split([self.prefix_tokens, grid.tokens])
        prefix, tokens = self.embed(seen).split(
            [self.encoded_prefix, seen.shape[1] - self.encoded_prefix], dim=1
        )
        if self.class_token is not None:
            prefix = self.class_token.to(prefix.dtype).expand(len(prefix), -1, -1)
        whole_grid = self.all_encoded or mask.queries.shape[1] == mask.tokens
        if whole_grid:
            sequence = self._fill(tokens, mask) + table
        else:
            requested = self._mask_tokens(mask.queries, tokens) + table[mask.queries]
            sequence = torch.cat([tokens + table[mask.visible], requested], dim=1)
        x = torch.cat([prefix + prefix_table, sequence], dim=1)
        for block in self.blocks:
            x, _ = block(x)
        if whole_grid:
            x = gather(x[:, self.prefix_tokens :], mask.queries)
        else:
            x = x[:, x.shape[1] - mask.queries.shape[1] :]
        prediction: Tensor = self.head(self.norm(x))
        return prediction

    def _fill(self, tokens: Tensor, mask: Mask) -> Tensor:
        """Return the grid in raster order, with mask tokens where the encoder saw nothing."""
        if self.all_encoded:
            return tokens
        index = mask.visible[..., None].expand(-1, -1, tokens.shape[-1])
        everywhere = torch.arange(mask.tokens, device=tokens.device).expand(len(tokens), -1)
        return self._mask_tokens(everywhere, tokens).scatter(1, index, tokens)

    def _mask_tokens(self, where: Tensor, like: Tensor) -> Tensor:
        if self.mask_token is None:
            msg = "this decoder has no mask token: its encoder returns every token"
            raise RuntimeError(msg)
        return self.mask_token.to(like.dtype).expand(*where.shape, -1)

    def no_decay(self) -> Iterable[str]:
        """Name the mask token: VideoMAE keeps it free of weight decay, as the backbone's tokens."""
        free = ("class_token", "mask_token", "positions.")
        return [name for name, _ in self.named_parameters() if name.startswith(free)]
