"""``maekit weights``, and weights of others under ``pretrain --from``."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import maekit
from maekit.engine.build import build_model
from maekit.recipe.schema import BackboneSpec
from maekit.weights.header import Header
from maekit.weights.safetensors_io import (
    model_tensors,
    read_header,
    read_tensors,
    sha256,
    write_weights,
)

Cli = Callable[..., Any]
ENCODER = {"name": "image-vit", "width": 32, "depth": 2, "heads": 2, "patch": 8}
HEADER = Header(
    backbone=ENCODER,
    decoder={"name": "vit", "width": 32, "depth": 1, "heads": 2},
    target={"name": "norm-pixel"},
    clip=(1, 32, 32), channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
)  # fmt: skip
HEADS = ("--heads", "2", "--decoder-heads", "2")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """maekit's own weights, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_weights(Path("own.safetensors"), model_tensors(build_model(HEADER)), HEADER)
    return "own.safetensors"


def test_there_and_back(cli: Cli, own: str) -> None:
    out = cli("weights", "convert", own, "mae.pth", "--to", "mae")
    assert out.code == 0, out.err
    assert "the file does not say its target: norm-pixel" in out.out
    assert sha256(Path("mae.pth")) in out.out
    words = ("weights", "convert", "mae.pth", "back.safetensors", "--to", "maekit", *HEADS)
    back = cli(*words, "--target", "norm-pixel", "--json")
    assert back.code == 0, back.err
    result = json.loads(back.out)
    report = result["report"]
    assert report["matched"] == result["tensors"] == len(read_tensors(Path(own)))
    assert report["missing"] == report["unexpected"] == []
    assert "a square grid is taken" in "".join(report["notes"])
    before, after = read_tensors(Path(own)), read_tensors(Path("back.safetensors"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    header = read_header(Path("back.safetensors"))
    assert header.grid == (1, 4, 4)
    assert header.target is not None
    assert header.target.name == "norm-pixel"
    assert maekit.load("back.safetensors").decoder is not None


def test_a_destination_is_kept_unless_told_otherwise(cli: Cli, own: str) -> None:
    Path("there.pth").write_text("mine")
    refused = cli("weights", "convert", own, "there.pth", "--to", "mae")
    assert (refused.code, Path("there.pth").read_text()) == (2, "mine")
    assert "--overwrite" in refused.err
    assert cli("weights", "convert", own, "there.pth", "--to", "mae", "--overwrite").code == 0
    assert cli("weights", "convert", own, "no/such/folder.pth", "--to", "mae").code == 2
    Path("hf").mkdir()
    Path("hf/notes.txt").write_text("mine")
    folder = cli("weights", "convert", own, "hf", "--to", "hf", "--overwrite")
    assert folder.code == 2
    assert "notes.txt" in folder.err
    assert cli("weights", "convert", own, "new", "--to", "hf").code == 0
    with safe_open("new/model.safetensors", "pt") as file:
        assert "vit.encoder.layer.1.attention.attention.query.weight" in file.keys()  # noqa: SIM118


def test_failures_have_their_exit_codes(cli: Cli, own: str) -> None:
    def code(*words: str) -> int:
        result = cli("weights", "convert", *words)
        assert "try:" in result.err
        return int(result.code)

    assert code("absent.pth", "x", "--to", "mae") == 2
    assert code(own, "x", "--to", "videomae") == 3
    assert code(own, "x", "--to", "maekit", "--target", "pixel") == 2  # it says that itself
    cli("weights", "convert", own, "mae.pth", "--to", "mae")
    assert code("mae.pth", "x", "--to", "maekit") == 3  # heads unknown
    assert code("mae.pth", "x", "--to", "maekit", *HEADS, "--clip", "32x32") == 2
    state = torch.load("mae.pth")["model"]
    del state["norm.weight"]
    torch.save(state, "short.pth")
    short = cli("weights", "convert", "short.pth", "x", "--to", "maekit", *HEADS)
    assert short.code == 3
    assert "1 missing: norm.weight" in short.err
    words = ("weights", "convert", "short.pth", "x", "--to", "maekit", *HEADS)
    allowed = cli(*words, "--allow-missing", "norm.*")
    assert allowed.code == 0
    assert "to start afresh: backbone.norm.weight" in allowed.out
    state["norm.weight"] = torch.ones(33)
    torch.save(state, "wrong.pth")
    wrong = cli("weights", "convert", "wrong.pth", "y", "--to", "maekit", *HEADS)
    assert wrong.code == 3
    assert "backbone.norm.weight is [33] in the file, [32] in the model" in wrong.err


def test_inspect(cli: Cli, own: str) -> None:
    mine = json.loads(cli("weights", "inspect", own, "--json").out)
    assert mine["format"] == "maekit"
    assert mine["header"]["clip"] == [1, 32, 32]
    assert mine["parameters"] == sum(t.numel() for t in read_tensors(Path(own)).values())
    assert mine["sha256"] == {"own.safetensors": sha256(Path(own))}
    cli("weights", "convert", own, "mae.pth", "--to", "mae")
    theirs = json.loads(cli("weights", "inspect", "mae.pth", "--json").out)
    assert theirs["format"].startswith("facebookresearch/mae")
    assert theirs["header"] is None
    assert "--heads" in theirs["unclear"]
    assert theirs["parameters"] == mine["parameters"]
    assert "CC BY-NC 4.0" in theirs["license"]
    names = {each["name"] for each in theirs["tensors"]}
    assert {"cls_token", "decoder_blocks.0.mlp.fc2.bias"} <= names
    shown = cli("weights", "inspect", "mae.pth")
    assert shown.code == 0
    assert "decoder_pos_embed" in shown.out
    assert "1x17x32" in shown.out
    assert re.search(
        r"^header backbone +name image-vit, ", cli("weights", "inspect", own).out, re.MULTILINE
    )
    torch.save({"odd": torch.ones(2, 3), "args": argparse.Namespace()}, "odd.pth")
    odd = json.loads(cli("weights", "inspect", "odd.pth", "--json").out)
    assert (odd["format"], odd["parameters"]) == ("unknown", 6)
    assert cli("weights", "inspect", "absent.pth").code == 2


def encoder_alone() -> dict[str, torch.Tensor]:
    """Describe an encoder of a published width without hints, in MAE's format too."""
    tiny = {"name": "image-vit", "size": "tiny", "depth": 1, "heads": 3, "patch": 8}
    backbone = BackboneSpec.model_validate(tiny)
    header = HEADER.model_copy(update={"backbone": backbone, "decoder": None, "target": None})
    tensors = model_tensors(build_model(header, seed=5))
    write_weights(Path("encoder.safetensors"), tensors, header)
    return tensors


def test_pretraining_from_an_encoder_alone_starts_a_fresh_decoder(small: str, cli: Cli) -> None:
    tensors = encoder_alone()
    assert cli("weights", "convert", "encoder.safetensors", "mae.pth", "--to", "mae").code == 0
    still = ("data.size=32", "pretrain.steps=1", "pretrain.optimizer.base_lr=1e-20")
    sizes = [f"model.backbone.{each}" for each in ("width=192", "depth=1", "heads=3")]
    words = ("pretrain", small, *still, *sizes, "--from", "mae.pth", "--out")
    run = cli(*words, "run")
    assert run.code == 0, run.err
    assert "decoder: none to a fresh one, there are no decoder weights in this file" in run.err
    after = read_tensors(Path("run/weights.safetensors"))
    same = [torch.equal(after[name], tensor) for name, tensor in tensors.items()]
    assert all(same)
    assert any(name.startswith("decoder.") for name in after)
    learned = cli(*words, "learned", "model.backbone.positions=learned")
    assert "backbone.positions: sincos-2d at 1x4x4 to learned at 1x4x4" in learned.err
    refused = cli(*words, "other", "model.backbone.mlp_ratio=2")
    assert refused.code == 3
    assert "backbone.mlp_ratio: 4.0 in the weights, 2.0 requested" in refused.err


def test_pretraining_goes_on_from_a_full_file_of_mae(small: str, cli: Cli, own: str) -> None:
    assert cli("weights", "convert", own, "mae.pth", "--to", "mae").code == 0
    assert cli("weights", "convert", "mae.pth", "m.safetensors", "--to", "maekit", *HEADS).code == 0
    decoder = "model.decoder={name: vit, width: 32, depth: 1, heads: 2}"
    words = ("pretrain", small, "data.size=32", "pretrain.steps=1", decoder)
    run = cli(*words, "--from", "m.safetensors", "--out", "run")
    assert run.code == 0, run.err
    assert "the weights' target is unknown: the recipe's is taken, norm-pixel" in run.err
    told = ("weights", "convert", "m.safetensors", "told.safetensors", "--to", "maekit")
    assert cli(*told, "--target", "norm-pixel").code == 0
    assert read_header(Path("told.safetensors")).target is not None
    again = cli("weights", "convert", "told.safetensors", "x", "--to", "mae", "--target", "pixel")
    assert (again.code, "describe themselves" in again.err) == (2, True)
    assert cli(*words, "--from", "absent.pth", "--out", "run", "--overwrite").code == 2
    assert Path("run/weights.safetensors").is_file()


TUNED = {
    "name.txt": "left\nright\n\n",
    "list.json": '["left", "right"]',
    "numbers.json": '{"1": ["right", "more"], "0": ["left", "more"]}',
    "names.json": '{"right": 1, "left": 0}',
}


def tune(cli: Cli) -> None:
    """Write an official fine-tuned file of the tiny encoder, with two classes."""
    encoder_alone()
    out = cli("weights", "convert", "encoder.safetensors", "encoder.pth", "--to", "mae")
    assert out.code == 0, out.err
    state = torch.load("encoder.pth")["model"]
    for kind in ("weight", "bias"):
        state[f"fc_norm.{kind}"] = state.pop(f"norm.{kind}")
    state |= {"head.weight": torch.randn(2, 192), "head.bias": torch.zeros(2)}
    torch.save({"model": state}, "tuned.pth")


@pytest.mark.parametrize("names", TUNED)
def test_a_classifier_gets_the_names_of_a_file(names: str, cli: Cli, own: str) -> None:
    tune(cli)
    Path(names).write_text(TUNED[names])
    words = ("weights", "convert", "tuned.pth", "own2.safetensors", "--to", "maekit")
    out = cli(*words, "--classes", names)
    assert out.code == 0, out.err
    model, header = maekit.load_classifier("own2.safetensors")
    assert header.classifier is not None
    assert header.classifier.outputs == ("left", "right")
    assert model(torch.zeros(1, 3, 1, 32, 32)).shape == (1, 2)
    shown = cli("weights", "inspect", "tuned.pth")
    assert "classifier" in shown.out


def test_names_that_do_not_fit_are_exit_2(cli: Cli, own: str) -> None:
    tune(cli)
    words = ("weights", "convert", "tuned.pth", "x.safetensors", "--to", "maekit")
    for text in ("one\n", "a\nb\nc\n", "same\nsame\n", ""):
        Path("names.txt").write_text(text)
        out = cli(*words, "--classes", "names.txt")
        assert out.code == 2, text
    for text in ('{"0": "a", "2": "b"}', "[1, 2]", "{", '"text"'):
        Path("names.json").write_text(text)
        assert cli(*words, "--classes", "names.json").code == 2, text
    assert cli(*words, "--classes", "absent.txt").code == 2
    assert not Path("x.safetensors").exists()
    Path("names.txt").write_text("a\nb\n")
    assert cli("weights", "convert", own, "x.safetensors", "--to", "maekit",
               "--classes", "names.txt").code == 2  # fmt: skip


def test_one_of_several_models_is_listed_and_taken(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of self-distillation: inspect lists them, --entry and FILE#NAME take one."""
    monkeypatch.chdir(tmp_path)
    model = build_model(HEADER.model_copy(update={"decoder": None, "target": None}))
    write_weights(tmp_path / "one.safetensors", model_tensors(model), HEADER.model_copy(
        update={"decoder": None, "target": None}))  # fmt: skip
    assert cli("weights", "convert", "one.safetensors", "one.pth", "--to", "timm").code == 0
    student = torch.load("one.pth")
    teacher = {name: tensor + 1 for name, tensor in student.items()}
    content = {"student": student, "teacher": teacher, "loss": {"center": torch.zeros(8)}}
    torch.save(content, "both.pth")
    found = cli("weights", "inspect", "both.pth", "--json")
    assert found.code == 0
    facts = json.loads(found.out)
    assert facts["format"] == "several models"
    count = sum(tensor.numel() for tensor in student.values())
    entries = {each.pop("name"): each for each in facts["entries"]}
    assert entries.keys() == {"student", "teacher", "loss"}
    assert entries["teacher"]["format"] == entries["student"]["format"]
    assert entries["loss"] == {"tensors": 1, "parameters": 8, "size": 32, "format": None}
    assert (entries["teacher"]["parameters"], entries["teacher"]["size"]) == (count, 4 * count)
    shown = cli("weights", "inspect", "both.pth")
    assert (shown.code, f"{count:,}" in shown.out) == (0, True)
    one = cli("weights", "inspect", "both.pth", "--entry", "teacher", "--json")
    assert json.loads(one.out)["report"]["matched"] == len(student)
    words = ("weights", "convert", "both.pth", "own.safetensors", "--to", "maekit", "--heads", "2")
    refused = cli(*words)
    assert (refused.code, "--entry student" in refused.err) == (3, True)
    assert cli(*words, "--entry", "teachers").code == 2
    assert cli(*words, "--entry", "teacher").code == 0
    taken = read_tensors(Path("own.safetensors"))
    assert torch.equal(taken["backbone.norm.weight"], teacher["norm.weight"])
