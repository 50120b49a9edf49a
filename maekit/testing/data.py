"""What every dataset has to keep."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from maekit.contracts import Dataset

DTYPES = ("uint8", "uint16", "float32")


def check_dataset(dataset: Dataset, samples: int = 4) -> None:
    """Length, names, headers that tell the truth, reading twice the same, and being picklable.

    Args:
        samples: how many are opened, evenly spaced; all must be readable.
    """
    assert len(dataset) > 0, "is empty"
    chosen = np.unique(np.linspace(0, len(dataset) - 1, samples).round().astype(int)).tolist()
    for index in chosen:
        source = dataset.open(index)
        assert dataset.name(index), f"sample {index} has no name"
        assert source.dtype in DTYPES, f"dtype {source.dtype}, not one of {DTYPES}"
        ids = sorted({0, source.frames // 2, source.frames - 1})
        clip = source.read(ids)
        shape = (len(ids), source.height, source.width, source.channels)
        assert clip.shape == shape, f"{source.id}: read {clip.shape}, the header says {shape}"
        assert str(clip.dtype) == source.dtype, f"{source.id}: read {clip.dtype}"
        assert np.array_equal(clip, dataset.open(index).read(ids)), f"{source.id}: reads differ"
        if source.label is not None and dataset.classes is not None:
            assert 0 <= source.label < len(dataset.classes), f"{source.id}: label {source.label}"
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 (its own bytes)
    assert copy.name(chosen[0]) == dataset.name(chosen[0]), "a pickled copy is not the same"
