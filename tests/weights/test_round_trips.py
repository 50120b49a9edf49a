"""Weights out and in again, bit for bit, and loaded by the code that they are written for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from official import TINY, TINY_DECODER, State, mae, videomae

from maekit.engine.build import build_model, load_model, require_whole
from maekit.errors import WeightsError
from maekit.recipe.schema import TargetSpec
from maekit.registry import spec_of
from maekit.weights.export import Exporter, export_mae, export_maekit, export_videomae
from maekit.weights.export_hf import export_hf
from maekit.weights.export_timm import export_timm
from maekit.weights.header import Header
from maekit.weights.hints import UserHints
from maekit.weights.importer import Weights, open_weights
from maekit.weights.safetensors_io import model_tensors, write_weights

MAE_HEADER = Header(
    backbone={"name": "image-vit", "width": 48, "depth": 2, "heads": 4, "patch": 8},
    decoder={"name": "vit", "width": 32, "depth": 2, "heads": 2},
    target={"name": "norm-pixel"},
    masker={"name": "random", "ratio": 0.75},
    clip=(1, 32, 32), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
)  # fmt: skip
VIDEO_HEADER = Header(
    backbone={"name": "video-vit", "width": 48, "depth": 2, "heads": 4, "patch": [2, 8, 8]},
    decoder={
        "name": "vit", "width": 32, "depth": 2, "heads": 2, "qkv_bias": "qv", "embed_bias": False,
    },
    target={"name": "norm-pixel", "space": "unit", "statistics": "per-channel", "eps": "outside"},
    clip=(4, 16, 24), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
)  # fmt: skip
ENCODER_ONLY = {"decoder": None, "target": None}


def written(header: Header, folder: Path) -> Weights:
    """Build a model with no zeros and ones left in it, as maekit's own file."""
    model = build_model(header)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.15)
    path = folder / "own.safetensors"
    write_weights(path, model_tensors(model), header)
    return require_whole(open_weights(path))


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], t) for n, t in other.items())


@pytest.mark.parametrize(
    ("state", "write", "clip"),
    [
        (mae(**TINY, **TINY_DECODER), export_mae, None),
        (mae(**TINY), export_mae, None),
        (videomae(**TINY, **TINY_DECODER), export_videomae, (4, 16, 24)),
    ],
)
def test_official_to_maekit_to_official(
    state: State, write: Exporter, clip: tuple[int, int, int] | None, tmp_path: Path
) -> None:
    torch.save({"model": state}, tmp_path / "in.pth")
    given = UserHints(heads=4, decoder_heads=2, clip=clip)
    weights = require_whole(open_weights(tmp_path / "in.pth", user_hints=given))
    export_maekit(weights, tmp_path / "own.safetensors")
    write(open_weights(tmp_path / "own.safetensors"), tmp_path / "out.pth")
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(back) == ["model"]
    assert same(back["model"], state)


@pytest.mark.parametrize("header", [MAE_HEADER, VIDEO_HEADER], ids=["image", "video"])
@pytest.mark.parametrize("parts", [{}, ENCODER_ONLY], ids=["full", "encoder"])
@pytest.mark.parametrize("through", [False, True], ids=["file", "transformers"])
def test_maekit_to_transformers_and_back(
    header: Header, parts: dict[str, Any], through: bool, tmp_path: Path
) -> None:
    import transformers

    weights = written(header.model_copy(update=parts), tmp_path)
    note = export_hf(weights, tmp_path / "hf").notes[-1]
    if through:
        kind = getattr(transformers, note.split(".")[1])
        model, found = kind.from_pretrained(tmp_path / "hf", output_loading_info=True)
        assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        model.save_pretrained(tmp_path / "again")
        back = open_weights(f"hf:{tmp_path / 'again'}")
    else:
        back = open_weights(tmp_path / "hf")
        assert (back.header.mean, back.header.std) == (header.mean, header.std)
    assert same(back.tensors, weights.tensors)
    assert back.header.clip == header.clip
    assert not any("layer_norm_eps" in note for note in back.report.notes)
    before, after = load_model(weights)[0], load_model(back)[0]
    pixels = torch.randn(2, 3, *header.clip)
    assert torch.equal(before.encode(pixels), after.encode(pixels))


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_transformers_sees_the_same_picture_and_target(norm_pixels: bool, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, ViTMAEForPreTraining

    target = spec_of(TargetSpec, {"name": "norm-pixel" if norm_pixels else "pixel"})
    weights = written(MAE_HEADER.model_copy(update={"target": target}), tmp_path)
    export_hf(weights, tmp_path / "hf")
    theirs: Any = ViTMAEForPreTraining.from_pretrained(tmp_path / "hf").eval()
    ours, _ = load_model(weights)
    pixels = torch.randn(2, 3, 32, 32)
    noise = torch.rand(2, 16)
    hidden = noise.argsort(1).argsort(1) >= 4
    expected = theirs(pixels, noise=noise)
    out = ours(pixels.unsqueeze(2), hidden)
    torch.testing.assert_close(out.loss, expected.loss, atol=1e-5, rtol=1e-5)
    predicted = expected.logits[hidden].reshape(2, 12, -1)
    torch.testing.assert_close(out.pred, predicted, atol=1e-5, rtol=1e-5)
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert tuple(processor.image_mean) == MAE_HEADER.mean


def test_transformers_keeps_the_biases_of_videomae(tmp_path: Path) -> None:
    """transformers#48675: its version 5 can load them as zeros, with no error."""
    from transformers import AutoImageProcessor, VideoMAEForPreTraining, VideoMAEModel

    weights = written(VIDEO_HEADER, tmp_path)
    export_hf(weights, tmp_path / "hf")
    ours, _ = load_model(weights)
    pixels = torch.randn(2, 3, *VIDEO_HEADER.clip)
    whole: Any = VideoMAEForPreTraining.from_pretrained(tmp_path / "hf").eval()
    whole.decoder.norm.eps = 1e-6
    hidden = torch.rand(2, 12).argsort(1).argsort(1) >= 4
    predicted = whole(pixels.transpose(1, 2), bool_masked_pos=hidden).logits
    torch.testing.assert_close(ours(pixels, hidden).pred, predicted, atol=1e-5, rtol=1e-5)
    encoder: Any = VideoMAEModel.from_pretrained(tmp_path / "hf").eval()
    features = encoder(pixels.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(ours.encode(pixels), features, atol=1e-5, rtol=1e-5)
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert tuple(processor.image_std) == VIDEO_HEADER.std


@pytest.mark.parametrize("spelling", ["modules", "saved"])
@pytest.mark.parametrize("video", [False, True])
def test_reading_every_spelling_of_transformers(spelling: str, video: bool, tmp_path: Path) -> None:
    """Modules' own keys and save_pretrained's; the old files' are those that maekit writes."""
    from transformers import VideoMAEForPreTraining, ViTMAEForPreTraining

    weights = written(VIDEO_HEADER if video else MAE_HEADER, tmp_path)
    export_hf(weights, tmp_path / "hf")
    kind: Any = VideoMAEForPreTraining if video else ViTMAEForPreTraining
    theirs = kind.from_pretrained(tmp_path / "hf").eval()
    given = UserHints("norm-pixel", 4, 2, VIDEO_HEADER.clip if video else None)
    if spelling == "modules":
        path = tmp_path / "modules" / "pytorch_model.bin"
        path.parent.mkdir()
        torch.save(theirs.state_dict(), path)
        shutil.copy(tmp_path / "hf" / "config.json", path.parent)
        back = open_weights(path, user_hints=given)
    else:
        theirs.save_pretrained(tmp_path / "saved", max_shard_size="60KB")
        assert (tmp_path / "saved" / "model.safetensors.index.json").is_file()
        back = open_weights(tmp_path / "saved")
    assert same(back.tensors, weights.tensors)
    ours, _ = load_model(back)
    pixels = torch.randn(2, 3, *back.header.clip)
    if video:
        features = theirs.videomae(pixels.transpose(1, 2)).last_hidden_state
    else:
        theirs.vit.embeddings.config.mask_ratio = 0.0
        order = torch.arange(16.0).expand(2, 16)  # theirs shuffles by noise also when all is kept
        features = theirs.vit(pixels[:, :, 0], noise=order).last_hidden_state
    torch.testing.assert_close(ours.encode(pixels), features, atol=1e-5, rtol=1e-5)


def test_the_small_video_model_of_transformers_must_be_told_its_heads(tmp_path: Path) -> None:
    """Its converter wrote 16 heads where MCG-NJU's model has 6: the weights load either way."""
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(
        hidden_size=384, num_hidden_layers=1, num_attention_heads=16, intermediate_size=1536,
        use_mean_pooling=False, layer_norm_eps=1e-6,
    )  # fmt: skip
    VideoMAEModel(config).save_pretrained(tmp_path / "small")
    with pytest.raises(WeightsError, match="--heads 6") as caught:
        open_weights(tmp_path / "small")
    assert "25868" in str(caught.value)
    told = open_weights(tmp_path / "small", user_hints=UserHints(heads=6))
    assert told.header.backbone.written["heads"] == 6


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"clip": (1, 24, 40), "channels": 2, "mean": (0.0, 0.0), "std": (1.0, 1.0)},
        {"backbone": {"name": "image-vit", "size": "tiny"}, "clip": (1, 224, 224)},
    ],
    ids=["other sizes", "not square", "named"],
)
def test_timm_loads_the_encoder_as_it_is_told(
    suffix: str, change: dict[str, Any], tmp_path: Path
) -> None:
    import timm

    header = Header.model_validate(MAE_HEADER.model_dump() | change)
    weights = written(header, tmp_path)
    path = tmp_path / f"encoder{suffix}"
    notes = export_timm(weights, path).notes
    call = notes[-1].removeprefix("load it: ")
    theirs: Any = eval(call, {"timm": timm}).eval()  # what a user pastes
    ours, _ = load_model(weights)
    state = theirs.state_dict()
    assert torch.equal(state["pos_embed"], weights.tensors["backbone.positions.table"])
    assert torch.equal(
        state["blocks.1.attn.qkv.bias"], weights.tensors["backbone.transformer.1.attn.qkv.bias"]
    )
    assert len(state) == sum(name.startswith("backbone.") for name in weights.tensors)
    pixels = torch.randn(2, header.channels, *header.clip[1:])
    features = theirs.forward_features(pixels)
    torch.testing.assert_close(ours.encode(pixels[:, :, None]), features, atol=1e-5, rtol=1e-5)
    named = "vit_tiny_patch16_224', num_classes=0, check" in call
    assert named == (header.clip == (1, 224, 224))
    if not change:
        given = UserHints(heads=4)
        back = open_weights(path, user_hints=given).tensors
        assert same(back, {k: v for k, v in weights.tensors.items() if "backbone" in k})


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vit_wee_patch16_reg1_gap_256", 256),  # its norm stands behind the pooling
        ("eva02_tiny_patch14_224", 224),
        ("convnext_atto", 64),  # it has a norm in its head
    ],
)
def test_timm_loads_its_own_models_of_a_run(name: str, side: int, tmp_path: Path) -> None:
    """As it is told, with features equal to the run's."""
    import timm

    header = Header(
        backbone={"name": "timm-vit", "model": name}, clip=(1, side, side), channels=2,
        mean=(0.0, 0.0), std=(1.0, 1.0),
    )  # fmt: skip
    weights = written(header, tmp_path)
    path = tmp_path / "encoder.safetensors"
    notes = export_timm(weights, path).notes
    told = notes[-1].removeprefix("load it: ")
    assert ("strict=False" in told) == (name == "convnext_atto")
    assert ("head.norm.weight" in notes[0]) == (name == "convnext_atto")
    pasted: dict[str, Any] = {"timm": timm}
    exec(told if told.startswith("model = ") else f"model = {told}", pasted)
    theirs = pasted["model"].eval()
    ours, _ = load_model(weights)
    pixels = torch.randn(1, 2, side, side)
    with torch.no_grad():
        features = theirs.forward_features(pixels)
        if features.ndim == 4:
            features = features.flatten(2).transpose(1, 2)
        torch.testing.assert_close(ours.encode(pixels[:, :, None]), features, atol=1e-5, rtol=1e-5)


def changed(header: Header, part: str, **options: Any) -> Header:
    spec = getattr(header, part)
    return header.model_copy(update={part: spec_of(type(spec), spec.written | options)})


REFUSED: list[tuple[Exporter, Header, tuple[str, ...]]] = [
    (export_mae, VIDEO_HEADER, ("image-vit", "video-vit")),
    (export_videomae, MAE_HEADER, ("video-vit", "image-vit")),
    (export_timm, VIDEO_HEADER, ("class token and one frame", "video-vit")),
    (
        export_mae,
        changed(MAE_HEADER, "backbone", class_token=False, mask_token=True),
        ("backbone.class_token False", "backbone.mask_token True"),
    ),
    (export_mae, changed(MAE_HEADER, "decoder", positions="sincos-3d"), ("sincos-3d",)),
    (
        export_videomae,
        changed(VIDEO_HEADER, "backbone", positions="sincos-3d", class_token=True),
        ("backbone.class_token True", "backbone.positions sincos-3d"),
    ),
    (export_hf, changed(VIDEO_HEADER, "decoder", embed_bias=True), ("decoder.embed_bias True",)),
    (export_hf, MAE_HEADER.model_copy(update={"clip": (1, 32, 40)}), ("square", "32x40")),
    (export_hf, changed(MAE_HEADER, "backbone", patch=[8, 4]), ("square", "8x4")),
    (export_hf, changed(MAE_HEADER, "target", loss="l1"), ("no such target", "loss l1")),
    (export_hf, changed(MAE_HEADER, "target", eps="outside"), ("no such target", "outside")),
]


@pytest.mark.parametrize(("write", "header", "words"), REFUSED)
def test_what_a_format_cannot_hold_is_named(
    write: Exporter, header: Header, words: tuple[str, ...], tmp_path: Path
) -> None:
    weights = written(header, tmp_path)
    with pytest.raises(WeightsError) as caught:
        write(weights, tmp_path / "out")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()
