"""``hivit``: a hierarchy without attention in its early stages (HiViT, arXiv 2205.14949).

Each 16 x 16 patch is embedded as 4 x 4 tokens, which two stages of MLPs merge into one; only then
tokens meet, in a plain transformer. So a hidden patch is left out from the first pixel on, with
nothing to pad and no window to shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Backbone, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import (
    LAYER_NORM_EPS,
    MLP,
    Block,
    PatchEmbedding,
    Positions,
    init_transformer,
)
from maekit.tokens import Mask, gather, patchify
from maekit_hiera.order import within

_SIDE = 4  # tokens a side of a patch, at first


@dataclass(frozen=True)
class Shape:
    """Width and heads of the last stage, and blocks of each (table 1 of the paper)."""

    width: int
    heads: int
    stages: tuple[int, int, int]


SIZES = {
    "tiny": Shape(384, 6, (1, 1, 10)),
    "small": Shape(384, 6, (2, 2, 20)),
    "base": Shape(512, 8, (2, 2, 20)),
}


class HiViT(Backbone, nn.Module):
    """Two stages of MLPs within each patch, then attention between patches.

    Positions are a table (fixed, or trained), not the relative bias of the authors' code.
    """

    class Options(PartOptions):
        load_time: ClassVar[frozenset[str]] = frozenset(
            {"drop_path", "positions", "positions_grid", "resize_positions"}
        )
        positioned: ClassVar[bool] = True

        size: Literal["tiny", "small", "base"] = Field("base", description="of the paper")
        width: int | None = Field(
            None, ge=4, multiple_of=4, description="of the last stage, instead of the size's"
        )
        heads: int | None = Field(None, ge=1, description="of it; they divide the width")
        stages: tuple[int, int, int] | None = Field(None, description="blocks of each stage")
        patch: int = Field(16, ge=4, multiple_of=4, description="pixels a side of a last token")
        mlp_ratio: float = Field(
            4.0, gt=0, description="hidden width of a block's MLP over its own"
        )
        stem_mlp_ratio: float = Field(3.0, gt=0, description="the same in the first two stages")
        positions: Literal["sincos-2d", "learned"] = Field(
            "sincos-2d", description="of the last stage; sincos-2d: fixed; learned: trained"
        )
        positions_grid: tuple[int, int, int] | None = Field(
            None, description="as image-vit's: the grid that a fixed table was made for"
        )
        resize_positions: Literal["resample", "rebuild"] = Field(
            "resample", description="as image-vit's"
        )
        drop_path: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="of the last block, from 0 in the first; changes no weights",
        )

        @property
        def shape(self) -> Shape:
            """Width, heads and stages: those of the size, where nothing else is set."""
            base = SIZES[self.size]
            return Shape(
                self.width or base.width, self.heads or base.heads, self.stages or base.stages
            )

        def structure(self) -> dict[str, Any]:
            """Return what weights depend on, a size as its width and stages."""
            plain = super().structure()
            del plain["size"]
            shape = self.shape
            named = {"width": shape.width, "heads": shape.heads, "stages": list(shape.stages)}
            return plain | named

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        if context.shape[0] != 1:
            msg = f"hivit takes one frame, and the recipe asks for {context.shape[0]}"
            raise PartError(msg, hint="set frames: 1, or the backbone video-vit")
        shape = options.shape
        if shape.width % shape.heads:
            msg = f"width {shape.width} does not divide into {shape.heads} heads"
            raise PartError(msg, hint="choose heads that divide the width")
        self.width = shape.width
        self.patch = (1, options.patch, options.patch)
        self.clip_grid = self.grid(context.shape)
        self.small = options.patch // _SIDE
        self.patch_embed = PatchEmbedding(
            context.channels, shape.width // 4, (1, self.small, self.small)
        )
        rates = [
            options.drop_path * place / max(1, sum(shape.stages) - 1)
            for place in range(sum(shape.stages))
        ]
        stem: list[nn.Module] = []
        for stage, width in enumerate((shape.width // 4, shape.width // 2)):
            for block in range(shape.stages[stage]):
                last = block == shape.stages[stage] - 1
                stem.append(StemBlock(width, options.stem_mlp_ratio, merges=last))
        self.stem = nn.ModuleList(stem)
        self.table = Positions(
            options.positions, self.clip_grid, shape.width, made_for=options.positions_grid
        )
        self.main = nn.ModuleList(
            Block(shape.width, shape.heads, options.mlp_ratio, drop_path=rate)
            for rate in rates[len(stem) :]
        )
        self.norm = nn.LayerNorm(shape.width, eps=LAYER_NORM_EPS)
        widths = (each.width_out for each in stem if isinstance(each, StemBlock))
        self.layer_widths = (*widths, *(shape.width for _ in self.main))
        self.register_buffer("within", within(_SIDE), persistent=False)
        init_transformer(self)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the grid of the last stage's tokens for a clip of ``(T, H, W)`` pixels."""
        side = self.patch[1]
        if any(size % side for size in shape[1:]) or shape[0] != 1:
            msg = f"{shape[1]}x{shape[2]} pixels do not divide into patches of {side}x{side}"
            raise PartError(msg, hint="change data.size, or the backbone's patch")
        return Grid(1, shape[1] // side, shape[2] // side)

    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, 1, H, W]`` to ``[B, K, D]``.

        Layers of the first two stages are means over a patch's tokens. There, each token attends to
        itself alone.
        """
        x = self.patch_embed(self._small_patches(pixels, mask))
        taken, maps = [], []
        for index, block in enumerate(self.stem):
            x = block(x)
            if index in layers:
                taken.append(x.mean(dim=2))
            if attention:
                own = torch.eye(x.shape[1], device=x.device, dtype=x.dtype)
                maps.append(own.expand(len(x), 1, -1, -1))
        x = x.squeeze(2) + self.table().to(x.dtype)[mask.visible]
        for index, block in enumerate(self.main, len(self.stem)):
            x, weights = block(x, attention)
            if index in layers:
                taken.append(x)
            if weights is not None:
                maps.append(weights)
        return Encoded(self.norm(x), tuple(taken), tuple(maps))

    def _small_patches(self, pixels: Tensor, mask: Mask) -> Tensor:
        """Return the 16 small patches of each visible one, ``[B, K, 16, small*small*C]``."""
        visible = gather(patchify(pixels, self.patch), mask.visible)
        small = self.small
        cut = visible.unflatten(2, (_SIDE, small, _SIDE, small, -1)).transpose(3, 4)
        rows, columns = self.within.unbind(1)  # type: ignore[operator]
        small_ones: Tensor = cut[:, :, rows, columns]
        return small_ones.flatten(3)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks of all stages, first to last."""
        return [*self.stem, *self.main]

    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, depth + 1 after them."""
        part, _, rest = parameter.partition(".")
        if part == "stem":
            return int(rest.split(".")[0]) + 1
        if part == "main":
            return len(self.stem) + int(rest.split(".")[0]) + 1
        return len(self.stem) + len(self.main) + 1 if part == "norm" else 0

    def last_norm(self) -> nn.Module:
        """Return the norm after the last block."""
        return self.norm

    def train_positions(self, trained: bool) -> dict[str, object]:
        """Train the table or not; its kind stays, as both kinds are kept with the weights."""
        self.table.train_rows(trained)
        return {}


class StemBlock(nn.Module):
    """An MLP on each token; the last block of a stage then merges 2 x 2 tokens, twice as wide."""

    def __init__(self, width: int, mlp_ratio: float, *, merges: bool) -> None:
        super().__init__()
        self.width_out = 2 * width if merges else width
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, int(width * mlp_ratio))
        self.merge = None
        if merges:
            whole = nn.LayerNorm(4 * width, eps=LAYER_NORM_EPS)
            self.merge = nn.Sequential(whole, nn.Linear(4 * width, 2 * width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, K, m, D]`` to itself, or to ``[B, K, m/4, 2D]``."""
        x = x + self.mlp(self.norm(x))
        if self.merge is None:
            return x
        merged: Tensor = self.merge(x.unflatten(2, (-1, 4)).flatten(3))
        return merged
