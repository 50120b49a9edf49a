"""``image-vit``: MAE's encoder for images (facebookresearch/mae, models_mae.py)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maekit.backbones.vit import SIZES, Positions, Shape, Size, VisionTransformer
from maekit.contracts import PartContext, PartOptions
from maekit.errors import PartError
from maekit.layers import QKVBias

Side = Annotated[int, Field(ge=1)]


class ImageViT(VisionTransformer):
    """A ViT over one-frame clips, with a class token and fixed 2-D sine-cosine positions."""

    class Options(PartOptions):
        size: Size = Field("base", description="tiny, small, base, large or huge")
        width: int | None = Field(None, ge=1, description="instead of the size's width")
        depth: int | None = Field(None, ge=1, description="instead of the size's depth")
        heads: int | None = Field(None, ge=1, description="instead of the size's heads")
        patch: Side | tuple[Side, Side] = Field(
            16, description="pixels: side, or [height, width]; MAE's huge uses 14"
        )
        mlp_ratio: float = Field(4.0, gt=0)
        qkv_bias: QKVBias = "all"
        class_token: bool = True
        positions: Positions = Field(
            "sincos-2d", description="sincos-2d: fixed (MAE); learned: trained"
        )
        mask_token: bool = Field(
            False, description="feed hidden patches to the encoder as [M] (MAE table 1c)"
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        if context.shape[0] != 1:
            msg = f"image-vit takes one frame, and the recipe asks for {context.shape[0]}"
            raise PartError(msg, hint="set frames: 1, or a video backbone")
        base = SIZES[options.size]
        height, width = (options.patch,) * 2 if isinstance(options.patch, int) else options.patch
        super().__init__(
            context.shape,
            context.channels,
            Shape(
                options.width or base.width,
                options.depth or base.depth,
                options.heads or base.heads,
            ),
            (1, height, width),
            mlp_ratio=options.mlp_ratio,
            qkv_bias=options.qkv_bias,
            class_token=options.class_token,
            positions=options.positions,
            mask_token=options.mask_token,
        )
