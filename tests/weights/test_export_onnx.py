"""ONNX files of the encoder: any batch, onnxruntime's answer, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maekit.engine.build import build_model
from maekit.errors import PartError, StorageError, WeightsError
from maekit.model import MaskedAutoencoder
from maekit.weights import export_onnx as exporting
from maekit.weights.header import Header

SMALL = {"size": "tiny", "width": 24, "depth": 2, "heads": 2}
PARTS: list[tuple[tuple[int, int, int], dict[str, Any]]] = [
    ((1, 32, 48), {"name": "image-vit", "patch": 8} | SMALL),
    ((4, 16, 24), {"name": "video-vit", "patch": [2, 8, 8]} | SMALL),
]


def described(clip: tuple[int, int, int], backbone: dict[str, Any]) -> Header:
    decoder = {"name": "vit", "width": 48, "depth": 3, "heads": 2}
    return Header(
        backbone=backbone, decoder=decoder, target={"name": "pixel"}, clip=clip, channels=3,
        mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip


def built(header: Header) -> MaskedAutoencoder:
    model = build_model(header).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("clip", "backbone"), PARTS)
def test_onnxruntime_gives_the_same_tokens_for_any_batch(
    tmp_path: Path, clip: tuple[int, int, int], backbone: dict[str, Any]
) -> None:
    import onnx
    import onnxruntime

    header = described(clip, backbone)
    model = built(header)
    path = tmp_path / "encoder.onnx"
    assert exporting.export_encoder(model, path, header) < exporting.BOUND
    assert [each.name for each in tmp_path.iterdir()] == ["encoder.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        pixels = torch.randn(batch, 3, *clip)
        (tokens,) = session.run(None, {"pixels": pixels.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(tokens, model.encode(pixels), atol=1e-4, rtol=1e-4)
    file = onnx.load(path)
    metadata = {each.key: each.value for each in file.metadata_props}
    assert json.loads(metadata["maekit"])["std"] == [0.25] * 3
    assert "NonZero" not in {node.op_type for node in file.graph.node}  # a boolean index
    # The decoder, bigger than the encoder here, stays out.
    held = sum(onnx.numpy_helper.to_array(each).nbytes for each in file.graph.initializer)
    own = sum(tensor.nbytes for tensor in model.backbone.state_dict().values())  # type: ignore[attr-defined]
    assert held < 1.1 * own + 1000


def test_a_runtime_that_disagrees_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = described(*PARTS[0])
    model = built(header)
    plain = exporting._write

    def other(module: Any, *what: Any, **more: Any) -> None:
        plain(module, *what, **more)
        with torch.no_grad():
            model.backbone.norm.bias.add_(0.01)

    monkeypatch.setattr(exporting, "_write", other)
    with pytest.raises(WeightsError, match="onnxruntime's tokens differ by"):
        exporting.export_encoder(model, tmp_path / "encoder.onnx", header)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_too_large_for_one_file_stand_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(exporting, "ONE_FILE", 1000)
    header = described(*PARTS[0])
    exporting.export_encoder(built(header), tmp_path / "encoder.onnx", header)
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"encoder.onnx", "encoder.onnx.data"}
    session = onnxruntime.InferenceSession(
        str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"]
    )
    session.run(None, {"pixels": np.zeros((1, 3, 1, 32, 48), np.float32)})


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = described(*PARTS[0])
    model = built(header)
    with pytest.raises(StorageError, match="cannot be written"):
        exporting.export_encoder(model, tmp_path / "nowhere" / "encoder.onnx", header)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(PartError, match=r"needs onnxruntime\n  try: pip install 'maekit\[onnx\]'"):
        exporting.export_encoder(model, tmp_path / "encoder.onnx", header)
