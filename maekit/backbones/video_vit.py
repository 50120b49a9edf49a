"""``video-vit``: VideoMAE's encoder for clips (MCG-NJU/VideoMAE, modeling_pretrain.py).

Its defaults are VideoMAE's; mae_st's encoder is ``class_token: true, qkv_bias: all,
positions: learned-separable, init: mae-st``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from maekit.backbones.vit import VisionTransformer, ViTOptions
from maekit.contracts import PartContext
from maekit.layers import Init, PositionKind, QKVBias
from maekit.recipe.sections import american

Side = Annotated[int, Field(ge=1)]


class VideoViT(VisionTransformer):
    """A ViT over cubes of pixels: every visible token attends to all others, in time and space.

    Takes the weights of ``image-vit``, as a model of one frame.
    """

    inflates = ("image-vit",)

    class Options(ViTOptions):
        load_time: ClassVar[frozenset[str]] = ViTOptions.load_time | {"inflate"}

        patch: tuple[Side, Side, Side] = Field(
            (2, 16, 16), description="[frames, height, width] of a cube, in pixels"
        )
        qkv_bias: QKVBias = Field("qv", description="qv: none for the keys (VideoMAE)")
        class_token: bool = Field(False, description="a token that stands for the whole clip")
        positions: PositionKind = Field(
            "sincos-1d",
            description="sincos-1d: fixed, over tokens in raster order (VideoMAE); sincos-2d: "
            "fixed, time slots alike; sincos-3d: fixed; learned: trained, a row per token; "
            "learned-separable: trained, space plus time (mae_st)",
        )
        init: Init = Field(
            "videomae",
            description="mae: xavier patch embedding, normal tokens; mae-st: also queries, keys "
            "and values each by itself; videomae: PyTorch's own patch embedding, truncated normal "
            "tokens; timm: normal everywhere but in its patch embedding",
        )
        inflate: Annotated[Literal["average", "center"], BeforeValidator(american)] = Field(
            "average",
            description="how the patch embedding of an image model fills a cube's frames when its "
            "weights are loaded: average: each frame the same share; center: the middle one all",
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__(options, context, options.patch)
        self.inflate = options.inflate
