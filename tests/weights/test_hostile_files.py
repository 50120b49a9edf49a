"""Files that are damaged, odd or hostile: refused with a reason, never a crash or a wrong model."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official import TINY, TINY_DECODER, mae

from maekit.errors import WeightsError
from maekit.weights.export_hf import export_hf
from maekit.weights.hints import IMAGENET, UserHints
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


@pytest.mark.filterwarnings("error")
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


class Named:
    """A global under any name, whether there is such a thing or not, called with a word."""

    def __init__(self, name: str, protocol: int) -> None:
        module, _, function = name.rpartition(".")
        if protocol < 4:
            self.opcodes = f"c{module}\n{function}\n".encode()
        else:
            words = (module, function)
            self.opcodes = b"".join(b"\x8c" + bytes([len(w)]) + w.encode() for w in words) + b"\x93"


# One of each way to run something: shells, code, files that are loaded, modules that are imported,
# attributes that are looked up, objects that are built or restored without their class's leave.
CALLED = (
    "posix.system", "os.popen", "subprocess.Popen", "subprocess.check_output", "pty.spawn",
    "builtins.eval", "builtins.exec", "builtins.compile", "builtins.getattr", "builtins.setattr",
    "builtins.__import__", "builtins.open", "builtins.type", "builtins.map", "builtins.memoryview",
    "importlib.import_module", "runpy.run_path", "code.InteractiveInterpreter", "types.CodeType",
    "types.FunctionType", "functools.partial", "functools.reduce", "operator.attrgetter",
    "operator.methodcaller", "operator.itemgetter", "copyreg._reconstructor", "copyreg.__newobj__",
    "copyreg._extension_registry", "pickle.loads", "_pickle.loads", "marshal.loads",
    "shutil.rmtree", "pathlib.Path", "pathlib.Path.unlink", "numpy.load", "numpy.fromfile",
    "numpy.memmap", "numpy.frombuffer", "numpy.core._internal._ctypes",
    "numpy.testing._private.utils.runstring",
    "torch.load", "torch.hub.load", "torch.jit.load", "torch.ops.load_library",
    "torch.storage._load_from_bytes", "torch.from_file", "torch.distributed.rpc.rpc_sync",
    "ctypes.CDLL", "_ctypes.dlopen", "socket.create_connection", "urllib.request.urlopen",
    "webbrowser.open", "multiprocessing.util.spawnv_passfds", "asyncio.run", "timeit.timeit",
    "maekit.weights.plain_pickles.data_classes", "datetime.datetime.fromisoformat",
    "collections.namedtuple", "collections.OrderedDict.update", "argparse.ArgumentParser",
    "argparse.FileType", "deepspeed.runtime.fp16.loss_scaler.LossScaler", "dill._dill._eval_repr",
    "cloudpickle.cloudpickle._builtin_type", "joblib.load", "pandas.read_pickle",
    "yaml.unsafe_load",
)  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_that_a_pickle_names_is_called_but_data(protocol: int, tmp_path: Path) -> None:
    torch.save({"model": 1}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in CALLED:
        start = b"\x80" + bytes([protocol]) + b"}X\x05\0\0\0model"
        call = Named(name, protocol).opcodes + b"X\x04\0\0\0word\x85R"
        for path, content in (
            (tmp_path / "archive.pth", None),
            (tmp_path / "plain.pth", start + call + b"s."),
        ):
            if content is None:
                with zipfile.ZipFile(path, "w") as archive:
                    for member, data in members.items():
                        whole = start + call + b"s." if member.endswith("data.pkl") else data
                        archive.writestr(member, whole)
            else:
                path.write_bytes(content)
            # PyTorch names what is built in without its module.
            said = re.escape(name).replace(r"builtins\.", r"(builtins\.)?")
            with pytest.raises(WeightsError, match=rf"would call {said}, which is code"):
                open_weights(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("zipped", [True, False])
def test_data_in_another_protocol_is_not_called_code(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    content = {"model": STATE, "args": argparse.Namespace(lr=np.float64(1), out=Path("/"))}
    torch.save(content, path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"protocol 4: only torch.save's own, 2") as refused:
        open_weights(path)
    assert "without pickle_protocol" in str(refused.value.hint)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_from_before_1_6_is_looked_through_too(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    content = {"model": STATE, "more": Evil()}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"would call .*system, which is code"):
        open_weights(path)


def test_a_script_of_pytorchs_is_not_run(tmp_path: Path) -> None:
    """torch.load opens TorchScript's archives too, which hold code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
        with pytest.raises(WeightsError, match=r"is compressed|not a readable"):
            open_weights(tmp_path / "script.pt")


def test_a_factory_is_never_used(tmp_path: Path) -> None:
    """A defaultdict calls its factory for whatever is looked up; here it is a plain mapping."""
    default = collections.defaultdict(list, {"model": STATE})
    weights = opened(default, tmp_path)
    assert weights.report.matched == len(STATE)
    assert "state_dict" not in default


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
