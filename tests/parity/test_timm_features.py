"""Our image encoder against timm's VisionTransformer: same weights, same features and gradients."""

from __future__ import annotations

import pytest
import torch
from agreement import GRADIENT_TOLERANCE, assert_agree, gradients, random_hidden, randomize
from torch import Tensor, nn

from maekit.engine.build import build_model
from maekit.model import MaskedAutoencoder
from maekit.tokens import Mask
from maekit.weights.header import Header

NAMES = {"cls_token": "class_token", "pos_embed": "positions.table"}


class Visible(nn.Module):
    """Stands where timm drops patches."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, 1:][~self.hidden].unflatten(0, (len(x), -1))
        return torch.cat([x[:, :1], patches], dim=1)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of timm's model under our names."""
    ours = {}
    for name, tensor in tensors.items():
        own = NAMES.get(name, name.replace("blocks.", "transformer."))
        own = own.replace("patch_embed.proj", "patch_embed")
        is_kernel = name == "patch_embed.proj.weight"
        ours[f"backbone.{own}"] = tensor.unsqueeze(2) if is_kernel else tensor
    return ours


def ours(
    size: tuple[int, int], patch: int, width: int, depth: int, heads: int
) -> MaskedAutoencoder:
    """With trained positions, as timm's are."""
    header = Header(
        backbone={
            "name": "image-vit", "width": width, "depth": depth, "heads": heads, "patch": patch,
            "positions": "learned",
        },
        clip=(1, *size), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    return build_model(header).eval()


def compare(
    reference: nn.Module, model: MaskedAutoencoder, hidden: Tensor | None, *, quiet: bool = False
) -> None:
    width = model.backbone.width
    randomize(reference, std=width**-0.5, quiet=quiet)
    model.load_state_dict(renamed(reference.state_dict()), strict=True)
    images = torch.randn(2, 3, *model.clip, generator=torch.Generator().manual_seed(1))
    mask = Mask.nothing_hidden(2, model.grid.tokens)
    if hidden is not None:
        mask = Mask.build(hidden)
        reference.patch_drop = Visible(hidden)
    features = model.encode_visible(images, mask).tokens
    expected = reference.forward_features(images.squeeze(2))  # type: ignore[operator]
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(expected.shape, generator=generator)
    (features * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_agree({"features": features}, {"features": expected})
    assert_agree(gradients(model), renamed(gradients(reference)), GRADIENT_TOLERANCE)


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
@pytest.mark.parametrize("hidden", [None, random_hidden(2, 15, 10)], ids=["whole", "masked"])
def test_features_and_gradients_are_timms(hidden: Tensor | None, quiet: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer

    reference = VisionTransformer(
        img_size=(24, 40), patch_size=8, num_classes=0, embed_dim=48, depth=2, num_heads=4
    )
    compare(reference.eval(), ours((24, 40), 8, 48, 2, 4), hidden, quiet=quiet)


@pytest.mark.slow
def test_features_and_gradients_are_timms_vit_b() -> None:
    import timm

    reference = timm.create_model("vit_base_patch16_224", num_classes=0, img_size=(160, 288))
    compare(reference.eval(), ours((160, 288), 16, 768, 12, 12), random_hidden(2, 180, 135))
