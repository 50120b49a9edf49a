"""What a pickle of weights may name: classes that only hold data.

Training code puts more than tensors into its files: rates of the optimizer as numpy numbers
(VideoMAE and VideoMAEv2: engine_for_pretraining.py), arguments with paths (MAE's submitit scripts),
counters. All of these are rebuilt by their constructors and run nothing; whatever else a pickle
names could run anything, and is refused.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import pathlib
from typing import Any

import numpy as np

_SCALAR: Any = np.float64(0.0).__reduce__()[0]
_ARRAY: Any = np.zeros(1).__reduce__()[0]
_KINDS = "?bhilqBHILQefdgFDGSUV"  # numpy's letters of types, but for O, which holds any object


def data_classes() -> list[Any]:
    """Return the classes and functions, some with the names that other versions give them."""
    found: list[Any] = [
        argparse.Namespace,
        (_plain_dict, "collections.defaultdict"),
        (_plain_list, "collections.deque"),
        collections.Counter,
        dt.datetime,
        dt.date,
        dt.timedelta,
        dt.timezone,
        np.dtype,
        np.ndarray,
        *{type(np.dtype(letter)) for letter in _KINDS},
    ]
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(_SCALAR, f"{place}.scalar"), (_ARRAY, f"{place}._reconstruct")]
    # A path of another system cannot be made here, and none is followed.
    for module in ("pathlib", "pathlib._local"):
        for name in ("PosixPath", "PurePosixPath"):
            found.append((pathlib.PurePosixPath, f"{module}.{name}"))
        for name in ("WindowsPath", "PureWindowsPath"):
            found.append((pathlib.PureWindowsPath, f"{module}.{name}"))
    found += [(each, f"builtins.{each.__name__}") for each in (dict, list, tuple, int, float, str)]
    return found


def _plain_dict(*_: object) -> dict[object, object]:
    """Stand in for defaultdict, which torch's unpickler makes but does not fill."""
    return collections.OrderedDict()


def _plain_list(*_: object) -> list[object]:
    """Stand in for deque, likewise."""
    return []
