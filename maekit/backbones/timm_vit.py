"""``timm-vit``: a vision transformer of timm as the encoder (huggingface/pytorch-image-models).

timm embeds every patch, adds positions, and then may drop patches (PatchDropout, arXiv 2212.00794;
``patch_drop`` in timm/models/vision_transformer.py and eva.py). What stands there is replaced by a
module that keeps ``mask.visible``, so that blocks, rotary positions and norms are timm's own.
timm takes seconds to import, so nothing here does so before a model is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from maekit.contracts import Backbone, Encoded, Grid, PartContext, PartOptions
from maekit.errors import PartError
from maekit.recipe.explain import suggest
from maekit.tokens import Mask, gather

_WHERE = "model.backbone.model"


class KeepVisible(nn.Module):
    """Stands where timm drops patches at random, and keeps those that a mask leaves visible.

    Args:
        prefix_tokens: how many tokens before the patches always stay.
        with_indices: also return which were kept, None for all: Eva turns its rotary positions by.
    """

    def __init__(self, prefix_tokens: int, *, with_indices: bool) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens
        self.with_indices = with_indices
        self.visible: Tensor | None = None  # int64 [B, K]; None: all

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """Keep the visible ones of ``[B, prefix + N, D]``: ``[B, prefix + K, D]``."""
        if self.visible is not None:
            prefix, patches = x[:, : self.prefix_tokens], x[:, self.prefix_tokens :]
            x = torch.cat([prefix, gather(patches, self.visible)], dim=1)
        return (x, self.visible) if self.with_indices else x

    @contextmanager
    def keeping(self, visible: Tensor | None) -> Iterator[None]:
        """Keep these within the block."""
        self.visible = visible
        try:
            yield
        finally:
            self.visible = None


class TimmViT(Backbone, nn.Module):
    """timm's model without its head and pooling, at the run's size and channels.

    ViTs with any number of class and register tokens, and Eva's with rotary positions, see visible
    tokens only. Any other model with a feature map works where nothing is hidden; its ``blocks``
    are then timm's stages.

    Raises:
        PartError: timm has no such model, or cannot build it at this size.
    """

    class Options(PartOptions):
        load_time: ClassVar[frozenset[str]] = frozenset({"drop_path"})

        model: str = Field(
            min_length=1, description="a model's name in timm, as vit_small_patch16_224"
        )
        drop_path: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="timm's drop_path_rate: samples skip branches while training; changes no "
            "weights",
        )

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        if context.shape[0] != 1:
            msg = f"timm-vit takes one frame, and the recipe asks for {context.shape[0]}"
            raise PartError(msg, hint="set frames: 1, or the backbone video-vit")
        self.name = options.model
        self.model = _create(options, context)
        self.width = int(self.model.num_features)  # type: ignore[arg-type]
        self.prefix_tokens = int(getattr(self.model, "num_prefix_tokens", 0))
        self._places, self.layer_widths, (height, width) = _features(self.model, self.name)
        self.patch = (1, height, width)
        self.clip_grid = self.grid(context.shape)
        self.keeps_all = _keeps_all(self.model)
        self._drop: KeepVisible | None = None
        if self.keeps_all is None:
            self._drop = KeepVisible(self.prefix_tokens, with_indices=_rotary(self.model))
            self.model.patch_drop = self._drop
        self._layers = _layers(self, [f"model.{place}." for place in self._places])

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Return the token grid of a clip of ``(T, H, W)`` pixels."""
        if any(pixels % step for pixels, step in zip(shape, self.patch, strict=True)):
            clip, patch = ("x".join(map(str, each)) for each in (shape[1:], self.patch[1:]))
            msg = f"{self.name} has patches of {patch} pixels, and {clip} does not divide into them"
            raise PartError(msg, hint="change data.size, or the backbone's model")
        return Grid(*(pixels // step for pixels, step in zip(shape, self.patch, strict=True)))

    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        """Encode normalized pixels ``[B, C, 1, H, W]`` to ``[B, prefix + K, D]``.

        Raises:
            PartError: tokens are hidden from a model that needs all, or it cannot give the
                attention or the requested layers.
        """
        if self.grid(tuple(pixels.shape[2:])) != self.clip_grid:  # type: ignore[arg-type]
            msg = f"pixels {list(pixels.shape)} do not make the model's grid {self.clip_grid}"
            raise ValueError(msg)
        hides = mask.visible.shape[1] < mask.tokens
        if hides and self.keeps_all is not None:
            msg = f"{self.name} cannot leave tokens out: {self.keeps_all}"
            raise PartError(msg, hint="hide nothing, or use one of timm's plain ViTs or Eva's")
        blocks = self.blocks()
        taken: list[Tensor] = []
        maps: list[Tensor] = []
        with ExitStack() as stack:
            if self._drop is not None:
                stack.enter_context(self._drop.keeping(mask.visible if hides else None))
            stack.enter_context(_outputs([blocks[i] for i in sorted(set(layers))], taken))
            if attention:
                stack.enter_context(_attention(blocks, maps, self.name))
            x = self.model.forward_features(pixels[:, :, 0])  # type: ignore[operator]
        shape = (len(pixels), self.prefix_tokens + mask.visible.shape[1], self.width)
        return Encoded(
            self._tokens(x, shape), tuple(self._tokens(x, shape) for x in taken), tuple(maps)
        )

    def _tokens(self, x: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Return what a part of timm's model returns as tokens; it may be a feature map."""
        if x.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            x = x.flatten(1, 2) if channels_last else x.flatten(2).transpose(1, 2)
        if x.shape != shape:
            msg = f"{self.name} returns {list(x.shape)} where {list(shape)} is expected"
            raise PartError(msg, hint="take another of timm's models, or only its last layer")
        return x

    def blocks(self) -> Sequence[nn.Module]:
        """Return the transformer blocks, first to last; the stages of a model that has such."""
        return [self.model.get_submodule(place) for place in self._places]

    def layer_of(self, parameter: str) -> int:
        """Return 0 before the blocks, i + 1 for block i, depth + 1 after them."""
        return self._layers[parameter]

    def last_norm(self) -> nn.Module | None:
        """Return timm's last norm, behind the blocks; None where there is none."""
        norm = getattr(self.model, "norm", None)
        return norm if isinstance(norm, nn.Module) else None

    def train_positions(self, trained: bool) -> dict[str, object]:
        """Train the table of positions or not; rotary ones are never trained."""
        table = getattr(self.model, "pos_embed", None)
        if isinstance(table, nn.Parameter):
            table.requires_grad_(trained)
        return {}

    def no_decay(self) -> Iterable[str]:
        """Name what timm's own recipes keep free of weight decay: tokens and positions."""
        listed: Iterable[str] = getattr(self.model, "no_weight_decay", tuple)()
        free = {f"model.{name}" for name in listed}
        return [name for name, _ in self.named_parameters() if name in free]


def _create(options: TimmViT.Options, context: PartContext) -> nn.Module:
    """Build timm's model with fresh weights, up to and with its last norm, and no head."""
    import timm

    name = options.model
    if not timm.is_model(name):
        msg = f"timm {timm.__version__} has no model '{name}'"
        hint = suggest(name, timm.list_models()) or "`timm.list_models('*vit*')` lists them"
        raise PartError(msg, where=_WHERE, hint=hint)
    settings: dict[str, Any] = {"in_chans": context.channels, "num_classes": 0}
    if options.drop_path:
        settings["drop_path_rate"] = options.drop_path
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        settings["img_size"] = context.shape[1:]
    try:
        model = timm.create_model(name, pretrained=False, **settings)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        wanted = ", ".join(f"{key} {value}" for key, value in settings.items())
        msg = f"timm cannot build {name} with {wanted}: {type(error).__name__}: {error}"
        raise PartError(
            msg, where=_WHERE, hint="change data.size, or take another model"
        ) from error
    # Models that average their tokens have their last norm behind the pooling.
    after = getattr(model, "fc_norm", None)
    if after is not None and isinstance(getattr(model, "norm", None), nn.Identity):
        model.norm = after
    for part in ("fc_norm", "attn_pool", "head"):
        if isinstance(getattr(model, part, None), nn.Module):
            setattr(model, part, nn.Identity())
    return model


def _features(model: nn.Module, name: str) -> tuple[list[str], tuple[int, ...], tuple[int, int]]:
    """Find timm's blocks (or stages), their widths, and the pixels (h, w) of a token at the end."""
    from timm.layers.helpers import to_2tuple

    features = getattr(model, "feature_info", None)
    if not isinstance(features, list) or not features:
        msg = f"timm does not say where the blocks of {name} are"
        raise PartError(msg, where=_WHERE, hint="take a model with feature_info, as its ViTs")
    height, width = to_2tuple(features[-1]["reduction"])
    widths = tuple(int(feature["num_chs"]) for feature in features)
    return [feature["module"] for feature in features], widths, (int(height), int(width))


def _keeps_all(model: nn.Module) -> str | None:
    """Say why no token of this model can be left out, or return None."""
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(model, (VisionTransformer, Eva)):
        return f"timm's {type(model).__name__} works on whole pictures and has no patch_drop"
    embed = model.patch_embed
    if type(embed) is not PatchEmbed or embed.proj.kernel_size != embed.proj.stride:
        return f"its {type(embed).__name__} mixes the pixels of neighboring patches"
    return None


def _rotary(model: nn.Module) -> bool:
    """Return whether ``patch_drop`` must say what it kept (timm/models/eva.py, ``_pos_embed``)."""
    from timm.models.eva import Eva

    return isinstance(model, Eva)


def _layers(module: nn.Module, places: Sequence[str]) -> dict[str, int]:
    """Return the layer of each parameter; between two blocks, that of the one before."""
    layers, current = {}, 0
    for name, _ in module.named_parameters():
        inside = [index for index, place in enumerate(places) if name.startswith(place)]
        if inside:
            current = inside[0] + 1
        layers[name] = current if inside or current < len(places) else current + 1
    return layers


@contextmanager
def _outputs(modules: Iterable[nn.Module], into: list[Tensor]) -> Iterator[None]:
    """Record what modules return, in the order they run."""

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        into.append(output)

    with _removed([module.register_forward_hook(note).remove for module in modules]):
        yield


@contextmanager
def _attention(blocks: Iterable[nn.Module], into: list[Tensor], name: str) -> Iterator[None]:
    """Record each block's attention ``[B, heads, S, S]``.

    timm's fused kernels never form it.
    """

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        into.append(inputs[0])

    attentions: list[Any] = [getattr(block, "attn", None) for block in blocks]
    if not all(hasattr(each, "fused_attn") and hasattr(each, "attn_drop") for each in attentions):
        msg = f"the attention of {name} cannot be read out"
        raise PartError(msg, where=_WHERE, hint="take one of timm's plain ViTs or Eva's")
    fused = [each.fused_attn for each in attentions]
    removers = [each.attn_drop.register_forward_pre_hook(note).remove for each in attentions]
    for each in attentions:
        each.fused_attn = False
    try:
        with _removed(removers):
            yield
    finally:
        for each, before in zip(attentions, fused, strict=True):
            each.fused_attn = before


@contextmanager
def _removed(removers: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Take hooks away after the block."""
    try:
        yield
    finally:
        for remove in removers:
            remove()
