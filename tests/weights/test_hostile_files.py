"""Files that are damaged, odd or hostile: refused with a reason, never a crash or a wrong model."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official import TINY, TINY_DECODER, mae

from maekit.errors import WeightsError
from maekit.weights.export_hf import export_hf
from maekit.weights.foreign import IMAGENET, UserHints
from maekit.weights.importer import Weights, open_weights

HEADS = UserHints(heads=4, decoder_heads=2)
STATE = mae(**TINY, **TINY_DECODER)


def opened(content: Any, folder: Path) -> Weights:
    torch.save(content, folder / "weights.pth")
    return open_weights(folder / "weights.pth", user_hints=HEADS)


@pytest.mark.parametrize(
    ("name", "ours", "shape"),
    [
        ("blocks.0.mlp.fc1.weight", "backbone.transformer.0.mlp.fc1.weight", (192,)),
        ("blocks.0.mlp.fc1.weight", "backbone.transformer.0.mlp.fc1.weight", (192, 0)),
        ("pos_embed", "backbone.positions.table", ()),
        ("decoder_embed.weight", "decoder.embed.weight", ()),
        ("decoder_pred.weight", "decoder.head.weight", (5,)),
    ],
)
def test_tensors_that_the_model_cannot_be_told_by_are_named(
    name: str, ours: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=rf"{ours} is \[.*\] in the file"):
        opened(STATE | {name: torch.zeros(shape)}, tmp_path)


def test_a_block_of_an_absurd_number_is_unexpected_and_costs_nothing(tmp_path: Path) -> None:
    far = {name.replace("blocks.0", "blocks.100000000"): t for name, t in STATE.items()}
    with pytest.raises(WeightsError, match=r"unexpected: .*blocks\.100000000\.norm1\.weight"):
        opened(far, tmp_path)


@pytest.mark.parametrize("beside", [{}, {"step": torch.zeros(1)}])
def test_a_file_that_contains_itself_is_no_state_dict(
    beside: dict[str, Any], tmp_path: Path
) -> None:
    itself = dict(beside)
    itself["model"] = itself
    with pytest.raises(WeightsError):
        opened(itself, tmp_path)


@pytest.mark.parametrize("size", ["32", [1, 2, 3], ["a", "b"], 0, True, -32])
def test_arguments_that_are_no_size_say_nothing(size: Any, tmp_path: Path) -> None:
    args = argparse.Namespace(input_size=size, norm_pix_loss="yes", num_frames=None)
    header = opened({"model": STATE, "args": args}, tmp_path).header
    assert header.clip == (1, 32, 32)
    assert header.target is None


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("false",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("what", "called"), [(Evil(), "system"), (getattr, "getattr")])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_refused_by_name_too(
    what: Any, called: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps({"model": what}, protocol=protocol))
    with pytest.raises(WeightsError, match=rf"would call .*{called}, which is code"):
        open_weights(path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(WeightsError, match="not a readable PyTorch file"):
        open_weights(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of transformers', as maekit writes it."""
    torch.save(STATE, tmp_path / "mae.pth")
    given = UserHints(target="norm-pixel", heads=4, decoder_heads=2)
    export_hf(open_weights(tmp_path / "mae.pth", user_hints=given), tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "hidden_act", "relu"),
        ("config.json", "layer_norm_eps", "small"),
        ("config.json", "norm_pix_loss", "false"),
        ("config.json", "num_attention_heads", -4),
        ("config.json", "image_size", ["a", "b"]),
        ("config.json", "image_size", 0),
        ("preprocessor_config.json", "image_mean", ["a", "b", "c"]),
        ("preprocessor_config.json", "image_std", [0.2, 0.0, 0.2]),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_its_key(
    file: str, key: str, value: Any, folder: Path
) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(WeightsError, match=key):
        open_weights(f"hf:{folder}")


def test_statistics_of_another_number_of_channels_are_not_taken(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5]}))
    header = open_weights(f"hf:{folder}").header
    assert (header.mean, header.std) == IMAGENET
