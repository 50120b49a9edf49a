"""Check the promises of a dataset."""

from __future__ import annotations

import pickle

import numpy as np

from maekit.contracts import Dataset
from maekit.data.order import evenly
from maekit.testing.names import check_names

DTYPES = ("uint8", "uint16", "float32")


def check_dataset(dataset: Dataset, samples: int = 4) -> None:
    """Check length, names, true headers, reading twice the same, and pickling.

    Args:
        dataset: what is checked.
        samples: how many are opened, evenly spaced; all must be readable.
    """
    check_names(dataset, Dataset)
    assert len(dataset) > 0, "is empty"
    chosen = evenly(len(dataset), samples)
    for index in chosen:
        source = dataset.open(index)
        info = source.info
        assert dataset.name(index), f"sample {index} has no name"
        assert info.dtype in DTYPES, f"dtype {info.dtype}, not one of {DTYPES}"
        ids = sorted({0, info.frames // 2, info.frames - 1})
        clip = source.read(ids)
        shape = (len(ids), info.height, info.width, info.channels)
        assert clip.shape == shape, f"{info.id}: read {clip.shape}, the header says {shape}"
        assert str(clip.dtype) == info.dtype, f"{info.id}: read {clip.dtype}"
        assert np.array_equal(clip, dataset.open(index).read(ids)), f"{info.id}: reads differ"
        if isinstance(info.label, int) and dataset.classes is not None:
            assert 0 <= info.label < len(dataset.classes), f"{info.id}: label {info.label}"
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 (its own bytes)
    assert copy.name(chosen[0]) == dataset.name(chosen[0]), "a pickled copy is not the same"
