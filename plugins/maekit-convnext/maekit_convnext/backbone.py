"""``convnext``: ConvNeXt V2 as an encoder that sees no hidden pixel (FCMAE, arXiv 2301.00808).

Hidden patches are zero at every layer, which is what sparse convolutions compute; the maps stay
dense, so that this saves no time, but needs no library. A patch is as large as a pixel of the last
stage's map: 32 pixels a side with four stages.

Two things differ from the authors' pre-training (facebookresearch/ConvNeXt-V2, models/utils.py and
convnextv2_sparse.py): their sparse response norm takes a channel's length over all visible places
of the batch, ours over those of a sample, as it is in fine-tuning; and their sparse encoder ends
without a norm, where ours has the one of fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field
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
from maekit.layers import LAYER_NORM_EPS
from maekit.tokens import Mask, gather
from maekit_convnext.block import Block, initialize
from maekit_convnext.names import ours


@dataclass(frozen=True)
class Shape:
    """Width of the first stage, which doubles with each, and blocks of each stage."""

    width: int
    stages: tuple[int, ...]


SIZES = {
    "atto": Shape(40, (2, 2, 6, 2)),
    "femto": Shape(48, (2, 2, 6, 2)),
    "pico": Shape(64, (2, 2, 6, 2)),
    "nano": Shape(80, (2, 2, 8, 2)),
    "tiny": Shape(96, (3, 3, 9, 3)),
    "base": Shape(128, (3, 3, 27, 3)),
    "large": Shape(192, (3, 3, 27, 3)),
    "huge": Shape(352, (3, 3, 27, 3)),
}


class ConvNeXt(Backbone, nn.Module):
    """Returns the last stage's map at the visible places.

    ``layers`` are given at these places too: maps of earlier stages as means over a patch.
    """

    class Options(PartOptions):
        load_time: ClassVar[frozenset[str]] = frozenset({"drop_path"})

        size: Literal["atto", "femto", "pico", "nano", "tiny", "base", "large", "huge"] = Field(
            "tiny", description="of the paper; width and stages where those are unset"
        )
        width: int | None = Field(None, ge=1, description="of the first stage")
        stages: tuple[int, ...] | None = Field(
            None, min_length=1, max_length=6, description="blocks of each stage"
        )
        stride: int = Field(4, ge=1, description="pixels a side that the first layer takes as one")
        drop_path: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="of the last block, from 0 in the first; changes no weights",
        )

        @property
        def shape(self) -> Shape:
            """Width and stages: those of the size, where nothing else is set."""
            base = SIZES[self.size]
            return Shape(self.width or base.width, self.stages or base.stages)

        def structure(self) -> dict[str, Any]:
            """Return what weights depend on, a size as its width and stages."""
            plain = super().structure()
            del plain["size"]
            return plain | {"width": self.shape.width, "stages": list(self.shape.stages)}

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        if context.shape[0] != 1:
            msg = f"convnext takes one frame, and the recipe asks for {context.shape[0]}"
            raise PartError(msg, hint="set frames: 1, or the backbone video-vit")
        shape = options.shape
        widths = [shape.width * 2**stage for stage in range(len(shape.stages))]
        side = options.stride * 2 ** (len(widths) - 1)
        self.patch = (1, side, side)
        self.width = widths[-1]
        self.clip_grid = self.grid(context.shape)
        self.stem = nn.Conv2d(context.channels, widths[0], options.stride, stride=options.stride)
        self.stem_norm = nn.LayerNorm(widths[0], eps=LAYER_NORM_EPS)
        depth = sum(shape.stages)
        self.main = nn.ModuleList()
        self.stage_of = []
        for stage, (width, count) in enumerate(zip(widths, shape.stages, strict=True)):
            for block in range(count):
                rate = options.drop_path * len(self.main) / max(1, depth - 1)
                shrinks = widths[stage - 1] if stage and block == 0 else None
                self.main.append(Block(width, rate, shrinks))
                self.stage_of.append(stage)
        self.layer_widths = tuple(widths[stage] for stage in self.stage_of)
        self.norm = nn.LayerNorm(self.width, eps=LAYER_NORM_EPS)
        initialize(self)

    @classmethod
    def foreign(cls, tensors: Mapping[str, Tensor]) -> Foreign | None:
        """Recognize weights of timm's ConvNeXt V2."""
        return ours(tensors)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the grid of the last stage's map for a clip of ``(T, H, W)`` pixels."""
        side = self.patch[1]
        if any(size % side for size in shape[1:]) or shape[0] != 1:
            msg = f"{shape[1]}x{shape[2]} pixels do not divide into patches of {side}x{side}"
            raise PartError(msg, hint="change data.size, or the backbone's stride or stages")
        return Grid(1, shape[1] // side, shape[2] // side)

    def forward(
        self,
        pixels: Tensor,
        mask: Mask,
        layers: Sequence[int] = (),
        attention: bool = False,  # noqa: ARG002
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, 1, H, W]`` to ``[B, K, D]``; there is no attention."""
        grid = self.clip_grid
        seen = None
        if mask.visible.shape[1] < mask.tokens:
            seen = (~mask.hidden()).view(-1, grid.h, grid.w, 1).to(pixels.dtype)
        taken: list[Tensor] = []
        # What is seen, at the resolution of each stage.
        stages = len(set(self.stage_of))
        maps = [_at(seen, 2 ** (stages - 1 - stage)) for stage in range(stages)]
        x = self.stem_norm(self.stem(pixels[:, :, 0]).permute(0, 2, 3, 1))
        x = x if maps[0] is None else x * maps[0]
        for index, (block, stage) in enumerate(zip(self.main, self.stage_of, strict=True)):
            x = block(x, maps[stage])
            if index in layers:
                taken.append(gather(self._at_last(x), mask.visible))
        tokens = gather(x.flatten(1, 2), mask.visible)
        return Encoded(self.norm(tokens), tuple(taken))

    def _at_last(self, x: Tensor) -> Tensor:
        """Return a map as means over patches, ``[B, N, D_i]``."""
        cells = x.unflatten(2, (self.clip_grid.w, -1)).unflatten(1, (self.clip_grid.h, -1))
        means: Tensor = cells.mean(dim=(2, 4))
        return means.flatten(1, 2)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks of all stages, first to last."""
        return list(self.main)

    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, depth + 1 after them."""
        part, _, rest = parameter.partition(".")
        if part == "main":
            return int(rest.split(".")[0]) + 1
        return len(self.main) + 1 if part == "norm" else 0

    def last_norm(self) -> nn.Module:
        """Return the norm after the last block."""
        return self.norm


def _at(seen: Tensor | None, times: int) -> Tensor | None:
    """Repeat what is seen of a coarse map for one that is finer."""
    if seen is None:
        return None
    return seen.repeat_interleave(times, 1).repeat_interleave(times, 2)
