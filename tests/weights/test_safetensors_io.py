"""Weights files: their header, their errors, and that they come back whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from maekit.errors import WeightsError
from maekit.recipe.schema import BackboneSpec
from maekit.registry import spec_of
from maekit.weights import safetensors_io
from maekit.weights.header import Header
from maekit.weights.safetensors_io import (
    read_header,
    read_tensors,
    sha256,
    write_weights,
)

HEADER = Header(
    backbone=spec_of(BackboneSpec, {"name": "image-vit"}),
    clip=(1, 8, 8),
    channels=3,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.arange(3)}
    digest = write_weights(path, tensors, HEADER)
    assert digest == sha256(path)
    assert read_header(path) == HEADER
    back = read_tensors(path)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.ones(2)}, HEADER)
    before = path.read_bytes()
    with pytest.raises(OSError, match="nowhere"):
        write_weights(tmp_path / "nowhere" / "w.safetensors", {"a": torch.ones(2)})
    assert path.read_bytes() == before


def zeros_from(start: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:start] + bytes(len(content[start:]))


DROPPED = {
    "the length": zeros_from(0),
    "the header": zeros_from(8),
    "the end": zeros_from(-4),
    "a byte of the first tensor": lambda content: content[:-17] + b"\0" + content[-16:],
    "the last byte": lambda content: content[:-1],
    "nothing, but a byte more": lambda content: content + b"\0",
    "all": lambda _: b"",
    "which is which": lambda content: content.replace(b'"one":', b'"two":', 1),
}


@pytest.mark.parametrize("what", DROPPED)
def test_a_write_that_the_disk_dropped_is_no_file(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may answer that it wrote, and hold something else."""

    def lying(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata)
        path.write_bytes(DROPPED[what](path.read_bytes()))

    monkeypatch.setattr(safetensors_io, "_order_metadata", lambda _: None)
    monkeypatch.setattr(safetensors_io, "save_file", lying)
    path = tmp_path / "w.safetensors"
    with pytest.raises(OSError, match="reads back differently"):
        write_weights(path, {"one": torch.full((4,), 0.1), "two": torch.full((4,), 0.2)}, HEADER)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="no /proc that counts a process's memory"
)
def test_what_was_written_is_read_back_in_little_memory(tmp_path: Path) -> None:
    tensors = {str(n): torch.rand(4 << 20) for n in range(4)}  # 64 MiB
    write_weights(tmp_path / "w.safetensors", {"a": torch.ones(1)})
    with Path("/proc/self/clear_refs").open("w", encoding="utf-8") as file:
        file.write("5")  # the peak is counted from here on
    before = peak_kib()
    write_weights(tmp_path / "w.safetensors", tensors)
    assert peak_kib() - before < 32 << 10


def peak_kib() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    def refused(path: Path, what: str) -> None:
        with pytest.raises(WeightsError, match=what):
            read_header(path)

    refused(tmp_path / "absent", "no weights file")
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.ones(1)}, plain)
    refused(plain, "no maekit header")
    whole = tmp_path / "whole.safetensors"
    write_weights(whole, {"a": torch.ones(1000)}, HEADER)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:1000])
    refused(cut, "not a readable safetensors file")
    newer = tmp_path / "newer.safetensors"
    write_weights(newer, {}, HEADER.model_copy(update={"format": 99}))
    refused(newer, "newer")
