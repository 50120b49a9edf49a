"""Files of the official projects: recognized, complete, and described as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from official import (
    TINY,
    TINY_DECODER,
    State,
    hollow,
    mae,
    mae_st,
    training_checkpoint,
    videomae,
    videomae_encoder,
)
from safetensors.torch import save_file

from maekit.engine.build import load_model, require_whole
from maekit.errors import RecipeError, WeightsError
from maekit.weights.export import export_maekit
from maekit.weights.importer import UserHints, Weights, open_weights

HEADS = UserHints(heads=4, decoder_heads=2)
SIZES = {"base": (768, 12, 16, 197), "large": (1024, 24, 16, 197), "huge": (1280, 32, 14, 257)}
VIDEO_SIZES = {
    "small": (384, 12, 192, 4, 6, 3), "base": (768, 12, 384, 4, 12, 6),
    "large": (1024, 24, 512, 12, 16, 8), "huge": (1280, 32, 640, 12, 16, 8),
}  # fmt: skip


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def opened(state: object, tmp_path: Path, given: UserHints = HEADS) -> Weights:
    return open_weights(saved(state, tmp_path / "weights.pth"), user_hints=given)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("full", [True, False])
def test_mae_at_official_sizes(size: str, full: bool, tmp_path: Path) -> None:
    width, depth, patch, rows = SIZES[size]
    decoder = {"decoder_width": 512, "decoder_depth": 8} if full else {}
    state = mae(width, depth, patch, rows - 1, hollow, **decoder)
    assert len(state) == 6 + 12 * depth + (104 if full else 0)  # 150 and 254 for base
    weights = require_whole(
        opened(training_checkpoint(state, norm_pix_loss=True), tmp_path, UserHints())
    )
    report, header = weights.report, weights.header
    assert report.matched == len(state)
    assert not report.missing
    assert not report.unexpected
    assert "not weights of the model, not read: optimizer, epoch, scaler" in report.notes
    assert header.backbone.written["size"] == size
    assert header.backbone.written["patch"] == patch
    assert header.clip == (1, 224, 224)
    if full:
        assert header.decoder is not None
        assert header.decoder.written["heads"] == 16
        assert header.target.written == {
            "name": "norm-pixel", "space": "normalized", "loss": "mse", "frames": "same",
            "statistics": "joint", "eps": "inside",
        }  # fmt: skip
    else:
        assert header.decoder is None
        assert "no decoder weights in this file" in "".join(report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("size", VIDEO_SIZES)
def test_videomae_at_official_sizes(size: str, tmp_path: Path) -> None:
    width, depth, inner, blocks, heads, decoder_heads = VIDEO_SIZES[size]
    state = videomae(width, depth, 16, hollow, decoder_width=inner, decoder_depth=blocks)
    assert len(state) == 10 + 13 * (depth + blocks)  # 218 for base
    weights = require_whole(opened({"model": state, "epoch": 1}, tmp_path, UserHints("norm-pixel")))
    assert weights.report.matched == len(state)
    header = weights.header
    assert header.backbone.written["size"] == size
    shape: Any = header.backbone.options
    assert shape.shape.heads == heads
    assert header.clip == (16, 224, 224)
    assert header.decoder is not None
    assert header.decoder.written["heads"] == decoder_heads
    assert header.target is not None
    assert (header.target.written["statistics"], header.target.written["eps"]) == (
        "per-channel",
        "outside",
    )


def test_mae_st_with_its_own_decoder_class_token(tmp_path: Path) -> None:
    state = mae_st(1024, 24, 16, 196, hollow, decoder_width=512, decoder_depth=4)
    weights = require_whole(opened({"model_state": state}, tmp_path, UserHints()))
    assert weights.report.matched == len(state)
    header = weights.header
    assert header.clip == (16, 224, 224)
    assert header.target is None
    assert header.out_dim == 768
    assert header.mean == (0.45,) * 3
    assert "target unknown" in "".join(weights.report.notes)


def test_mae_sts_target_is_what_its_arguments_and_its_last_layer_say(tmp_path: Path) -> None:
    state = mae_st(**TINY, **TINY_DECODER)  # one of two frames: 8 of 16
    content = training_checkpoint(state, norm_pix_loss=True, num_frames=16, pred_t_dim=8)
    header = opened(content, tmp_path).header
    assert header.target is not None
    assert header.target.written["frames"] == 8
    assert header.target.written["space"] == "normalized"
    load_model(opened(content, tmp_path))
    both = state | {
        "decoder_pred.weight": torch.zeros(384, 32),
        "decoder_pred.bias": torch.zeros(384),
    }
    told = UserHints(heads=4, decoder_heads=2, target="pixel")
    target = opened(both, tmp_path, told).header.target
    assert target is not None
    assert target.written["frames"] == "same"
    # Own files that were converted without a target learn it in the same words.
    unknown = opened(state, tmp_path)
    own = tmp_path / "own.safetensors"
    export_maekit(unknown, own)
    again = open_weights(own, user_hints=UserHints(target="norm-pixel")).header.target
    assert again is not None
    assert (again.written["frames"], again.written["statistics"]) == (8, "joint")


@pytest.mark.slow
def test_videomae_v2_giant(tmp_path: Path) -> None:
    state = videomae(1408, 40, 14, hollow, decoder_width=512, decoder_depth=4)
    for name, tensor in list(state.items()):
        if name.startswith("encoder.blocks.") and 4 * 1408 in tensor.shape:
            sizes = [6144 if size == 4 * 1408 else size for size in tensor.shape]
            state[name] = hollow(*sizes)
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    weights = require_whole(opened({"module": compiled}, tmp_path, UserHints("norm-pixel")))
    assert weights.report.matched == len(state)
    backbone = weights.header.backbone.written
    assert (backbone["width"], backbone["depth"], backbone["heads"]) == (1408, 40, 16)
    assert int(1408 * backbone["mlp_ratio"]) == 6144


SMALL: dict[str, State] = {
    "mae": mae(**TINY, **TINY_DECODER),
    "mae encoder": mae(**TINY),
    "videomae": videomae(**TINY, **TINY_DECODER),
    "videomae encoder": videomae_encoder(**TINY),
    "mae_st": mae_st(**TINY, **TINY_DECODER),
}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, "module."),
        ("model", "_orig_mod."),
        ("model_state", ""),
        ("module", "module._orig_mod."),
        ("state_dict", "backbone."),
    ],
)
def test_wrappers_and_prefixes(kind: str, prefix: str, wrapper: str | None, tmp_path: Path) -> None:
    plain = opened(SMALL[kind], tmp_path)
    state = {f"{prefix}{name}": tensor for name, tensor in SMALL[kind].items()}
    weights = opened(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path)
    assert weights.report.matched == len(state)
    assert weights.tensors.keys() == plain.tensors.keys()
    assert all(torch.equal(weights.tensors[n], t) for n, t in plain.tensors.items())
    load_model(weights)


def test_safetensors_and_bin_are_told_by_their_content(tmp_path: Path) -> None:
    save_file(SMALL["mae"], tmp_path / "wrongly.pth")
    torch.save(SMALL["mae"], tmp_path / "wrongly.safetensors", _use_new_zipfile_serialization=False)
    for name in ("wrongly.pth", "wrongly.safetensors"):
        assert open_weights(tmp_path / name, user_hints=HEADS).report.matched == len(SMALL["mae"])


def test_an_encoder_prefix_is_the_encoder(tmp_path: Path) -> None:
    state = {f"encoder.{name}": tensor for name, tensor in SMALL["videomae encoder"].items()}
    assert opened(state, tmp_path).header.decoder is None


def test_moco_v3_gives_its_base_encoder(tmp_path: Path) -> None:
    base, momentum = mae(**TINY), mae(**TINY)
    heads = {"head.0.weight": torch.ones(8, 48), "head.1.running_mean": torch.ones(8)}
    state = {f"module.base_encoder.{k}": v for k, v in (base | heads).items()}
    state |= {f"module.momentum_encoder.{k}": v for k, v in (momentum | heads).items()}
    state |= {"module.predictor.0.weight": torch.ones(8, 8)}
    weights = opened({"state_dict": state, "arch": "vit_base"}, tmp_path)
    assert torch.equal(weights.tensors["backbone.class_token"], base["cls_token"])
    aside = "\n".join(weights.report.aside)
    assert "base encoder is taken" in aside
    assert "2 tensors, the projection head" in aside
    assert f"{len(momentum) + 3} tensors, the other copy" in aside


def test_what_no_key_tells_must_be_given(tmp_path: Path) -> None:
    def refused(state: State, given: UserHints, kind: type[Exception], *words: str) -> None:
        with pytest.raises(kind) as caught:
            opened(state, tmp_path, given)
        for word in words:
            assert word in str(caught.value)

    refused(SMALL["mae"], UserHints(), WeightsError, "width 48", "--heads N")
    refused(SMALL["mae"], UserHints(heads=4), WeightsError, "width 32", "--decoder-heads N")
    refused(mae(**TINY, tokens=15), HEADS, WeightsError, "15 positions", "--clip")
    wrong = UserHints(heads=4, clip=(1, 32, 40))
    refused(SMALL["mae encoder"], wrong, WeightsError, "1x32x40", "1x4x5", "16 patches")
    target = UserHints("pixel", 4)
    refused(SMALL["mae encoder"], target, RecipeError, "no decoder weights in this file")
    refused(SMALL["mae"], UserHints("pca", 4, 2), RecipeError, "pca", "norm-pixel")
    oblong = opened(mae(**TINY, tokens=15), tmp_path, UserHints(heads=4, clip=(1, 24, 40)))
    assert oblong.header.grid == (1, 3, 5)
    assert "a square grid is taken" in "".join(opened(SMALL["mae"], tmp_path).report.notes)


def test_an_unknown_target_is_said_and_met_again_where_it_is_needed(tmp_path: Path) -> None:
    weights = opened(SMALL["mae"], tmp_path)
    assert weights.header.target is None
    notes = "".join(weights.report.notes)
    assert "--target norm-pixel for mae_pretrain_*_full.pth" in notes
    assert "--target pixel for mae_visualize_*.pth" in notes
    model, _ = load_model(weights)
    pixels = torch.zeros(1, 3, 1, 32, 32)
    hidden = torch.arange(16)[None] >= 4
    assert model(pixels, hidden).pred.shape == (1, 12, 192)
    with pytest.raises(WeightsError, match="--target"):
        model.paint(pixels, _mask(hidden))
    alone, _ = load_model(opened(SMALL["mae encoder"], tmp_path))
    with pytest.raises(WeightsError, match="no decoder weights in this file"):
        alone(pixels, hidden)


def _mask(hidden: torch.Tensor) -> Any:
    from maekit.tokens import Mask

    return Mask.build(hidden)


def test_the_fixed_table_is_known_again(tmp_path: Path) -> None:
    from maekit.grid import Grid
    from maekit.layers import sincos_2d

    state = dict(SMALL["mae encoder"])
    state["pos_embed"] = torch.cat([torch.zeros(1, 48), sincos_2d(Grid(1, 4, 4), 48)])[None]
    assert opened(state, tmp_path).header.backbone.written["positions"] == "sincos-2d"
    state["pos_embed"] = state["pos_embed"] + 1e-3
    assert opened(state, tmp_path).header.backbone.written["positions"] == "learned"


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    dalle = {"blocks.input.w": torch.ones(1), "blocks.output.conv.w": torch.ones(1)}
    dalle |= {"blocks.group_1.block_1.id_path.w": torch.ones(1)}
    with pytest.raises(WeightsError, match="DALL-E's encoder"):
        opened(dalle, tmp_path)
    with pytest.raises(WeightsError, match=r"no known model.*conv1"):
        opened({"conv1": torch.ones(1), "fc": torch.ones(1)}, tmp_path)
    with pytest.raises(WeightsError, match="no state dict in this file: it holds epoch"):
        opened({"epoch": 1}, tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch hacked",)


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_runs_code_is_refused_by_the_name_of_its_class(
    archive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = SMALL["mae encoder"] | {"x": Evil()}
    torch.save({"model": state}, "evil.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(WeightsError, match=r"would call (posix|nt)\.system") as caught:
        open_weights("evil.pth")
    assert caught.value.exit_code == 3
    assert not Path("hacked").exists()


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    text = tmp_path / "readme.pth"
    text.write_text("hello")
    cut = tmp_path / "cut.pth"
    torch.save(SMALL["mae"], cut)
    cut.write_bytes(cut.read_bytes()[:-2000])
    for path in (text, cut):
        with pytest.raises(WeightsError):
            open_weights(path)
    with pytest.raises(RecipeError):
        open_weights(tmp_path / "absent.pth")
    with pytest.raises(RecipeError):
        open_weights(f"hf:{tmp_path / 'absent'}")
