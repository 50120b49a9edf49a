"""Names that a pickle of weights may use: of classes that only hold data.

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
import re
from typing import Any

import numpy as np

_NUMBER = re.compile(r"[?bhilqBHILQefd]|[biufc]\d{1,2}|[SU]\d{1,6}")  # numpy's codes of types
_ORDERS = "<>=|"


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
