"""``maekit probe``: early refusals, numbers that are none, and what result.json says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from maekit.evaluate import predictions
from maekit.weights.safetensors_io import read_header, read_tensors, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

SCRATCH = ("--from", "scratch")


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before features are made."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(predictions, "Loader", refuse)


def test_timm_names_that_are_none_are_refused_before_there_is_a_folder(
    cli: Cli, labeled: str
) -> None:
    for words in (("probe.protocol=paper",), ("--kind", "knn")):
        refused = cli("probe", labeled, *words, "--from", "timm:no_such_model")
        assert refused.code == 2
        assert "has no model 'no_such_model'" in refused.err
        assert not Path("runs").exists()


def test_a_missing_library_is_known_before_features_are_made(
    cli: Cli, labeled: str, nothing_is_read: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    refused = cli("probe", labeled, *SCRATCH)
    assert refused.code == 2
    assert "pip install scikit-learn" in refused.err


def test_heads_that_do_not_divide_are_known_before_features_are_made(
    cli: Cli, labeled: str, nothing_is_read: None
) -> None:
    words = ("--kind", "attentive", "probe.attentive.heads=3")
    refused = cli("probe", labeled, *words, *SCRATCH)
    assert refused.code == 2
    assert "3 heads do not divide" in refused.err


@pytest.mark.parametrize("kind", ["linear", "knn", "attentive"])
def test_weights_that_are_no_numbers_are_an_error(cli: Cli, labeled: str, kind: str) -> None:
    assert cli("pretrain", labeled, "-q", "pretrain.steps=1", "--out", "run").code == 0
    path = Path("run/weights.safetensors")
    tensors, header = read_tensors(path), read_header(path)
    name = "backbone.transformer.1.mlp.fc1.weight"
    tensors[name] = torch.full_like(tensors[name], torch.inf)
    write_weights(Path("lost.safetensors"), tensors, header)
    refused = cli("probe", labeled, "--kind", kind, "--from", "lost.safetensors")
    assert refused.code == 4
    assert f"lost.safetensors: {name} holds NaN or infinity" in refused.err


def test_a_bad_file_that_is_listed_twice_is_two_samples(cli: Cli, labeled: str) -> None:
    rows = [f"pictures/train/{c}/{n:02d}.png,{c}" for c in ("red", "blue") for n in range(6)]
    Path("twice.csv").write_text("path,label\n" + "\n".join([*rows, rows[0]]) + "\n")
    Path("pictures/train/red/00.png").write_bytes(b"bad")
    Path("twice-val.csv").write_text("path,label\n" + "\n".join(rows[1:]) + "\n")
    words = ("data.train.path=twice.csv", "data.val.path=twice-val.csv", "--kind", "knn")
    made = cli("probe", labeled, *words, *SCRATCH, "--json", "-q")
    assert made.code == 0, made.err
    result = json.loads(made.out)
    assert (result["train_samples"], result["bad_files"]) == (11, 1)


def test_one_sample_a_class_leaves_no_strength_to_choose(cli: Cli, labeled: str) -> None:
    rows = [f"pictures/train/{c}/00.png,{c}" for c in ("red", "blue", "green")]
    Path("few.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    made = cli("probe", labeled, "data.train.path=few.csv", *SCRATCH, "--json")
    assert made.code == 0, made.err
    assert "no class has two samples" in made.err
    fitted = json.loads(made.out)["fitted"]["model"]
    assert (fitted["strength"], fitted["accuracies"]) == (0.01, {})


def test_the_settings_say_what_was_done(cli: Cli, labeled: str) -> None:
    views = "probe.views={crops: 2, enlarge: 1.5, interpolation: bilinear}"
    words = (views, "data.train.stride=2", "probe.pool=mean", "probe.precision=bf16", "--seed", "4")
    made = cli("probe", labeled, *words, *SCRATCH, "--kind", "knn", "--json")
    result = json.loads(made.out)
    assert result["settings"] == {
        "pool": "mean",
        "norm": "before pooling",
        "layer": None,
        "clip": [1, 16, 24],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "frames": {"train": ["dense", 2, None], "val": ["dense", 1, None]},
        "fit": "crop",
        "range": None,
        "views": "1x2",
        "enlarge": 1.5,
        "interpolation": "bilinear",
        "pixels": [1, 5, 8],
        "precision": "bf16",
        "seed": 4,
        "k": 5,
        "temperature": 0.07,
    }
    assert "data.train and data.val sample frames differently" in made.err
    other = cli("probe", labeled, *words[1:-1], "5", *SCRATCH, "--kind", "knn", "--json", "-q")
    assert json.loads(other.out)["encoder_sha256"] != result["encoder_sha256"]


def test_a_dry_run_tells_how_much_memory_features_take(cli: Cli, labeled: str) -> None:
    sizes = {"knn": 32 + 32 + 8 * 5 * 3, "attentive": 2 * 6 * 32 + 8 * 5 * 3}
    for kind, numbers in sizes.items():
        made = cli("probe", labeled, "--kind", kind, *SCRATCH, "--dry-run", "--json", "-q")
        cost = json.loads(made.out)
        assert cost["feature_bytes"] == 48 * numbers * 4
        # And what passes while they are made: pixels of 36 pictures at least, float32.
        assert cost["memory_bytes"] > cost["feature_bytes"] + 36 * 16 * 24 * 3 * 4
        assert cost["fits"] is True
