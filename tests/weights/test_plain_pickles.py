"""What training code puts beside weights is data, and loads; what could run anything does not."""

from __future__ import annotations

import collections
import pathlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official import TINY, TINY_DECODER, mae, training_checkpoint

from maekit.errors import WeightsError
from maekit.weights.foreign import read

STATE = mae(**TINY, **TINY_DECODER)


def with_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint as VideoMAE's and MAE's own loops leave it."""
    content = training_checkpoint(state, output_dir=pathlib.PosixPath("/out"), lr=np.float64(1e-3))
    content["optimizer"]["param_groups"] = [
        {"lr": np.float64(1e-3), "weight_decay": np.float32(0.05), "step": np.int64(7)}
    ]
    content["meters"] = collections.defaultdict(list, loss=[np.float16(1.0)])
    content["last"] = collections.deque([1.0, 2.0], maxlen=2)
    content["counts"] = collections.Counter("aab")
    content["curve"] = np.linspace(0, 1, 5)
    content["done"] = np.bool_(True)
    return content


def test_numbers_paths_and_collections_are_data(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-19.pth"
    state = STATE
    torch.save(with_numbers(state), path)
    found = read(path)
    assert found.tensors.keys() == state.keys()
    assert found.args["lr"] == 1e-3
    assert str(found.args["output_dir"]) == "/out"


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"),
        (b"pathlib\nPosixPath\n", b"pathlib._local\nPosixPath\n"),
        (b"pathlib\nPosixPath\n", b"pathlib\nWindowsPath\n"),
    ],
)
def test_names_of_other_versions_and_systems_are_known(
    tmp_path: Path, now: bytes, then: bytes
) -> None:
    path, older = tmp_path / "now.pth", tmp_path / "then.pth"
    torch.save(with_numbers(STATE), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(older, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert now in content
                content = content.replace(now, then)
            target.writestr(name, content)
    assert read(older).tensors.keys() == STATE.keys()


class Runs:
    def __init__(self, function: Any, *words: object) -> None:
        self.function, self.words = function, words

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.words


@pytest.mark.parametrize(
    "hostile",
    [
        Runs(exec, "raise SystemExit('ran')"),
        Runs(pathlib.Path.touch, Path("ran")),
        Runs(np.load, "ran.npy"),
        Runs(getattr, Path, "cwd"),
    ],
)
def test_what_could_run_anything_is_refused(tmp_path: Path, hostile: Runs) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": STATE, "more": hostile}, path)
    with pytest.raises(WeightsError, match="is code, not weights"):
        read(path)
    assert not Path("ran").exists()


def pickled(name: bytes, arguments: bytes) -> bytes:
    """Return protocol-2 opcodes that call a global."""
    module, _, function = name.rpartition(b".")
    return b"c" + module + b"\n" + function + b"\n(" + arguments + b"tR"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def eight_bytes() -> bytes:
    return pickled(b"_codecs.encode", text("A" * 8) + text("latin1"))


def dtype(code: str, state: bytes) -> bytes:
    return pickled(b"numpy.dtype", text(code) + b"\x89\x88") + b"(" + state + b"tb"


# States by which numpy itself would take eight bytes for the address of an object.
NO_FLAGS = b"J\x03\0\0\0" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffJ\0\0\0\0"


@pytest.mark.parametrize(
    "content",
    [
        pickled(b"numpy.core.multiarray.scalar", dtype("O8", NO_FLAGS) + eight_bytes()),
        pickled(b"numpy._core.multiarray.scalar", dtype("V8", NO_FLAGS) + eight_bytes()),
        pickled(
            b"numpy.ndarray",
            b"(K\x01t" + pickled(b"numpy.dtype", text("O8") + b"\x89\x88") + eight_bytes(),
        ),
        pickled(b"numpy.dtype", b"]" + text("f8") + b"\x89"),
    ],
)
def test_bytes_are_never_taken_for_objects(tmp_path: Path, content: bytes) -> None:
    plain, path = tmp_path / "plain.pth", tmp_path / "x.pth"
    torch.save({"model": 1}, plain)
    whole = b"\x80\x02}(" + text("more") + content + b"u."
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, whole if name.endswith("data.pkl") else source.read(name))
    # Refused while it is read, not for want of weights in it.
    with pytest.raises(WeightsError, match="not a readable PyTorch file"):
        read(path)
