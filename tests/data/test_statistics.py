"""Statistics of the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from loader_fakes import Fakes

from maekit.data.statistics import auto_stats, imagenet
from maekit.errors import DataError, RecipeError
from maekit.recipe.schema import DataSpec, Stats

SPEC = DataSpec(name="fakes")


def stats_of(dataset: Fakes, channels: int = 3, workers: int = 0, limit: int = 1000) -> Stats:
    return auto_stats(
        dataset, SPEC, size=(16, 16), channels=channels, workers=workers, timeout=120, limit=limit
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_equal_those_of_all_pixels_at_once(dtype: str) -> None:
    dataset = Fakes(shape=(1, 16, 16, 2), dtype=dtype, faults={4: "bad"})
    top = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    pixels = np.concatenate([dataset.clip(i) for i in range(24) if i != 4]) / top
    stats = stats_of(dataset, channels=2)
    np.testing.assert_allclose(stats.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats.std, pixels.std(axis=(0, 1, 2)), rtol=1e-5)
    assert stats_of(dataset, channels=2) == stats


def test_the_same_with_workers_and_from_a_part_of_the_set() -> None:
    assert stats_of(Fakes(), workers=1) == stats_of(Fakes())
    assert stats_of(Fakes(), limit=5) != stats_of(Fakes())


def test_imagenet_is_for_gray_and_color() -> None:
    assert imagenet(3).mean == (0.485, 0.456, 0.406)
    assert imagenet(1).std[0] == pytest.approx(0.226)
    with pytest.raises(RecipeError, match="auto"):
        imagenet(13)


def test_nothing_readable_and_constant_channels_are_errors() -> None:
    with pytest.raises(DataError, match="none of 3 samples"):
        stats_of(Fakes(samples=3, faults=dict.fromkeys(range(3), "bad")))

    class Flat(Fakes):
        def clip(self, index: int) -> np.ndarray:
            clip = super().clip(index)
            clip[..., 1] = 9
            return clip

    with pytest.raises(DataError, match="channel 1 has the same value"):
        stats_of(Flat())
