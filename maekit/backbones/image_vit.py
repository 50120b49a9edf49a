"""``image-vit``: MAE's encoder for images (facebookresearch/mae, models_mae.py)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from maekit.backbones.vit import VisionTransformer, ViTOptions
from maekit.contracts import PartContext
from maekit.errors import PartError

Side = Annotated[int, Field(ge=1)]


class ImageViT(VisionTransformer):
    """A ViT over one-frame clips, with a class token and fixed 2-D sine-cosine positions."""

    class Options(ViTOptions):
        patch: Side | tuple[Side, Side] = Field(
            16, description="pixels: side, or [height, width]; MAE's huge uses 14"
        )
        positions: Literal["sincos-2d", "learned"] = Field(
            "sincos-2d", description="sincos-2d: fixed (MAE); learned: trained"
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        if context.shape[0] != 1:
            msg = f"image-vit takes one frame, and the recipe asks for {context.shape[0]}"
            raise PartError(msg, hint="set frames: 1, or the backbone video-vit")
        height, width = (options.patch,) * 2 if isinstance(options.patch, int) else options.patch
        super().__init__(options, context, (1, height, width))
