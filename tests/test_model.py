"""The masked autoencoder: counts, what it may see, and which prediction belongs to which token."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from maekit.backbones.image_vit import ImageViT
from maekit.contracts import PartContext
from maekit.decoders.vit import ViTDecoder
from maekit.errors import PartError, WeightsError
from maekit.layers import Statistics
from maekit.model import MaskedAutoencoder
from maekit.targets.pixel import NormPixel, Pixel
from maekit.tokens import Mask, gather, interpolate_from_visible, patchify

STATISTICS = Statistics((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def make(
    clip: tuple[int, int, int] = (1, 16, 24),
    target: type[Pixel] = NormPixel,
    decoder: dict[str, Any] | None = None,
    **backbone: Any,
) -> MaskedAutoencoder:
    torch.manual_seed(0)
    options = {"size": "tiny", "width": 32, "depth": 2, "heads": 4, "patch": 4} | backbone
    context = PartContext(clip, 3, *STATISTICS)
    encoder = ImageViT(ImageViT.Options.model_validate(options), context)
    context = replace(
        context,
        grid=encoder.clip_grid,
        patch=encoder.patch,
        width=encoder.width,
        prefix_tokens=encoder.prefix_tokens,
        returns=encoder.returns,
    )
    aim = target(target.Options(), context)
    settings = {"width": 16, "depth": 1, "heads": 2} | (decoder or {})
    head = ViTDecoder(
        ViTDecoder.Options.model_validate(settings), replace(context, out_dim=aim.out_dim)
    )
    return MaskedAutoencoder(encoder, head, aim, clip, STATISTICS).eval()


def pixels_and_hidden(batch: int = 3, count: int = 18) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 3, 1, 16, 24), torch.rand(batch, 24).argsort(1) < count


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# recipes.md 1.1: encoder and full model, position tables included.
@pytest.mark.parametrize(
    ("size", "patch", "encoder", "full"),
    [
        ("base", 16, 85_798_656, 111_907_840),
        ("large", 16, 303_301_632, 329_541_888),
        ("huge", 14, 630_764_800, 657_074_508),
    ],
)
def test_parameter_counts_are_maes(size: str, patch: int, encoder: int, full: int) -> None:
    with torch.device("meta"):
        model = make(
            (1, 224, 224),
            decoder={"width": 512, "depth": 8, "heads": 16},
            size=size, patch=patch, width=None, depth=None, heads=None,
        )  # fmt: skip
    assert count(model.backbone) == encoder
    assert count(model) == full


def test_hidden_pixels_never_reach_the_encoder() -> None:
    model = make()
    pixels, hidden = pixels_and_hidden()
    where = hidden.reshape(3, 1, 1, 4, 6).repeat_interleave(4, 3).repeat_interleave(4, 4)
    other = torch.where(where, torch.randn_like(pixels), pixels)
    seen, changed = model(pixels, hidden), model(other, hidden)
    assert torch.equal(seen.encoded, changed.encoded)
    assert torch.equal(seen.pred, changed.pred)
    assert float(seen.loss) != float(changed.loss)
    # The other way round: what is visible does matter.
    assert not torch.equal(model(torch.where(where, pixels, other * 2), hidden).pred, seen.pred)


def test_samples_do_not_mix() -> None:
    model = make()
    pixels, hidden = pixels_and_hidden()
    together = model(pixels, hidden).pred
    alone = torch.cat([model(pixels[i : i + 1], hidden[i : i + 1]).pred for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_forward_hooks_fire_for_encoder_and_decoder() -> None:
    model = make()
    pixels, hidden = pixels_and_hidden()
    called: list[str] = []
    for name in ("backbone", "decoder"):
        model.get_submodule(name).register_forward_hook(
            lambda *_, name=name: called.append(name)  # type: ignore[misc]
        )
    model(pixels, hidden)
    model.masked_loss([model.unnormalize(pixels)], Mask.build(hidden))
    assert called == ["backbone", "decoder"] * 2


def test_loss_over_views_is_the_weighted_sum() -> None:
    model = make()
    pixels, hidden = pixels_and_hidden()
    out = model(pixels, hidden)
    mask = Mask.build(hidden)
    total = model.masked_loss([model.unnormalize(pixels)], mask)
    assert float(total) / float(mask.weight.sum()) == pytest.approx(float(out.loss), rel=1e-4)
    bad = Mask.build(hidden, sample_weight=torch.tensor([1.0, 0.0, 1.0]))
    good_rows = model(pixels[[0, 2]], hidden[[0, 2]])
    total = model.masked_loss([model.unnormalize(pixels)], bad)
    assert float(total) / float(bad.weight.sum()) == pytest.approx(float(good_rows.loss), rel=1e-4)


def test_predicting_all_agrees_with_maes_unshuffled_decoder() -> None:
    """MAE decodes the whole grid and drops what was visible; we decode visible and hidden only."""
    model = make()
    pixels, hidden = pixels_and_hidden()
    encoded = model.backbone(pixels, Mask.build(hidden))
    whole = model.decode(encoded, Mask.build(hidden, loss_on="all"))
    pred = model.decode(encoded, Mask.build(hidden))
    assert whole.shape == (3, 24, 48)
    for row in range(3):
        assert torch.allclose(whole[row][hidden[row]], pred[row], atol=1e-5)


def test_mask_token_in_the_encoder_returns_every_token() -> None:
    model = make(mask_token=True)
    pixels, hidden = pixels_and_hidden()
    out = model(pixels, hidden)
    assert out.encoded.shape == (3, 25, 32)
    assert out.pred.shape == (3, 18, 48)
    assert "mask_token" not in dict(model.decoder.named_parameters())  # type: ignore[union-attr]
    out.loss.backward()
    assert float(model.backbone.mask_token.grad.norm()) > 0  # type: ignore[attr-defined]
    where = hidden.reshape(3, 1, 1, 4, 6).repeat_interleave(4, 3).repeat_interleave(4, 4)
    other = torch.where(where, torch.randn_like(pixels), pixels)
    assert torch.equal(out.encoded, model(other, hidden).encoded)


def test_layers_attention_and_features() -> None:
    model = make()
    pixels, hidden = pixels_and_hidden()
    encoded = model.encode_visible(pixels, Mask.build(hidden), layers=(0, 1), attention=True)
    assert [layer.shape for layer in encoded.layers] == [(3, 7, 32)] * 2
    assert [each.shape for each in encoded.attention] == [(3, 4, 7, 7)] * 2
    assert torch.allclose(model.backbone.norm(encoded.layers[1]), encoded.tokens)  # type: ignore[attr-defined]
    assert model.encode(pixels).shape == (3, 25, 32)
    headless = make(class_token=False)
    assert headless.encode(pixels).shape == (3, 24, 32)


def test_layer_of_counts_from_the_embedding_to_the_norm() -> None:
    backbone = make().backbone
    layers = {name: backbone.layer_of(name) for name, _ in backbone.named_parameters()}  # type: ignore[attr-defined]
    assert layers["class_token"] == layers["positions.table"] == layers["patch_embed.weight"] == 0
    assert layers["transformer.0.norm1.weight"] == 1
    assert layers["transformer.1.mlp.fc2.bias"] == 2
    assert layers["norm.weight"] == 3


def test_a_constant_predictor_paints_what_is_interpolated() -> None:
    model = make()
    with torch.no_grad():
        for parameter in model.decoder.head.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    pixels, hidden = pixels_and_hidden()
    painted = model.paint(pixels, Mask.build(hidden))
    mask = Mask.build(hidden)
    patches = patchify(model.normalize(pixels), (1, 4, 4))
    guess = interpolate_from_visible(
        gather(patches, mask.visible).mean(-1, keepdim=True), mask, model.grid
    )
    flat = guess * torch.tensor(STATISTICS.std * 16) + torch.tensor(STATISTICS.mean * 16)
    assert torch.allclose(painted, flat, atol=1e-5)


def test_build_errors_are_part_errors() -> None:
    with pytest.raises(PartError, match="divide into 1x5x5 patches"):
        make(patch=5)
    with pytest.raises(PartError, match="heads"):
        make(heads=5)
    with pytest.raises(PartError, match="one frame"):
        make((2, 16, 24))


def test_a_model_without_decoder_says_so() -> None:
    model = make()
    model.decoder = None
    pixels, hidden = pixels_and_hidden()
    with pytest.raises(WeightsError, match="no decoder weights"):
        model(pixels, hidden)
    assert model.encode(pixels).shape == (3, 25, 32)


@pytest.mark.parametrize(("shape", "said"), [
    ((2, 3, 16, 16), "images have T = 1: pixels[:, :, None]"),
    ((3, 16, 16), "these are [3, 16, 16]"),
    ((1, 2, 3, 1, 16, 16), "pixels are [B, C, T, H, W]"),
])  # fmt: skip
def test_pixels_of_other_dimensions_are_refused_in_words(shape: tuple[int, ...], said: str) -> None:
    model = MaskedAutoencoder.__new__(MaskedAutoencoder)  # refused before anything is computed
    for call in (model.encode, lambda pixels: model.forward(pixels, torch.zeros(1, 4).bool())):
        with pytest.raises(ValueError, match=re.escape(said)):
            call(torch.rand(shape))
