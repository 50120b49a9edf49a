"""Weights that nothing may be built of: lying headers, odd numbers, archives that swell."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from maekit import demo
from maekit.engine.build import load_model
from maekit.errors import NonFiniteError, WeightsError
from maekit.weights.importer import open_weights
from maekit.weights.safetensors_io import KEY

if TYPE_CHECKING:
    from torch import Tensor


def native(path: Path, change: Any = None, dtype: torch.dtype | None = None) -> Path:
    """Write the demo weights with another header, or of another type; without a checksum."""
    with safe_open(demo.WEIGHTS, "pt") as file:
        header = json.loads(file.metadata()[KEY])
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if callable(change):
        change(header, tensors)
    save_file(tensors, path, {KEY: json.dumps(header), "format": "pt"})
    return path


def changed(*path: str, to: Any) -> Any:
    def change(header: dict[str, Any], _: dict[str, Tensor]) -> None:
        place = header
        for key in path[:-1]:
            place = place[key]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return change


@pytest.mark.parametrize("change", [
    changed("backbone", "depth", to=2**31),
    changed("backbone", "depth", to=100_000),
    changed("decoder", "depth", to=2**31),
    changed("backbone", "width", to=20_000),
    changed("backbone", "width", to=4_000),
    changed("decoder", "width", to=2**40),
    changed("clip", to=[1, 2**31, 32]),
    changed("clip", to=[2**20, 96, 96]),
    changed("clip", to=[1, -8, 8]),
    changed("channels", to=-1),
    changed("channels", to=0),
    changed("channels", to=2**31),
    changed("backbone", "name", to=None),
    changed("backbone", "name", to=7),
    changed("target", "name", to=None),
    changed("target", "name", to=["pixel"]),
    changed("decoder", "heads", to=2**33),
    changed("mean", to=[float("nan")] * 3),
    changed("std", to=[0.0, 0.0, 0.0]),
    changed("std", to=[-1.0, 1.0, 1.0]),
    changed("std", to=[1.0]),
    changed("mean", to=[0.0, 1e300, 0.0]),
    changed("std", to=[1e300, 1.0, 1.0]),
    changed("std", to=[1.0, 1e-300, 1.0]),
    changed("source", to=["x"]),
    changed("backbone", "mlp_ratio", to=1e308),
    changed("decoder", "mlp_ratio", to=1e300),
    changed("backbone", "mlp_ratio", to=1e18),
])  # fmt: skip
def test_headers_that_lie_are_refused_before_a_model_is_built(change: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_model(native(tmp_path / "w.safetensors", change))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.complex64])
def test_odd_types_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is of type"):
        open_weights(native(tmp_path / "w.safetensors", dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    model, _ = load_model(native(tmp_path / "w.safetensors", dtype=dtype))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_all_that_open_them(
    value: float, tmp_path: Path
) -> None:
    def spoil(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors["decoder.norm.bias"][0] = value

    path = native(tmp_path / "w.safetensors", spoil)
    for opens in (open_weights, load_model):
        with pytest.raises(NonFiniteError, match=r"decoder.norm.bias holds NaN or infinity"):
            opens(path)


def test_weights_that_float32_cannot_hold_are_refused(tmp_path: Path) -> None:
    def swell(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors["decoder.norm.bias"] = tensors["decoder.norm.bias"].double() + 1e200

    path = native(tmp_path / "w.safetensors", swell)
    for opens in (open_weights, load_model):
        with pytest.raises(NonFiniteError, match=r"decoder.norm.bias .* infinite as float32"):
            opens(path)


def deflated(path: Path, to: Path) -> Path:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return to


def test_archives_that_torch_never_writes_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(10)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="compressed"):
        open_weights(deflated(tmp_path / "a.pth", tmp_path / "b.pth"))


@pytest.mark.parametrize("tensor", [
    torch.zeros(1).expand(10**9),
    torch.zeros(4).to_sparse(),
    torch.empty(10**9, device="meta"),
], ids=["expanded", "sparse", "meta"])  # fmt: skip
def test_tensors_that_are_more_than_the_file_holds_are_refused(
    tensor: Tensor, tmp_path: Path
) -> None:
    torch.save({"w": tensor}, tmp_path / "a.pth")
    with pytest.raises(WeightsError):
        open_weights(tmp_path / "a.pth")


def test_a_config_nested_without_end_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    shutil.copy(demo.WEIGHTS, folder / "model.safetensors")
    for text in ("[" * 100_000, '{"a":' * 100_000, "\udce9".encode("utf-8", "surrogateescape")):
        path = folder / "config.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(WeightsError, match="not readable as JSON"):
            open_weights(f"hf:{folder}")
