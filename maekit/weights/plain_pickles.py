"""Pickles of weights, and the names that they may use: of classes that only hold data.

Training code puts more than tensors into its files: rates of the optimizer as numpy numbers
(VideoMAE and VideoMAEv2: engine_for_pretraining.py), arguments with paths (MAE's submitit scripts),
counters. Whatever else a pickle names could run anything, and is refused.

Numpy's own functions are not called: given the state that they ask for, they take any bytes for the
address of an object. The stand-ins here know numbers and text, and nothing else.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import pathlib
import pickle
import pickletools
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch.serialization import safe_globals

from maekit.errors import WeightsError
from maekit.weights.checks import check_archive

PICKLES = (b"PK\x03\x04", b"\x80")  # torch.save's archives, and what it wrote before 1.6
_CLASS = re.compile(r"GLOBAL ([\w.]+)")
# Of tensors, besides the classes below.
_OF_TENSORS = re.compile(r"torch(\._utils\._rebuild_\w+|\.\w+Storage|\.[a-z]+\d+|\.Size|\.device)")

_NUMBER = re.compile(r"[?bhilqBHILQefd]|[biufc]\d{1,2}|[SU]\d{1,6}")  # numpy's codes of types
_ORDERS = "<>=|"


def read_pickle(path: Path) -> Any:  # noqa: ANN401 (whatever was saved)
    """Read what torch.save wrote, without calling anything but what makes tensors and plain data.

    Raises:
        WeightsError: it is no such file, is damaged, or names something else to be called.
    """
    with path.open("rb") as file:
        begins = file.read(4)
    if not begins.startswith(PICKLES):
        msg = "neither safetensors nor a file that torch.save wrote"
        hint = "give a .pth, .pt, .bin or .safetensors file, or a Hugging Face folder"
        raise WeightsError(msg, where=str(path), hint=hint)
    check_archive(path)
    try:
        # The open file, not its path: torch.load would go by the path's ending.
        with path.open("rb") as file, safe_globals(data_classes()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other protocols: the error says so
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _CLASS.search(str(error))
        raise _refusal(path, error, None if named is None else named[1]) from error
    except Exception as error:  # on a damaged file the unpickler fails in any way
        raise _unreadable(path, error) from error


def _refusal(path: Path, error: Exception, called: str | None) -> WeightsError:
    """Say what a pickle wants to call; PyTorch stops at newer opcodes before it has seen a name."""
    names, protocol = _names_in(path)
    if called is None:
        called = next((name for name in names if not _is_data(name)), None)
    if called is not None:
        msg = f"refused: unpickling it would call {called}, which is code, not weights"
        hint = (
            "if you trust its author, keep only the state dict where the file was made: "
            "torch.save(model.state_dict(), FILE)"
        )
        return WeightsError(msg, where=str(path), hint=hint)
    if protocol > _OLDEST:
        msg = f"pickled with protocol {protocol}: only torch.save's own, {_OLDEST}, is read safely"
        hint = "save it again where it was made, without pickle_protocol: torch.save(state, FILE)"
        return WeightsError(msg, where=str(path), hint=hint)
    return _unreadable(path, error)


_OLDEST = 2  # protocol, which torch.save takes


def _is_data(name: str) -> bool:
    known = (each if isinstance(each, tuple) else (each, "") for each in data_classes())
    data = {said or f"{found.__module__}.{found.__qualname__}" for found, said in known}
    return name in data | {"collections.OrderedDict"} or _OF_TENSORS.fullmatch(name) is not None


def _names_in(path: Path) -> tuple[list[str], int]:
    """Return the globals that a file's pickle names, and the pickle's protocol; run none of it."""
    protocol, names = 0, list[str]()
    words, memo = list[str](), list[str | None]()
    last: str | None = None  # what was put last, where it is a text
    try:
        for operation, value in _operations(path):
            if operation == "PROTO":
                protocol = value
            elif operation == "GLOBAL":
                names.append(str(value).replace(" ", "."))
            elif operation == "STACK_GLOBAL":
                names.append(".".join(words[-2:]))
            elif operation == "MEMOIZE":
                memo.append(last)
                continue
            known = operation in ("BINGET", "LONG_BINGET") and value < len(memo)
            put = memo[value] if known else value
            last = put if isinstance(put, str) else None
            if last is not None:
                words.append(last)
    except (ValueError, BadZipFile):  # cut short: it is reported as such
        return names, 0
    return names, protocol


def _operations(path: Path) -> Iterator[tuple[str, Any]]:
    """List the operations of an archive's pickle, or of a file's; before 1.6 a file has several.

    Raises:
        ValueError: the first one is cut short.
        BadZipFile: the archive is.
    """
    with path.open("rb") as file:
        if file.read(2) != PICKLES[0][:2]:
            file.seek(0)
            yield from ((each.name, value) for each, value, _ in pickletools.genops(file))
            with suppress(ValueError):  # what follows the last one is numbers
                while True:
                    yield from ((each.name, value) for each, value, _ in pickletools.genops(file))
            return
    with ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl") or name == "data.pkl":
                with archive.open(name) as member:
                    yield from ((each.name, value) for each, value, _ in pickletools.genops(member))


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = str(error).partition("\n")[0].partition(". This")[0]
    if "Weights only load failed" in reason:  # its advice is to let the file run code
        reason = "not a pickle of weights"
    msg = f"not a readable PyTorch file: {type(error).__name__}: {reason}"
    return WeightsError(msg, where=str(path), hint="it may be cut short: copy it again")


def data_classes() -> list[Any]:
    """Return the classes and functions, some with the names that other versions give them."""
    found: list[Any] = [
        argparse.Namespace,
        collections.Counter,
        dt.datetime,
        dt.date,
        dt.timedelta,
        dt.timezone,
        (_plain_dict, "collections.defaultdict"),
        (_plain_list, "collections.deque"),
        (_Type, "numpy.dtype"),
        (_Array, "numpy.ndarray"),
    ]
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(_scalar, f"{place}.scalar"), (_array, f"{place}._reconstruct")]
    # A path of another system cannot be made here, and none is followed.
    for module in ("pathlib", "pathlib._local"):
        for name in ("PosixPath", "PurePosixPath"):
            found.append((pathlib.PurePosixPath, f"{module}.{name}"))
        for name in ("WindowsPath", "PureWindowsPath"):
            found.append((pathlib.PureWindowsPath, f"{module}.{name}"))
    # Factories of a defaultdict.
    found += [(each, f"builtins.{each.__name__}") for each in (dict, list, tuple, int, float, str)]
    return found


class _Type:
    """A numpy dtype of a pickle: of numbers or text, in some order of bytes.

    Raises:
        ValueError: any other dtype.
    """

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            msg = f"numpy's type {code!r} is neither a number nor text"
            raise ValueError(msg)
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order if order in _ORDERS else "="

    def values(self, content: object) -> np.ndarray:
        """Return the numbers that bytes hold."""
        if not isinstance(content, bytes):
            msg = "numpy's numbers are kept as bytes"
            raise ValueError(msg)  # noqa: TRY004 - the pickle is what is wrong
        return np.frombuffer(content, np.dtype(self.code).newbyteorder(self.order))


class _Array:
    """A numpy array of a pickle, once its state is set: ``values`` are its numbers."""

    values: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, content = state
        order: Any = "F" if columns_first else "C"
        self.values = kind.values(content).reshape(shape, order=order)


def _array(*_: object) -> _Array:
    """Stand in for numpy's ``_reconstruct``."""
    return _Array()


def _scalar(kind: _Type, content: bytes) -> object:
    """Stand in for numpy's ``scalar``: return a number of Python's own."""
    return kind.values(content)[0].item()


def _plain_dict(*_: object) -> dict[object, object]:
    """Stand in for defaultdict, which torch's unpickler makes but does not fill."""
    return collections.OrderedDict()


def _plain_list(*_: object) -> list[object]:
    """Stand in for deque, likewise."""
    return []
