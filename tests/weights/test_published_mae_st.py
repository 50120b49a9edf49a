"""The models that mae_st published: PySlowFast's keys, its decoder, its target."""

from __future__ import annotations

from pathlib import Path

import numerics
import pytest
import torch
from official import TINY, TINY_DECODER, hollow, slowfast
from paper_reference import KINETICS, blocks, embedded, layer_norm, linear, normalized
from torch import Tensor

from maekit.engine.build import load_model, require_whole
from maekit.errors import WeightsError
from maekit.weights.export import export_maekit
from maekit.weights.hints import UserHints
from maekit.weights.importer import Weights, open_weights

HINTS = UserHints("norm-pixel", 4, 2)


def opened(state: dict[str, Tensor], path: Path, hints: UserHints = HINTS) -> Weights:
    kept = {"epoch": 100, "model_state": state, "optimizer_state": {}, "cfg": "TASK: ssl\n"}
    torch.save(kept, path)
    return require_whole(open_weights(path, user_hints=hints))


def test_a_published_size(tmp_path: Path) -> None:
    """ViT-L, whose decoder of 512 values has 8 heads: head_helper.py, one for each 64."""
    state = slowfast(1024, 24, 16, hollow, decoder_width=512, decoder_depth=4)
    state["pos_embed_spatial"] = hollow(1, 196, 1024)
    state["dec_pos_embed_spatial"] = hollow(1, 196, 512)
    weights = opened(state, tmp_path / "k400.pyth", UserHints())
    assert weights.report.matched == len(state)
    header = weights.header
    assert header.backbone.written["size"] == "large"
    assert header.decoder is not None
    written = header.decoder.written
    assert (written["heads"], written["depth"], written["class_token"]) == (8, 4, False)
    assert header.clip == (16, 224, 224)
    assert header.target is None
    assert "--target norm-pixel" in "".join(weights.report.notes)


def decoded(visible: list[int], latent: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Predict every token: masked.py, _mae_forward_decoder."""
    x = linear(latent, state, "decoder_embed")
    space, time = state["dec_pos_embed_spatial"], state["dec_pos_embed_temporal"]
    places = torch.cat([space + time[:, slot : slot + 1] for slot in range(time.shape[1])], 1)
    whole = state["mask_token"].expand(len(x), places.shape[1], -1).clone()
    whole[:, visible] = x[:, 1:]
    x = torch.cat([x[:, :1] + state["dec_pos_embed_class"], whole + places], 1)
    x = blocks(x, state, "pred_head.transforms.0", 2)
    x = layer_norm(x, state, "pred_head.transforms.0.2")
    return linear(x[:, 1:], state, "pred_head.projections.0")


@torch.no_grad()
def test_prediction_and_loss_are_pyslowfasts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = slowfast(**TINY, **TINY_DECODER)
    model, _ = load_model(opened(state, tmp_path / "published.pyth"))
    pixels = torch.rand(2, 3, 16, 32, 32)
    hidden = torch.rand(128).argsort() >= 13
    visible = torch.arange(128)[~hidden].tolist()
    out = model(model.normalize(pixels), hidden.expand(2, -1))
    double = {name: tensor.double() for name, tensor in state.items()}
    clip = normalized(pixels, KINETICS)
    tokens = embedded(clip, double)[:, [0, *(1 + token for token in visible)]]
    latent = layer_norm(blocks(tokens, double, "blocks", 4), double, "norm")
    pred = decoded(visible, latent, double)[:, hidden]
    terms = numerics.vit_terms(384, 48, 2, 14) + numerics.vit_terms(48, 32, 2, 129) + 32
    numerics.close(out.pred, pred, terms=terms)
    # Of every second frame, patch by patch, normalized by its own unbiased variance.
    frames = clip[:, :, ::2].unfold(3, 8, 8).unfold(4, 8, 8)
    truth = frames.permute(0, 2, 3, 4, 5, 6, 1).flatten(4).flatten(1, 3)[:, hidden]
    mean, var = truth.mean(-1, keepdim=True), truth.var(-1, keepdim=True)
    loss = (pred - (truth - mean) / (var + 1e-6).sqrt()).square().mean()
    numerics.close(out.loss, loss, terms=terms)


def test_there_and_back_in_our_own_file(tmp_path: Path) -> None:
    """A target that was left out can still be given to the converted file."""
    state = slowfast(**TINY, **TINY_DECODER)
    weights = opened(state, tmp_path / "published.pyth", UserHints(None, 4, 2))
    export_maekit(weights, tmp_path / "own.safetensors")
    own = open_weights(tmp_path / "own.safetensors", user_hints=UserHints("norm-pixel"))
    assert own.header.target is not None
    assert own.header.target.written["frames"] == "first"
    load_model(own)


@pytest.mark.parametrize(
    "key", ["pred_head.transforms.0.2.bias", "pred_head.transforms.0.0.attn.k.bias",
            "dec_pos_embed_class", "pred_head.projections.0.weight", "pos_embed_class"],
)  # fmt: skip
def test_one_key_off(key: str, tmp_path: Path) -> None:
    state = slowfast(**TINY, **TINY_DECODER)
    state[key.replace("0", "7", 1) if "0" in key else f"x{key}"] = state.pop(key)
    with pytest.raises(WeightsError) as caught:
        opened(state, tmp_path / "published.pyth")
    assert key in str(caught.value)
