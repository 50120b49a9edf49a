"""The values that a set's pixels take, where their type does not say which of them is white."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maekit.data.rendering import extremes
from maekit.data.statistics import samples_of
from maekit.errors import MaekitError
from maekit.stop import check

if TYPE_CHECKING:
    from maekit.contracts import Dataset

LOOKED_AT = 256  # samples whose values make the range


class Values(NamedTuple):
    """What was found in some samples."""

    low: float
    high: float
    samples: int
    dtype: str  # of the widest: "uint16" or "float32"; "uint8" where all are 8-bit


def values_of(dataset: Dataset, limit: int = LOOKED_AT, *, plain: int = 8) -> Values:
    """Look at whole pictures, and the middle frame of videos, of evenly spaced samples.

    8-bit ones are left out, as their range is known, and so are those that cannot be read.

    Args:
        dataset: what to look at.
        limit: samples.
        plain: so many 8-bit samples, before any other, and the set is taken for 8-bit: to open
            videos, whose frames may have to be counted, takes time.

    Returns:
        The least and the largest value; of 8-bit samples alone, 0 and 255.
    """
    low, high, count, dtypes = np.inf, -np.inf, 0, set[str]()
    left = plain
    for index in samples_of(dataset, limit):
        check()
        try:
            source = dataset.open(index)
            if source.info.dtype == "uint8":
                left -= 1
                if left <= 0 and not count:
                    break
                continue
            least, most = extremes(source)
        except (MaekitError, OSError):
            continue  # told, and counted, when it is trained on
        low, high = min(low, least), max(high, most)
        count, dtypes = count + 1, dtypes | {source.info.dtype}
    if not count:
        return Values(0, 255, 0, "uint8")
    return Values(low, high, count, "float32" if "float32" in dtypes else "uint16")
