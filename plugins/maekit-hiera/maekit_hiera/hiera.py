"""``hiera``: a hierarchical vision transformer without the bells and whistles (arXiv 2306.00989).

Hidden units are left out from the first block on: of a unit that the masker hides, no token is
computed. Structure and names of sizes follow the paper and timm's hiera (timm/models/hiera.py),
whose weights load: ``--from hiera_base_224.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from maekit.contracts import (
    Backbone,
    Encoded,
    Foreign,
    Grid,
    PartContext,
    PartError,
    PartOptions,
)
from maekit.layers import LAYER_NORM_EPS, MLP, DropPath, Positions, attend
from maekit.tokens import Mask, gather
from maekit_hiera.names import ours
from maekit_hiera.order import by_unit


@dataclass(frozen=True)
class Shape:
    """Widths, heads and depths of a size (table 7 of the paper's appendix; timm's variants)."""

    width: int
    heads: int
    stages: tuple[int, ...]


SIZES = {
    "tiny": Shape(96, 1, (1, 2, 7, 2)),
    "small": Shape(96, 1, (1, 2, 11, 2)),
    "base": Shape(96, 1, (2, 3, 16, 3)),
    "base-plus": Shape(112, 2, (2, 3, 16, 3)),
    "large": Shape(144, 2, (2, 6, 36, 4)),
    "huge": Shape(256, 4, (2, 6, 36, 4)),
}


class Hiera(Backbone, nn.Module):
    """Attention within units in the first two stages, over all visible units in the later ones.

    A token of the first stage stands for ``stride`` pixels a side. After each of the first
    ``q_pool`` stages, 2 x 2 tokens are pooled by their maximum; widths double with every stage.
    What the encoder returns, and what is predicted, are the tokens of the last stage.

    ``layers`` are given at the last stage's tokens: earlier ones as means over what was pooled.

    No tensor depends on ``q_pool``: the paper pre-trains with 2 and fine-tunes with 3.
    """

    free_patch = True

    class Options(PartOptions):
        load_time: ClassVar[frozenset[str]] = frozenset({"drop_path", "q_pool"})

        size: Literal["tiny", "small", "base", "base-plus", "large", "huge"] = Field(
            "base", description="of the paper; width, heads and stages where those are unset"
        )
        width: int | None = Field(None, ge=1, description="of the first stage")
        heads: int | None = Field(None, ge=1, description="of the first stage; they double too")
        stages: tuple[int, ...] | None = Field(
            None, min_length=1, max_length=5, description="blocks of each stage"
        )
        stride: int = Field(4, ge=1, description="pixels a side of a token of the first stage")
        kernel: int = Field(
            7, ge=1, description="pixels a side that such a token sees; hidden ones as zeros"
        )
        q_pool: int | None = Field(
            None,
            ge=0,
            le=4,
            description="stages after which 2x2 tokens are pooled; unset: all but the last. The "
            "paper pre-trains with 2 of 4 stages, so that 16 pixels a side are predicted",
        )
        windowed: int = Field(2, ge=0, description="stages whose attention is within units")
        mlp_ratio: float = Field(
            4.0, gt=0, description="hidden width of a block's MLP over its own"
        )
        last_norm: bool = Field(True, description="a norm after the last block")
        drop_path: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="of the last block, from 0 in the first; changes no weights",
        )

        @model_validator(mode="after")
        def _pools_between_stages(self) -> Hiera.Options:
            if self.q_pool is not None and self.q_pool >= len(self.shape.stages):
                raise ValueError(f"q_pool: {self.q_pool} needs {self.q_pool + 1} stages or more")
            if any(depth < 1 for depth in self.shape.stages):
                raise ValueError("stages: each has a block or more")
            if self.kernel < self.stride:
                raise ValueError("kernel: smaller than stride, so that pixels would not be seen")
            return self

        @property
        def shape(self) -> Shape:
            """Width, heads and stages: those of the size, where nothing else is set."""
            base = SIZES[self.size]
            return Shape(
                self.width or base.width, self.heads or base.heads, self.stages or base.stages
            )

        @property
        def pools(self) -> int:
            """How many times tokens are pooled."""
            return len(self.shape.stages) - 1 if self.q_pool is None else self.q_pool

        def structure(self) -> dict[str, Any]:
            """Return what weights depend on, a size as its widths and stages."""
            plain = super().structure()
            del plain["size"]
            shape = self.shape
            named = {"width": shape.width, "heads": shape.heads, "stages": list(shape.stages)}
            return plain | named

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        if context.shape[0] != 1:
            msg = f"hiera takes one frame, and the recipe asks for {context.shape[0]}"
            raise PartError(msg, hint="set frames: 1, or the backbone video-vit")
        shape, pools = options.shape, options.pools
        side = 2 ** (len(shape.stages) - 1)  # first-stage tokens of a unit, a side
        left = side // 2**pools  # last-stage tokens of it
        self.stride = options.stride
        self.unit_side, self.unit_left = side, left
        pixels = options.stride * 2**pools
        self.patch = (1, pixels, pixels)
        self.mask_unit = (1, left, left)
        self.width = shape.width * 2 ** (len(shape.stages) - 1)
        self.clip_grid = self.grid(context.shape)
        first = Grid(1, *(size // options.stride for size in context.shape[1:]))
        self.patch_embed = nn.Conv2d(
            context.channels,
            shape.width,
            options.kernel,
            stride=options.stride,
            padding=0 if options.kernel == options.stride else (options.kernel - 1) // 2,
        )
        self.table = Positions("learned", first, shape.width)
        self.transformer = nn.ModuleList(_blocks(options))
        self.norm = nn.LayerNorm(self.width, eps=LAYER_NORM_EPS) if options.last_norm else None
        self.layer_widths = tuple(block.width for block in self._each())
        # Which tokens a unit has, at the first stage and at the last: no weights.
        self.register_buffer("first_by_unit", by_unit(first, side), persistent=False)
        self.register_buffer("last_by_unit", by_unit(self.clip_grid, left), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize as timm's: normal weights, a smaller last layer the deeper the block.

        Biases of linear layers are 0.02 (timm's init_weight_vit), that of the convolution torch's.
        """
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.constant_(part.bias, 0.02)
        with torch.no_grad():
            for depth, block in enumerate(self._each(), 1):
                for layer in (block.attn.proj, block.mlp.fc2):
                    layer.weight.mul_((2.0 * depth) ** -0.5)

    def _each(self) -> Iterable[Block]:
        for block in self.transformer:
            assert isinstance(block, Block)  # noqa: S101 - for the type checker
            yield block

    @classmethod
    def foreign(cls, tensors: Mapping[str, Tensor]) -> Foreign | None:
        """Recognize weights of timm's Hiera, and of the authors'."""
        return ours(tensors)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the grid of the last stage's tokens for a clip of ``(T, H, W)`` pixels."""
        unit = self.stride * self.unit_side
        if any(size % unit for size in shape[1:]) or shape[0] != 1:
            msg = f"{shape[1]}x{shape[2]} pixels do not divide into units of {unit}x{unit}"
            raise PartError(msg, hint="change data.size, or the backbone's stride or stages")
        return Grid(1, shape[1] // self.patch[1], shape[2] // self.patch[2])

    def forward(
        self,
        pixels: Tensor,
        mask: Mask,
        layers: Sequence[int] = (),
        attention: bool = False,  # noqa: ARG002
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, 1, H, W]`` to ``[B, K, D]``.

        There are no maps of attention over all tokens, and none are returned.
        """
        units, order = self._visible(mask)
        x = self._embed(pixels, mask, units)
        taken = []
        for index, block in enumerate(self.transformer):
            x = block(x)
            if index in layers:
                taken.append(gather(self._at_last(x), order))
        x = gather(x.flatten(1, 2), order)
        return Encoded(x if self.norm is None else self.norm(x), tuple(taken))

    def _visible(self, mask: Mask) -> tuple[Tensor, Tensor]:
        """Return visible units ``[B, U]``, and where each visible token stands among theirs."""
        columns, left = self.clip_grid.w, self.unit_left
        row, column = mask.visible // columns, mask.visible % columns
        unit = row // left * (columns // left) + column // left
        units = unit.sort(dim=1).values[:, :: left * left]
        own: Tensor = self.last_by_unit[units].flatten(1)  # type: ignore[index]
        return units, own.argsort(dim=1)

    def _embed(self, pixels: Tensor, mask: Mask, units: Tensor) -> Tensor:
        """Return the first stage's tokens of the visible units, ``[B, U, m, D]``."""
        picture = pixels[:, :, 0]
        if mask.visible.shape[1] < mask.tokens:
            grid, (height, width) = self.clip_grid, self.patch[1:]
            seen = (~mask.hidden()).reshape(-1, 1, grid.h, grid.w).to(picture.dtype)
            seen = seen.repeat_interleave(height, 2).repeat_interleave(width, 3)
            picture = picture * seen
        x = self.patch_embed(picture)
        x = x.flatten(2).transpose(1, 2) + self.table().to(x.dtype)
        own: Tensor = self.first_by_unit[units]  # type: ignore[index]
        units_first: Tensor = gather(x, own.flatten(1)).unflatten(1, own.shape[1:])
        return units_first

    def _at_last(self, x: Tensor) -> Tensor:
        """Return a stage's tokens as means at the last stage's, ``[B, U*left*left, D_i]``."""
        means: Tensor = x.unflatten(2, (self.unit_left**2, -1)).mean(dim=3)
        return means.flatten(1, 2)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks of all stages, first to last."""
        return list(self.transformer)

    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, depth + 1 after them."""
        if parameter.startswith("transformer."):
            return int(parameter.split(".")[1]) + 1
        return len(self.transformer) + 1 if parameter.startswith("norm.") else 0

    def last_norm(self) -> nn.Module | None:
        """Return the norm after the last block."""
        return self.norm

    def no_decay(self) -> Iterable[str]:
        """Name the positions, as timm does."""
        return [name for name, _ in self.named_parameters() if name.startswith("table.")]


class Block(nn.Module):
    """A block over units ``[B, U, m, D]``; the first of a stage widens, and may pool."""

    def __init__(
        self,
        width_in: int,
        width: int,
        heads: int,
        *,
        pool: bool,
        windowed: bool,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.width, self.pool = width, pool
        self.norm1 = nn.LayerNorm(width_in, eps=LAYER_NORM_EPS)
        self.proj = nn.Linear(width_in, width) if width != width_in else None
        self.attn = UnitAttention(width_in, width, heads, pool=pool, windowed=windowed)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, U, m, D]`` to ``[B, U, m (or m/4), D']``."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
            x = pooled(x) if self.pool else x
        x = x + self._dropped(self.attn(normed))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        dropped: Tensor = self.drop_path(branch.flatten(1, 2))
        return dropped.reshape(branch.shape)


class UnitAttention(nn.Module):
    """Attention within each unit, or over all visible ones; queries may be pooled before."""

    def __init__(
        self, width_in: int, width: int, heads: int, *, pool: bool, windowed: bool
    ) -> None:
        super().__init__()
        self.heads, self.pool, self.windowed = heads, pool, windowed
        self.qkv = nn.Linear(width_in, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, U, m, D]`` to ``[B, U, m (or m/4), D']``."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = pooled(q) if self.pool else q
        batch, units, tokens, width = q.shape
        if self.windowed:
            q, k, v = (each.flatten(0, 1) for each in (q, k, v))
        else:
            q, k, v = (each.flatten(1, 2) for each in (q, k, v))
        heads = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        out = attend(*heads).transpose(1, 2).reshape(batch, units, tokens, width)
        projected: Tensor = self.proj(out)
        return projected


def pooled(x: Tensor) -> Tensor:
    """Take the maximum of each four tokens that are pooled: ``[B, U, m, D]`` to a quarter."""
    largest: Tensor = x.unflatten(2, (-1, 4)).amax(dim=3)
    return largest


def _blocks(options: Hiera.Options) -> Iterable[Block]:
    shape = options.shape
    width, heads, before = shape.width, shape.heads, shape.width
    depth, place = sum(shape.stages), 0
    windowed = options.windowed > 0
    for stage, blocks in enumerate(shape.stages):
        if stage:
            width, heads = 2 * width, 2 * heads
        if width % heads:
            msg = f"width {width} does not divide into {heads} heads"
            raise PartError(msg, hint="choose heads that divide the first stage's width")
        for block in range(blocks):
            yield Block(
                before,
                width,
                heads,
                pool=block == 0 and 0 < stage <= options.pools,
                # A stage's attention begins one block late: its first block still pools the
                # tokens of the stage before.
                windowed=windowed,
                mlp_ratio=options.mlp_ratio,
                drop_path=options.drop_path * place / max(1, depth - 1),
            )
            before, place = width, place + 1
            windowed = stage < options.windowed
