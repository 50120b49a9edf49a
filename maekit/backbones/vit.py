"""The vision transformer encoder of MAE and VideoMAE, over any grid of patches.

``image-vit`` and ``video-vit`` are this class with their papers' options.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Backbone, Encoded, Grid, PartContext, PartOptions
from maekit.errors import PartError
from maekit.layers import (
    Block,
    Epsilons,
    Init,
    PatchEmbedding,
    PositionKind,
    Positions,
    QKVBias,
    ResizePositions,
    init_patch_embedding,
    init_token,
    init_transformer,
)
from maekit.tokens import Mask, gather, patchify


@dataclass(frozen=True)
class Shape:
    """Depth and widths of an encoder."""

    width: int
    depth: int
    heads: int


SIZES = {
    "tiny": Shape(192, 12, 3),
    "small": Shape(384, 12, 6),
    "base": Shape(768, 12, 12),
    "large": Shape(1024, 24, 16),
    "huge": Shape(1280, 32, 16),
}
Size = Literal["tiny", "small", "base", "large", "huge"]
Tokens = Annotated[int, Field(ge=1)]


class ViTOptions(PartOptions):
    """Options of all these encoders, besides the patch; the defaults are MAE's."""

    load_time: ClassVar[frozenset[str]] = frozenset(
        {"drop_path", "init", "positions", "positions_grid", "resize_positions"}
    )
    inherited: ClassVar[frozenset[str]] = frozenset({"norm_eps", "last_norm_eps"})
    positioned: ClassVar[bool] = True

    size: Size = Field("base", description="tiny, small, base, large or huge")
    width: int | None = Field(None, ge=1, description="instead of the size's width")
    depth: int | None = Field(None, ge=1, description="instead of the size's depth")
    heads: int | None = Field(None, ge=1, description="instead of the size's heads")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of a block's MLP over its own")
    qkv_bias: QKVBias = Field("all", description="qv: none for the keys (VideoMAE)")
    class_token: bool = Field(True, description="a token that stands for the whole input")
    positions: PositionKind = Field("sincos-2d", description="where tokens stand")
    positions_grid: tuple[Tokens, Tokens, Tokens] | None = Field(
        None,
        description="[t, h, w] tokens that a fixed position table was made for, to be resized from;"
        " unset: the model's own. Weights loaded at another size set it",
    )
    resize_positions: ResizePositions = Field(
        "resample",
        description="fixed positions of weights at another size; resample: from the table that "
        "they were trained with, so that every place keeps its meaning; rebuild: a table made for "
        "the new grid, as VideoMAE's code does",
    )
    init: Init = Field(
        "mae",
        description="mae: xavier patch embedding, normal tokens; mae-st: also queries, keys and "
        "values each by itself; videomae: PyTorch's own patch embedding, truncated normal tokens; "
        "timm: normal everywhere but in its patch embedding (supervised, from scratch)",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that a sample skips the last block's branches while training; "
        "from 0 in the first block in equal steps; changes no weights",
    )
    norm_eps: float | None = Field(
        None,
        ge=0,
        description="added to the variance in layer norms; unset: the weights', else 1e-6, as in "
        "the papers' code (transformers: 1e-12)",
    )
    last_norm_eps: float | None = Field(
        None, ge=0, description="the same of the last norm; unset: the weights', else norm_eps"
    )
    mask_token: bool = Field(
        False, description="feed hidden patches to the encoder as [M] (MAE table 1c)"
    )

    @property
    def shape(self) -> Shape:
        """Width, depth and heads: those of the size, where nothing else is set."""
        base = SIZES[self.size]
        return Shape(self.width or base.width, self.depth or base.depth, self.heads or base.heads)

    def structure(self) -> dict[str, Any]:
        """Return what weights depend on, a size as its width, depth and heads.

        The patch is compared by the core, as that of images may grow to several frames.
        """
        plain = super().structure()
        del plain["size"]
        plain.pop("patch", None)
        eps = self.epsilons
        return plain | asdict(self.shape) | {"norm_eps": eps.blocks, "last_norm_eps": eps.last}

    @property
    def epsilons(self) -> Epsilons:
        """What the norms add to variances, filled in."""
        return Epsilons.of(self.norm_eps, self.last_norm_eps)


class VisionTransformer(Backbone, nn.Module):
    """Embeds and attends to visible tokens only, unless ``mask_token`` feeds it all of them."""

    any_grid = True

    def __init__(
        self, options: ViTOptions, context: PartContext, patch: tuple[int, int, int]
    ) -> None:
        super().__init__()
        shape = options.shape
        if shape.width % shape.heads:
            msg = f"width {shape.width} does not divide into {shape.heads} heads"
            raise PartError(msg, hint="choose heads that divide the width")
        self.width = shape.width
        self.patch = patch
        self.prefix_tokens = int(options.class_token)
        self.returns = "all" if options.mask_token else "visible"
        self.clip_grid = self.grid(context.shape)
        self.patch_embed = PatchEmbedding(context.channels, shape.width, patch)
        self.class_token = _token(shape.width) if options.class_token else None
        self.mask_token = _token(shape.width) if options.mask_token else None
        self.positions = Positions(
            options.positions,
            self.clip_grid,
            shape.width,
            self.prefix_tokens,
            options.positions_grid,
        )
        eps = options.epsilons
        self.transformer = nn.ModuleList(
            Block(shape.width, shape.heads, options.mlp_ratio, options.qkv_bias, rate, eps.blocks)
            for rate in drop_rates(options.drop_path, shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width, eps=eps.last)
        self._initialize(options.init)

    def _initialize(self, init: Init) -> None:
        """Initialize as the papers' pre-training does (models_mae.py; modeling_pretrain.py)."""
        init_transformer(self, init)
        init_patch_embedding(self.patch_embed, init)
        for token in (self.class_token, self.mask_token):
            if token is not None:
                init_token(token, init)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the token grid of a clip of ``(T, H, W)`` pixels."""
        if any(pixels % step for pixels, step in zip(shape, self.patch, strict=True)):
            clip, patch = ("x".join(map(str, each)) for each in (shape, self.patch))
            msg = f"a clip of {clip} (frames x height x width) does not divide into {patch} patches"
            raise PartError(msg, hint="change data.size, frames, or the backbone's patch")
        return Grid(*(pixels // step for pixels, step in zip(shape, self.patch, strict=True)))

    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, T, H, W]`` to ``[B, prefix + K (or N), D]``."""
        grid = self.grid(tuple(pixels.shape[2:]))  # type: ignore[arg-type]
        if grid.t != self.clip_grid.t or grid.tokens != mask.tokens:
            msg = f"pixels {list(pixels.shape)} do not make the model's grid {self.clip_grid}"
            raise ValueError(msg)
        x = self._embed(pixels, mask, grid)
        taken, maps = [], []
        for index, block in enumerate(self.transformer):
            x, weights = block(x, attention)
            if index in layers:
                taken.append(x)
            if weights is not None:
                maps.append(weights)
        return Encoded(self.norm(x), tuple(taken), tuple(maps))

    def _embed(self, pixels: Tensor, mask: Mask, grid: Grid) -> Tensor:
        """Return tokens with their positions, prefix first."""
        batch = pixels.shape[0]
        prefix, table = self.positions(grid).split([self.prefix_tokens, grid.tokens])
        x: Tensor = self.patch_embed(gather(patchify(pixels, self.patch), mask.visible))
        if self.mask_token is not None:
            everything = self.mask_token.to(x.dtype).expand(batch, mask.tokens, -1)
            index = mask.visible[..., None].expand(-1, -1, self.width)
            x = everything.scatter(1, index, x) + table
        else:
            x = x + table[mask.visible]
        if self.class_token is not None:
            x = torch.cat([(self.class_token + prefix).to(x.dtype).expand(batch, -1, -1), x], dim=1)
        return x

    def blocks(self) -> Sequence[nn.Module]:
        """Return the transformer blocks, first to last."""
        return list(self.transformer)

    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, depth + 1 after them."""
        if parameter.startswith("transformer."):
            return int(parameter.split(".")[1]) + 1
        return len(self.transformer) + 1 if parameter.startswith("norm.") else 0

    def last_norm(self) -> nn.Module:
        """Return the norm after the last block."""
        return self.norm

    def train_positions(self, trained: bool) -> dict[str, object]:
        """Train positions or not; return the options that change by it, for the header."""
        before = self.positions.kind
        self.positions.train_rows(trained)
        if self.positions.kind == before:
            return {}
        return {"positions": self.positions.kind, "positions_grid": None}

    def no_decay(self) -> Iterable[str]:
        """Name tokens and positions: VideoMAE keeps them free of weight decay, MAE does not."""
        free = ("class_token", "mask_token", "positions.")
        return [name for name, _ in self.named_parameters() if name.startswith(free)]


def drop_rates(last: float, depth: int) -> list[float]:
    """Return rates from 0 for the first block to ``last`` for the last, linearly spaced."""
    return [last * block / max(1, depth - 1) for block in range(depth)]


def _token(width: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, 1, width))
