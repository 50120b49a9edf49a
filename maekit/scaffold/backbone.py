"""``my-part``: a small transformer over visible patches."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Backbone, Encoded, Grid, PartContext, PartError, PartOptions
from maekit.layers import Block, PatchEmbedding, Positions, init_transformer
from maekit.tokens import Mask, gather, patchify


class MyPart(Backbone, nn.Module):
    """Embeds visible patches, adds their positions, and lets blocks attend to them."""

    class Options(PartOptions):
        """Options of ``my-part``."""

        width: int = Field(192, ge=4, description="values a token")
        depth: int = Field(3, ge=1, description="blocks")
        heads: int = Field(3, ge=1, description="of attention; they divide the width")
        patch: int = Field(8, ge=1, description="height and width of a patch, in pixels")

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        if options.width % options.heads:
            what = f"width {options.width} does not divide into {options.heads} heads"
            raise PartError(what, hint="choose heads that divide the width")
        self.width = options.width
        self.patch = (1, options.patch, options.patch)
        self.embed = PatchEmbedding(context.channels, self.width, self.patch)
        self.positions = Positions("sincos-3d", self.grid(context.shape), self.width)
        self.transformer = nn.ModuleList(
            Block(self.width, options.heads) for _ in range(options.depth)
        )
        self.norm = nn.LayerNorm(self.width)
        init_transformer(self)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the token grid of a clip of ``(T, H, W)`` pixels."""
        if any(size % step for size, step in zip(shape, self.patch, strict=True)):
            what = f"a clip of {shape} does not divide into patches of {self.patch}"
            raise PartError(what, hint="change data.size, or patch")
        return Grid(*(size // step for size, step in zip(shape, self.patch, strict=True)))

    def forward(
        self,
        pixels: Tensor,
        mask: Mask,
        layers: Sequence[int] = (),
        attention: bool = False,
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, T, H, W]`` to ``[B, K, D]``."""
        x = self.embed(gather(patchify(pixels, self.patch), mask.visible))
        x = x + self.positions()[mask.visible]
        taken, maps = [], []
        for index, block in enumerate(self.transformer):
            x, weights = block(x, attention)
            if index in layers:
                taken.append(x)
            if weights is not None:
                maps.append(weights)
        return Encoded(self.norm(x), tuple(taken), tuple(maps))

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks, first to last."""
        return list(self.transformer)

    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, len(blocks) + 1 after them."""
        if parameter.startswith("transformer."):
            return int(parameter.split(".")[1]) + 1
        return len(self.transformer) + 1 if parameter.startswith("norm.") else 0

    def last_norm(self) -> nn.Module:
        """Return the norm after the last block."""
        return self.norm
