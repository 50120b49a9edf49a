"""Statistics of the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from loader_fakes import Fakes

from maekit.data.statistics import auto_stats, imagenet
from maekit.errors import DataError, RecipeError
from maekit.recipe.schema import DataSpec, Stats

SPEC = DataSpec(name="fakes")


def stats_of(dataset: Fakes, channels: int = 3, workers: int = 0, limit: int = 1000) -> Stats:
    return noted_stats_of(dataset, channels, workers, limit)[0]


def noted_stats_of(
    dataset: Fakes, channels: int = 3, workers: int = 0, limit: int = 1000
) -> tuple[Stats, list[str]]:
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


@dataclass
class Shifted(Fakes):
    """Random float pixels, multiplied and moved, and one in so many replaced."""

    scale: float = 1.0
    base: float = 0.0
    outlier: float | None = None
    every: int = 1000

    def clip(self, index: int) -> np.ndarray:
        clip = (super().clip(index).astype(np.float64) * self.scale + self.base).astype(np.float32)
        if self.outlier is not None:
            clip.reshape(-1)[index :: self.every] = self.outlier
        return clip


def test_a_small_deviation_beside_a_large_mean_is_not_lost() -> None:
    dataset = Shifted(shape=(1, 16, 16, 3), dtype="float32", scale=300.0, base=1e7)
    pixels = np.stack([dataset.clip(index) for index in range(24)]).astype(np.float64)
    stats, notes = noted_stats_of(dataset)
    np.testing.assert_allclose(stats.std, pixels.std(axis=(0, 1, 2, 3)), rtol=1e-6)
    assert notes == []


@pytest.mark.parametrize(("scale", "base"), [(0.0, 0.0), (0.0, 7.5), (1e-3, 1e7), (1e-9, 1.0)])
def test_what_float32_does_not_resolve_is_constant(scale: float, base: float) -> None:
    with pytest.raises(DataError, match="the same value in all pixels"):
        stats_of(Shifted(dtype="float32", scale=scale, base=base))


@pytest.mark.parametrize(("outlier", "every", "told"), [
    (None, 1, False), (-1e15, 2000, True), (-9999.0, 700, True), (3.0, 500, False),
])  # fmt: skip
def test_a_few_extreme_pixels_that_decide_are_told(
    outlier: float | None, every: int, told: bool
) -> None:
    dataset = Shifted(shape=(1, 16, 16, 3), dtype="float32", outlier=outlier, every=every)
    _, notes = noted_stats_of(dataset)
    assert bool(notes) is told
    assert all("nodata" in note for note in notes)


def test_sparse_pictures_are_nothing_odd() -> None:
    class Sparse(Fakes):
        def clip(self, index: int) -> np.ndarray:
            clip = np.zeros((1, 16, 16, 3), np.uint8)
            clip[0, index % 16, index % 16] = 255
            return clip

    assert noted_stats_of(Sparse(shape=(1, 16, 16, 3)))[1] == []
