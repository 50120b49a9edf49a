"""Files with several models: the usual one is taken, or the one that is named, never a guess."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from official import TINY, TINY_DECODER, State, mae, training_checkpoint, videomae_encoder
from safetensors.torch import save_file

from maekit.errors import RecipeError, WeightsError
from maekit.weights.export import export_maekit
from maekit.weights.hints import UserHints
from maekit.weights.importer import Weights, open_weights

GIVEN = UserHints(heads=4)
BOTH = UserHints(heads=4, decoder_heads=2)
ONE: State = mae(**TINY)
OTHER: State = {name: tensor + 1 for name, tensor in ONE.items()}


def saved(content: Any, folder: Path, name: str = "checkpoint.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def is_other(weights: Weights) -> bool:
    """Whether OTHER was taken, ONE being the alternative."""
    found = weights.tensors["backbone.norm.weight"]
    assert torch.equal(found, OTHER["norm.weight"]) or torch.equal(found, ONE["norm.weight"])
    return torch.equal(found, OTHER["norm.weight"])


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


# What lies beside: heads of self-distillation and their centers are no models, optimizers neither.
DINO = {
    "student": prefixed(ONE, "module.backbone."), "teacher": prefixed(OTHER, "backbone."),
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}, "epoch": 3,
    "dino_loss": {"center": torch.zeros(1, 8)}, "args": argparse.Namespace(input_size=32),
}  # fmt: skip
IJEPA = {
    "encoder": prefixed(ONE, "module."), "target_encoder": prefixed(OTHER, "module."),
    "predictor": {"module.predictor_embed.weight": torch.zeros(3, 3)}, "opt": {}, "loss": 0.1,
}  # fmt: skip
NESTED = {"checkpoint": {"online": ONE, "momentum": OTHER}, "step": torch.tensor(3)}
FLAT = prefixed(ONE, "student.") | prefixed(OTHER, "teacher.") | {"center": torch.zeros(3)}
SEVERAL: dict[str, tuple[Any, str, str]] = {
    "dino": (DINO, "student", "teacher"),
    "i-jepa": (IJEPA, "encoder", "target_encoder"),
    "nested": (NESTED, "checkpoint/online", "checkpoint/momentum"),
    "one mapping": (FLAT, "student", "teacher"),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_models_none_is_guessed(kind: str, tmp_path: Path) -> None:
    content, one, other = SEVERAL[kind]
    path = saved(content, tmp_path)
    with pytest.raises(WeightsError, match="several models are in this file") as refused:
        open_weights(path, user_hints=GIVEN)
    assert refused.value.exit_code == 3
    for name in (one, other):
        assert f"{name} (" in str(refused.value)
    assert "predictor" not in str(refused.value)  # no known model
    assert f"--entry {one}" in str(refused.value.hint)
    assert not is_other(open_weights(f"{path}#{one}", user_hints=GIVEN))
    assert is_other(open_weights(f"{path}#{other}", user_hints=GIVEN))
    # The last word is enough where it is the only such.
    assert is_other(open_weights(f"{path}#{other.rpartition('/')[2]}", user_hints=GIVEN))


@pytest.mark.parametrize("average", ["model_ema", "teacher", "state_dict_ema"])
def test_what_lies_beside_the_usual_one_is_taken_by_name(average: str, tmp_path: Path) -> None:
    path = saved(training_checkpoint(ONE, input_size=32) | {average: OTHER}, tmp_path)
    usual = open_weights(path, user_hints=GIVEN)
    assert not is_other(usual)
    assert average in " ".join(usual.report.notes)
    named = open_weights(f"{path}#{average}", user_hints=GIVEN)
    assert is_other(named)
    assert f"read from {average}" in named.report.notes
    assert named.header.clip == (1, 32, 32)  # the arguments are everybody's


@pytest.mark.parametrize("name", ["teacher", "target_encoder", "student", "model_ema", "net"])
def test_the_only_model_of_a_file_needs_no_name(name: str, tmp_path: Path) -> None:
    content = {name: OTHER, "predictor": {"weight": torch.zeros(2)}, "it": torch.tensor(1)}
    weights = open_weights(saved(content, tmp_path), user_hints=GIVEN)
    assert is_other(weights)
    assert f"read from {name}" in weights.report.notes


def test_the_one_that_is_named_is_held_to_its_keys(tmp_path: Path) -> None:
    """A student may be whole where its teacher has a head, or lacks a key."""
    heads = {"head.mlp.0.weight": torch.zeros(3, 48)}
    lacking = {name: tensor for name, tensor in OTHER.items() if name != "blocks.1.attn.qkv.bias"}
    path = saved({"student": ONE | heads, "teacher": lacking}, tmp_path)
    with pytest.raises(WeightsError, match=r"1 unexpected: head\.mlp\.0\.weight"):
        open_weights(f"{path}#student", user_hints=GIVEN)
    open_weights(f"{path}#student", user_hints=GIVEN, allow_missing=["head.*"])
    with pytest.raises(WeightsError, match=r"1 missing: blocks\.1\.attn\.qkv\.bias"):
        open_weights(f"{path}#teacher", user_hints=GIVEN)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    path = saved(DINO, tmp_path)
    with pytest.raises(RecipeError, match="no entry 'teachers'") as refused:
        open_weights(f"{path}#teachers")
    assert "student, teacher" in str(refused.value.hint)
    assert refused.value.exit_code == 2
    twice = saved({"a": {"teacher": ONE}, "b": {"teacher": OTHER}}, tmp_path, "twice.pth")
    with pytest.raises(RecipeError, match="several entries are called 'teacher'"):
        open_weights(f"{twice}#teacher")
    assert is_other(open_weights(f"{twice}#b/teacher", user_hints=GIVEN))


def test_a_safetensors_file_has_them_by_the_start_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    save_file(FLAT, path)
    with pytest.raises(WeightsError, match="several models"):
        open_weights(path)
    assert is_other(open_weights(f"{path}#teacher", user_hints=GIVEN))


def test_a_file_whose_name_has_the_mark_is_a_file(tmp_path: Path) -> None:
    path = saved(ONE, tmp_path, "mae#1.pth")
    assert not is_other(open_weights(path, user_hints=GIVEN))
    both = saved(DINO, tmp_path, "dino#1.pth")
    assert is_other(open_weights(f"{both}#teacher", user_hints=GIVEN))


def test_own_weights_and_folders_hold_one(tmp_path: Path) -> None:
    weights = open_weights(saved(ONE, tmp_path), user_hints=GIVEN)
    own = tmp_path / "own.safetensors"
    export_maekit(weights, own)
    with pytest.raises(RecipeError, match="hold one model"):
        open_weights(f"{own}#teacher")
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="a folder holds one model"):
        open_weights(f"hf:{folder}#teacher")


def test_one_mapping_in_many_places_costs_no_more_than_one(tmp_path: Path) -> None:
    """Sixty names of sixty names, eight deep, are one file of a few kilobytes."""
    inner: dict[str, Any] = {"weight": torch.zeros(2)}
    for _ in range(8):
        inner = {f"a{number}": inner for number in range(60)}
    with pytest.raises(WeightsError, match="no known model"):
        open_weights(saved(inner, tmp_path))


def test_clips_are_no_exception(tmp_path: Path) -> None:
    video = videomae_encoder(**TINY)
    path = saved({"teacher": video, "student": mae(**TINY, **TINY_DECODER)}, tmp_path)
    hints = UserHints(heads=4, clip=(4, 32, 32))
    assert open_weights(f"{path}#teacher", user_hints=hints).header.backbone.name == "video-vit"
    assert open_weights(f"{path}#student", user_hints=BOTH).header.decoder is not None
