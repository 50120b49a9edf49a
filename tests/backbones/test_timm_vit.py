"""timm's models as encoders: the same features as timm gives, and blind to what is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maekit import registry
from maekit.backbones.timm_vit import TimmViT
from maekit.contracts import PartContext
from maekit.engine.build import build_model
from maekit.engine.step import recompute
from maekit.errors import PartError
from maekit.recipe.schema import BackboneSpec
from maekit.testing import check_backbone
from maekit.tokens import Mask, gather
from maekit.weights.header import Header

CLIP = PartContext((1, 32, 48), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
CLIP14 = replace(CLIP, shape=(1, 28, 56))
# Plain; class token and registers; rotary positions; positions mixed per block and head; dynamic
# size with registers; a last norm behind the pooling; no class token; two prefix tokens.
MASKABLE = [
    ("vit_tiny_patch16_224", CLIP, 1),
    ("vit_small_patch14_reg4_dinov2", CLIP14, 5),
    ("eva02_tiny_patch14_224", CLIP14, 1),
    ("vit_small_patch16_rope_mixed_224", CLIP, 1),
    ("vit_small_patch16_dinov3", CLIP, 5),
    ("vit_wee_patch16_reg1_gap_256", CLIP, 1),
    ("deit_tiny_distilled_patch16_224", CLIP, 2),
]
# What the adapter decides on. All promises are looked at in tests/contracts, of one small model.
OF_ADAPTERS = {
    "returns_the_tokens_that_it_declares",
    "sees_nothing_that_is_hidden",
    "tokens_stand_in_the_order_of_the_mask",
    "blocks_are_called_in_their_order",
    "layers_are_what_its_blocks_return",
    "layer_of_follows_its_blocks",
    "no_decay_names_its_parameters",
}
WHOLE = [
    ("swin_tiny_patch4_window7_224", replace(CLIP, shape=(1, 224, 224)), (1, 7, 7)),
    ("convnext_atto", replace(CLIP, shape=(1, 64, 96)), (1, 2, 3)),
]


def backbone(name: str, context: PartContext) -> TimmViT:
    torch.manual_seed(0)
    spec = BackboneSpec.model_validate({"name": "timm-vit", "model": name})
    built: TimmViT = registry.build(spec, context)
    # timm's fresh tokens and positions are too small to show that they were exchanged.
    with torch.no_grad():
        for key, parameter in built.named_parameters():
            if "pos_embed" in key or "token" in key:
                parameter.normal_()
    return built.eval()


def pixels(context: PartContext) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, context.channels, *context.shape, generator=generator)


def some_hidden(tokens: int) -> Mask:
    """Half of the tokens, others in each row."""
    order = torch.rand(2, tokens, generator=torch.Generator().manual_seed(2)).argsort(1)
    return Mask.build(order < tokens // 2)


@pytest.mark.parametrize(("name", "context", "prefix"), MASKABLE)
def test_contract(name: str, context: PartContext, prefix: int) -> None:
    built = backbone(name, context)
    assert (built.prefix_tokens, built.keeps_all) == (prefix, None)
    check_backbone(TimmViT, {"model": name}, contexts=[context], only=OF_ADAPTERS)


@pytest.mark.parametrize(("name", "context", "prefix"), MASKABLE)
@torch.no_grad()
def test_features_are_timms(name: str, context: PartContext, prefix: int) -> None:
    """Nothing hidden: an untouched model of timm's with the same weights gives the same."""
    import timm

    built = backbone(name, context)
    theirs = timm.create_model(name, num_classes=0, img_size=context.shape[1:]).eval()
    if isinstance(getattr(theirs, "norm", None), nn.Identity):
        theirs.norm, theirs.fc_norm = theirs.fc_norm, nn.Identity()
    theirs.load_state_dict(built.model.state_dict())
    mask = Mask.nothing_hidden(2, built.clip_grid.tokens)
    ours = built(pixels(context), mask).tokens
    torch.testing.assert_close(ours, theirs.forward_features(pixels(context)[:, :, 0]))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_a_mask_is_timms_patch_dropout_of_the_same_tokens(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from timm.layers import patch_dropout

    context = CLIP if "vit_tiny" in name else CLIP14
    built = backbone(name, context)
    theirs = timm.create_model(
        name, num_classes=0, global_pool="", img_size=context.shape[1:], patch_drop_rate=0.5
    )
    theirs.load_state_dict(built.model.state_dict())
    theirs.train()  # timm drops patches only then; nothing else differs at rate 0
    clip, mask = pixels(context), some_hidden(built.clip_grid.tokens)
    # timm keeps the first half of the order that chance gives: make chance give ours.
    wanted = torch.cat([mask.visible, mask.queries], dim=1)

    def chance(*shape: int, **_: Any) -> Tensor:
        assert shape == wanted.shape
        return wanted.argsort(1).to(torch.float32)

    monkeypatch.setattr(patch_dropout.torch, "randn", chance)
    torch.testing.assert_close(
        built(clip, mask).tokens, theirs.forward_features(clip[:, :, 0]), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_the_order_of_visible_tokens_only_permutes_the_tokens() -> None:
    """Positions go with their tokens, rotary ones too."""
    built = backbone("eva02_tiny_patch14_224", CLIP14)
    mask = some_hidden(built.clip_grid.tokens)
    order = torch.arange(mask.visible.shape[1]).flip(0).expand_as(mask.visible)
    turned = replace(mask, visible=gather(mask.visible[..., None], order)[..., 0])
    plain = built(pixels(CLIP14), mask).tokens[:, 1:]
    torch.testing.assert_close(built(pixels(CLIP14), turned).tokens[:, 1:], gather(plain, order))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_layers_and_attention(name: str) -> None:
    context = CLIP if "vit_tiny" in name else CLIP14
    built = backbone(name, context)
    mask = some_hidden(built.clip_grid.tokens)
    plain = built(pixels(context), mask)
    asked = built(pixels(context), mask, layers=(11, 0), attention=True)
    torch.testing.assert_close(asked.tokens, plain.tokens)
    first, last = asked.layers
    assert first.shape == last.shape == plain.tokens.shape
    torch.testing.assert_close(built.model.norm(last), plain.tokens)
    assert not torch.equal(first, last)
    size = plain.tokens.shape[1]
    assert [tuple(each.shape) for each in asked.attention] == [(2, 3, size, size)] * 12
    for each in asked.attention:
        torch.testing.assert_close(each.sum(-1), torch.ones_like(each[..., 0]))
    assert not any(module._forward_hooks for module in built.modules())
    assert not any(module._forward_pre_hooks for module in built.modules())
    assert all(block.attn.fused_attn for block in built.blocks())


def test_layers_of_parameters() -> None:
    built = backbone("eva02_tiny_patch14_224", CLIP14)
    assert built.layer_of("model.cls_token") == built.layer_of("model.patch_embed.proj.bias") == 0
    assert built.layer_of("model.blocks.0.norm1.weight") == 1
    assert built.layer_of("model.blocks.11.mlp.fc2.bias") == 12
    assert built.layer_of("model.norm.weight") == 13
    assert set(built.no_decay()) == {"model.cls_token", "model.pos_embed"}


def test_a_model_that_needs_all_tokens_keeps_the_rest_of_the_contract() -> None:
    check_backbone(TimmViT, {"model": "beit_base_patch16_224"}, contexts=[CLIP], only=OF_ADAPTERS)


def test_gradients_reach_every_parameter_also_when_recomputed() -> None:
    """Nothing of timm's head is left to go untrained."""
    gradients = []
    for again in (False, True):
        built = backbone("eva02_tiny_patch14_224", CLIP14).train()
        if again:
            for block in built.blocks():
                block.forward = recomputed(block)
        built(pixels(CLIP14), some_hidden(built.clip_grid.tokens)).tokens.square().sum().backward()
        gradients.append({key: value.grad for key, value in built.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient is not None, key
        torch.testing.assert_close(gradients[1][key], gradient)


def recomputed(block: nn.Module) -> Any:
    """As the engine recomputes a model's blocks."""

    recompute([block])
    return block.forward


@pytest.mark.parametrize(("name", "context", "grid"), WHOLE)
@torch.no_grad()
def test_models_that_need_all_tokens(
    name: str, context: PartContext, grid: tuple[int, int, int]
) -> None:
    built = backbone(name, context)
    assert built.clip_grid == grid
    everything = Mask.nothing_hidden(2, built.clip_grid.tokens)
    encoded = built(pixels(context), everything, layers=(len(built.blocks()) - 1,))
    shape = (2, built.prefix_tokens + built.clip_grid.tokens, built.width)
    assert encoded.tokens.shape == encoded.layers[0].shape == shape
    layers = {built.layer_of(key) for key, _ in built.named_parameters()}
    assert layers <= set(range(len(built.blocks()) + 2))
    with pytest.raises(PartError, match="cannot leave tokens out: timm's"):
        built(pixels(context), some_hidden(built.clip_grid.tokens))


@torch.no_grad()
def test_tokens_of_a_feature_map_are_in_raster_order() -> None:
    """A convolution sees where its pixels are: the changed corner's token changes most."""
    context = replace(CLIP, shape=(1, 64, 96))
    built = backbone("convnext_atto", context)
    plain = pixels(context)
    changed = plain.clone()
    changed[..., :32, 64:] += 3
    everything = Mask.nothing_hidden(2, 6)
    moved = (built(changed, everything).tokens - built(plain, everything).tokens).norm(dim=-1)
    assert moved.argmax(dim=1).tolist() == [2, 2]


def header(name: str, clip: tuple[int, int, int], **more: Any) -> Header:
    return Header(
        backbone={"name": "timm-vit", "model": name},
        clip=clip, channels=3, mean=CLIP.mean, std=CLIP.std, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("convnext_atto", 64, "timm's ConvNeXt works on whole pictures"),
        ("vit_tiny_r_s16_p8_224", 128, "HybridEmbed mixes the pixels of neighboring patches"),
    ],
)
def test_refused_at_build_where_tokens_are_hidden(name: str, size: int, reason: str) -> None:
    clip = (1, size, size)
    assert build_model(header(name, clip)).grid.tokens > 0
    with pytest.raises(PartError, match=reason) as caught:
        build_model(header(name, clip, masker={"name": "random", "ratio": 0.5}))
    assert caught.value.where == "model.backbone"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_a_model_pretrains(name: str) -> None:
    """Behind maekit's decoder and target, at another size and number of channels than timm's."""
    parts: dict[str, Any] = {
        "masker": {"name": "random", "ratio": 0.5},
        "decoder": {"name": "vit", "width": 32, "depth": 1, "heads": 2},
        "target": {"name": "norm-pixel"},
    }
    described = header(name, (1, 32, 48), **parts)
    described = described.model_copy(update={"channels": 5, "mean": (0.5,) * 5, "std": (1.0,) * 5})
    model = build_model(described)
    hidden = some_hidden(model.grid.tokens).hidden()
    loss = model(torch.rand(2, 5, 1, 32, 48), hidden).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    with torch.device("meta"):
        counted = build_model(described)
    assert [p.shape for p in counted.parameters()] == [p.shape for p in model.parameters()]


def test_the_same_seed_gives_the_same_weights() -> None:
    one, other = (build_model(header("vit_tiny_patch16_224", (1, 32, 48)), 5) for _ in "ab")
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "context", "said"),
    [
        ("vit_tiny_patch16_225", CLIP, "did you mean 'vit_tiny_patch16_224'"),
        ("hf-hub:timm/vit_tiny_patch16_224", CLIP, "has no model"),
        ("vit_tiny_patch16_224", replace(CLIP, shape=(2, 32, 48)), "takes one frame"),
        ("vit_tiny_patch16_224", replace(CLIP, shape=(1, 30, 48)), "30x48 does not divide"),
        ("vit_tiny_r_s16_p8_224", CLIP, "timm cannot build vit_tiny_r_s16_p8_224"),
    ],
)
def test_what_cannot_be_built(name: str, context: PartContext, said: str) -> None:
    with pytest.raises(PartError, match=said):
        backbone(name, context)


def test_layers_of_another_size_are_refused() -> None:
    context = replace(CLIP, shape=(1, 64, 96))
    built = backbone("convnext_atto", context)
    with pytest.raises(PartError, match="only its last layer"):
        built(pixels(context), Mask.nothing_hidden(2, 6), layers=(0,))
    with pytest.raises(PartError, match="attention of convnext_atto cannot be read"):
        built(pixels(context), Mask.nothing_hidden(2, 6), attention=True)
