"""Official fine-tuned models and linear probes: their keys, their logits, the way back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numerics
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official import (
    TINY,
    TINY_DECODER,
    State,
    deepspeed_checkpoint,
    encoder_of,
    mae,
    mae_st,
    training_checkpoint,
    tuned,
    videomae_checkpoint,
    videomae_encoder,
)
from paper_reference import IMAGENET, KINETICS, logits

from maekit.engine.build import load_model, require_whole
from maekit.errors import RecipeError, WeightsError
from maekit.evaluate.classifier import load_classifier
from maekit.weights.export import (
    Exporter,
    export_mae,
    export_maekit,
    export_videomae,
)
from maekit.weights.export_timm import export_timm
from maekit.weights.foreign import ForeignCheckpoint
from maekit.weights.hints import UserHints
from maekit.weights.importer import Weights, open_weights, read_foreign

HEADS, CLASSES, WIDTH, DEPTH, PATCH = 4, 7, 48, 2, 8
HINTS = UserHints(heads=HEADS)
CLIP = UserHints(heads=HEADS, clip=(4, 32, 32))


# ---- The files ----


class Case(NamedTuple):
    """An official model: its tensors, and what they mean."""

    state: State
    pool: str
    statistics: Any = IMAGENET
    hints: UserHints = HINTS
    shape: tuple[int, ...] = (2, 3, 1, 32, 32)


torch.manual_seed(0)
_VIDEO = (2, 3, 4, 32, 32)
_ST = encoder_of(mae_st(**TINY, **TINY_DECODER))
_ST["pos_embed_temporal"] = _ST["pos_embed_temporal"][:, :2]
CASES = {
    "mae, mean": Case(tuned(mae(**TINY), CLASSES, fc_norm=True), "mean"),
    "mae, cls": Case(tuned(mae(**TINY), CLASSES, fc_norm=False), "cls"),
    "mae probe": Case(tuned(mae(**TINY), CLASSES, fc_norm=False, probe=True), "cls"),
    "mae probe, mean": Case(tuned(mae(**TINY), CLASSES, fc_norm=True, probe=True), "mean"),
    "videomae": Case(
        tuned(videomae_encoder(**TINY), CLASSES, fc_norm=True), "mean", IMAGENET, CLIP, _VIDEO
    ),
    "mae_st": Case(tuned(_ST, CLASSES, fc_norm=False), "mean", KINETICS, CLIP, _VIDEO),
}
WRAPPERS: dict[str, Callable[..., Any]] = {
    "mae": training_checkpoint,
    "videomae": videomae_checkpoint,
    "deepspeed": deepspeed_checkpoint,
    "bare": lambda state, **_: state,
    "compiled": lambda state, **_: {"module": {f"_orig_mod.{k}": v for k, v in state.items()}},
}


def opened(case: Case, path: Path, wrapper: str = "bare", **args: Any) -> Weights:
    torch.save(WRAPPERS[wrapper](case.state, **args), path)
    return require_whole(open_weights(path, user_hints=case.hints))


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_official_ones(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    weights = opened(case, tmp_path / "tuned.pth")
    assert weights.report.matched == len(case.state)
    model, header = load_classifier(weights)
    pixels = torch.rand(case.shape)
    expected = logits(pixels, case.state, case.statistics, pool=case.pool, heads=HEADS)
    assert expected.std() > 0.1
    terms = numerics.vit_terms(3 * 2 * PATCH**2, WIDTH, DEPTH, 33) + 2 * WIDTH
    numerics.close(model(model.normalize(pixels)), expected, terms=terms)
    assert header.classifier is not None
    assert header.classifier.outputs == tuple("0123456")
    assert header.decoder is None


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["mae, mean", "mae probe", "videomae"])
def test_what_trainings_put_beside_the_weights(wrapper: str, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    args = {"fc_drop_rate": 0.5, "nb_classes": CLASSES, "log_dir": tmp_path}
    weights = opened(case, tmp_path / "tuned.pth", wrapper, **args)
    plain = opened(case, tmp_path / "plain.pth")
    assert weights.tensors.keys() == plain.tensors.keys()
    assert all(torch.equal(weights.tensors[n], t) for n, t in plain.tensors.items())
    described = weights.header.classifier
    assert described is not None
    assert described.dropout == (0.5 if wrapper in {"mae", "videomae", "deepspeed"} else 0.0)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12)
@given(data=st.data())
def test_one_key_off(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    state = dict(case.state)
    key = data.draw(st.sampled_from(sorted(state)))
    tensor = state.pop(key)
    assert is_named(key, refusal(state, case.hints))
    place = data.draw(st.integers(0, len(key)))
    renamed = key[:place] + data.draw(st.sampled_from("xq7")) + key[place:]
    if renamed in case.state:
        return
    state[renamed] = tensor
    assert is_named(key, refusal(state, case.hints))


def refusal(state: State, hints: UserHints) -> str:
    with pytest.raises(WeightsError) as caught:
        read_foreign(ForeignCheckpoint(state, "weights"), hints)
    assert caught.value.exit_code == 3
    return str(caught.value)


def is_named(key: str, message: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]|$)", f"{message} ") is not None


@torch.no_grad()
@pytest.mark.parametrize("name", ["mae, mean", "videomae"])
def test_the_encoder_alone_ends_in_the_norm_that_was_trained(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, _ = load_model(opened(case, tmp_path / "tuned.pth"))
    norm: Any = model.backbone.last_norm()
    assert torch.equal(norm.weight, case.state["fc_norm.weight"])
    assert torch.equal(norm.bias, case.state["fc_norm.bias"])


def test_names_of_classes_are_the_users(tmp_path: Path) -> None:
    path = tmp_path / "tuned.pth"
    torch.save({"model": CASES["mae, cls"].state}, path)
    names = tuple(f"n{number}" for number in range(CLASSES))
    weights = open_weights(path, user_hints=UserHints(heads=HEADS, classes=names))
    assert weights.header.classifier is not None
    assert weights.header.classifier.outputs == names
    for wrong in (names[:-1], (*names[:-1], names[0])):
        with pytest.raises(RecipeError, match="7 outputs"):
            open_weights(path, user_hints=UserHints(heads=HEADS, classes=wrong))
    torch.save(mae(**TINY), path)
    with pytest.raises(RecipeError, match="no whole head"):
        open_weights(path, user_hints=UserHints(heads=HEADS, classes=names))


def test_a_head_of_any_number_of_outputs_takes_no_memory(tmp_path: Path) -> None:
    state = dict(CASES["mae, cls"].state)
    state["head.weight"] = torch.zeros(1, 1).expand(1 << 21, 48)
    state["head.bias"] = torch.zeros(1).expand(1 << 21)
    torch.save({"model": state}, tmp_path / "huge.pth")
    with pytest.raises(WeightsError, match="2,097,152 outputs"):
        open_weights(tmp_path / "huge.pth", user_hints=HINTS)


def test_a_head_that_is_not_whole_is_dropped_only_when_that_is_allowed(tmp_path: Path) -> None:
    case = CASES["mae, mean"]
    state = {f"backbone.{k}" if k[:4] != "head" else k: t for k, t in case.state.items()}
    del state["head.bias"]
    path = tmp_path / "tuned.pth"
    torch.save({"model": state}, path)
    with pytest.raises(WeightsError, match=r"1 missing: head\.bias"):
        open_weights(path, user_hints=HINTS)
    weights = open_weights(path, user_hints=HINTS, allow_missing=["head.*"])
    assert weights.header.classifier is None
    assert "without classifier.head.linear.bias the head is dropped" in str(weights.report.notes)
    model, _ = load_model(require_whole(weights))
    norm: Any = model.backbone.last_norm()
    assert torch.equal(norm.weight, case.state["fc_norm.weight"])


@pytest.mark.parametrize("name", ["mae, mean", "mae probe, mean", "videomae"])
def test_the_norm_of_an_encoder_whose_head_lost_it_starts_afresh(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    state = {key: tensor for key, tensor in case.state.items() if "fc_norm" not in key}
    torch.save({"model": state}, tmp_path / "tuned.pth")
    weights = open_weights(
        tmp_path / "tuned.pth", user_hints=case.hints, allow_missing=["fc_norm.*", "head.*"]
    )
    norms = {"backbone.norm.weight", "backbone.norm.bias"}
    assert weights.header.classifier is None
    assert norms <= weights.fresh
    assert "to start afresh: backbone.norm.bias, backbone.norm.weight" in str(weights.report.notes)
    model, _ = load_model(require_whole(weights))
    norm: Any = model.backbone.last_norm()
    assert torch.equal(norm.weight, torch.ones(48))
    assert torch.equal(norm.bias, torch.zeros(48))


def exported(case: Case, write: Exporter, tmp_path: Path, suffix: str = ".pth") -> Path:
    """To maekit's own file with names, and from there out again."""
    torch.save({"model": case.state}, tmp_path / "in.pth")
    names = tuple(f"class {number}" for number in range(CLASSES))
    hints = dataclasses.replace(case.hints, classes=names)
    read = require_whole(open_weights(tmp_path / "in.pth", user_hints=hints))
    export_maekit(read, tmp_path / "own.safetensors")
    own = require_whole(open_weights(tmp_path / "own.safetensors"))
    assert own.header.classifier is not None
    assert own.header.classifier.outputs == names
    path = tmp_path / f"out{suffix}"
    notes = " ".join(write(own, path).notes)
    assert "classes; keep them" in notes or write is export_timm
    return path


@pytest.mark.parametrize("name", [name for name in CASES if name != "mae_st"])
def test_official_to_maekit_to_official(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    write = export_videomae if name == "videomae" else export_mae
    back = torch.load(exported(case, write, tmp_path))["model"]
    assert back.keys() == case.state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in case.state.items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["mae, mean", "mae, cls"])
def test_timm_computes_the_same_logits(name: str, tmp_path: Path) -> None:
    import timm

    case = CASES[name]
    path = exported(case, export_timm, tmp_path, ".safetensors")
    own, _ = load_classifier(tmp_path / "own.safetensors")
    weights = require_whole(open_weights(tmp_path / "own.safetensors"))
    call = export_timm(weights, path).notes[-1].removeprefix("load it: ")
    theirs: Any = eval(call, {"timm": timm}).eval()  # what a user pastes
    pixels = torch.rand(case.shape)
    terms = numerics.vit_terms(3 * PATCH**2, WIDTH, DEPTH, 17) + WIDTH
    normalized = own.normalize(pixels)
    numerics.close(own(normalized), theirs(normalized[:, :, 0]), terms=terms)


def test_what_has_no_place_elsewhere_is_refused(tmp_path: Path) -> None:
    weights = opened(CASES["mae probe"], tmp_path / "probe.pth")
    with pytest.raises(WeightsError, match="no batch norm before its head"):
        export_timm(weights, tmp_path / "timm.pth")
    described = weights.header.classifier
    assert described is not None
    odd = described.model_copy(update={"pool": "mean"})
    header = weights.header.model_copy(update={"classifier": odd})
    with pytest.raises(WeightsError, match="pool mean, norm pretrained, batch norm"):
        export_mae(dataclasses.replace(weights, header=header), tmp_path / "mae.pth")
