"""Pooling, norms, heads; what is trained of them; and that files bring them back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import header, model

import maekit
from maekit.errors import PartError, WeightsError
from maekit.evaluate.classifier import Classifier, classifier_tensors, freeze, make_head
from maekit.grid import Grid
from maekit.layers import DropPath, Positions
from maekit.tokens import Mask
from maekit.weights.header import ClassifierHeader
from maekit.weights.safetensors_io import write_weights


def classifier(pool: str = "mean", norm: str = "fresh", outputs: int = 5) -> Classifier:
    torch.manual_seed(0)
    head = make_head(32, outputs, init_std=0.5)
    return Classifier.of(model(), head, pool=pool, norm=norm).eval()  # type: ignore[arg-type]


def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 1, 16, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("norm", ["fresh", "pretrained"])
def test_a_norm_stands_behind_the_pooling(pool: str, norm: str) -> None:
    one = classifier(pool, norm)
    backbone = one.backbone
    chosen = backbone.norm if norm == "pretrained" else one.fc_norm  # type: ignore[attr-defined]
    torch.nn.init.normal_(chosen.weight)
    torch.nn.init.normal_(chosen.bias)
    mask = Mask.nothing_hidden(2, 6)
    last = backbone(pixels(), mask, layers=(2,)).layers[0]
    pooled = last[:, 0] if pool == "cls" else last[:, 1:].mean(1)
    expected = torch.nn.functional.layer_norm(pooled, (32,), chosen.weight, chosen.bias, 1e-6)
    torch.testing.assert_close(one.features(pixels()), expected)
    linear = one.head.linear  # type: ignore[union-attr]
    torch.testing.assert_close(one(pixels()), expected @ linear.weight.T + linear.bias)


@torch.no_grad()
def test_the_same_weights_in_timms_vit_give_the_same_logits() -> None:
    """timm's global_pool="avg" is MAE's: mean over patches, fc_norm, head."""
    import timm

    one = classifier()
    other = timm.models.vision_transformer.VisionTransformer(
        img_size=(16, 24), patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=5,
        global_pool="avg",
    ).eval()  # fmt: skip
    ours = one.state_dict()
    names = {
        "cls_token": "backbone.class_token",
        "pos_embed": "backbone.positions.table",
        "patch_embed.proj.bias": "backbone.patch_embed.bias",
        "fc_norm.weight": "fc_norm.weight",
        "fc_norm.bias": "fc_norm.bias",
        "head.weight": "head.linear.weight",
        "head.bias": "head.linear.bias",
    }
    theirs = {
        name: ours[names.get(name, f"backbone.{name.replace('blocks', 'transformer')}")]
        if name != "patch_embed.proj.weight"
        else ours["backbone.patch_embed.weight"][:, :, 0]
        for name in other.state_dict()
    }
    other.load_state_dict(theirs)
    torch.testing.assert_close(one(pixels()), other(pixels()[:, :, 0]), rtol=1e-4, atol=1e-5)


def test_heads_are_initialized_as_the_papers_say() -> None:
    torch.manual_seed(0)
    for head, std in (
        (make_head(400, 500), 2e-5),
        (make_head(400, 500, init_scale=0.001), 2e-5),
        (make_head(400, 500, init_std=0.01), 0.01),
        (make_head(400, 500, init_scale=0.5), 0.01),
    ):
        assert float(head.linear.weight.detach().std()) == pytest.approx(std, rel=0.02)  # type: ignore[operator,union-attr]
        assert not head.linear.bias.any()  # type: ignore[operator,union-attr]
    probe = make_head(4, 2, batch_norm=True)
    batch = torch.randn(64, 4) * 3 + 1
    normed = probe.batch_norm(batch)  # type: ignore[operator]
    expected = (batch - batch.mean(0)) / (batch.var(0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(normed, expected)
    assert not list(probe.batch_norm.parameters())  # type: ignore[operator,union-attr]


def test_what_an_encoder_has_not_cannot_be_asked_of_it() -> None:
    encoder = model(class_token=False)
    with pytest.raises(PartError, match="no class token"):
        Classifier.of(encoder, make_head(32, 2), pool="cls", norm="fresh")
    encoder.backbone.last_norm = lambda: None  # type: ignore[method-assign]
    with pytest.raises(PartError, match="no last norm"):
        Classifier.of(encoder, make_head(32, 2), pool="mean", norm="pretrained")


@torch.no_grad()
def test_a_file_brings_the_classifier_back_and_its_encoder_alone(tmp_path: Path) -> None:
    one = classifier()
    described = header().model_copy(
        update={
            "classifier": ClassifierHeader(
                kind="multiclass", outputs=tuple("abcde"), pool="mean", norm="fresh"
            )
        }
    )
    path = tmp_path / "weights.safetensors"
    write_weights(path, classifier_tensors(one), described)
    found, found_header = maekit.load_classifier(path)
    assert torch.equal(found(pixels()), one(pixels()))
    assert found_header.classifier is not None
    assert found_header.classifier.outputs == tuple("abcde")
    encoder = maekit.load(path)
    mask = Mask.nothing_hidden(2, 6)
    assert torch.equal(encoder.encode(pixels()), one.backbone(pixels(), mask).tokens)
    write_weights(path, classifier_tensors(one), header())
    with pytest.raises(WeightsError, match="no classifier"):
        maekit.load_classifier(path)


def trained(one: Classifier) -> set[str]:
    return {name for name, parameter in one.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("norm", ["fresh", "pretrained"])
def test_partial_fine_tuning_trains_what_it_says(norm: str) -> None:
    def names(blocks: object) -> set[str]:
        one = classifier(norm=norm)
        one.frozen = freeze(one, blocks)  # type: ignore[arg-type]
        return trained(one)

    head = {"head.linear.weight", "head.linear.bias"}
    fresh = {"fc_norm.weight", "fc_norm.bias"} if norm == "fresh" else set()
    own = {"backbone.norm.weight", "backbone.norm.bias"} if norm == "pretrained" else set()
    assert names(0) == head | fresh
    half = {name for name in names("half") if "transformer" in name}
    assert names("half") - half == head | fresh | own
    assert half == {
        f"backbone.transformer.2.{name}.{kind}"
        for name in ("norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    two = names(2)
    assert {name.split(".")[2] for name in two if "transformer" in name} == {"1", "2"}
    everything = names("all")
    assert "backbone.patch_embed.weight" in everything
    assert ("backbone.norm.weight" in everything) == (norm == "pretrained")
    with pytest.raises(PartError, match="the encoder has 3"):
        names(4)


def test_frozen_blocks_drop_no_paths() -> None:
    torch.manual_seed(0)
    encoder = model(drop_path=0.9)
    one = Classifier.of(encoder, make_head(32, 2), pool="mean", norm="fresh")
    one.frozen = freeze(one, 0)
    one.train()
    assert torch.equal(one(pixels()), one(pixels()))
    assert one.head.training


def test_paths_are_dropped_by_sample_and_keep_the_mean() -> None:
    drop = DropPath(0.25)
    branch = torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    out = drop(branch)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (out == out[:, :1, :1]).all()
    assert float(out.mean()) == pytest.approx(1, abs=0.03)
    assert drop.eval()(branch) is branch
    rates = [block.drop_path.rate for block in model(drop_path=0.3).backbone.blocks()]  # type: ignore[union-attr]
    assert rates == pytest.approx(torch.linspace(0, 0.3, 3).tolist())


@pytest.mark.parametrize("kind", ["sincos-1d", "sincos-2d", "learned", "learned-separable"])
def test_positions_are_trained_or_not_and_stay_where_they_are(kind: str) -> None:
    positions = Positions(kind, Grid(2, 2, 3), 8, prefix=1)  # type: ignore[arg-type]
    before = positions().detach().clone()
    positions.train_rows(True)
    assert torch.equal(positions(), before)
    assert all(parameter.requires_grad for parameter in positions.parameters())
    assert list(positions.parameters())
    assert positions.kind == ("learned" if kind == "sincos-1d" else kind)
    if positions.table is not None:
        again = Positions(positions.kind, Grid(2, 2, 3), 8, prefix=1)
        again.load_state_dict(positions.state_dict())
        assert torch.equal(again(), before)
    positions.train_rows(False)
    assert not any(parameter.requires_grad for parameter in positions.parameters())
