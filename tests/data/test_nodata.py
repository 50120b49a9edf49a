"""Float pixels that hold no data: filled, left out of the loss, or too many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from maekit.contracts import Grid, View
from maekit.data.loader import Loader
from maekit.data.order import Key
from maekit.data.pixels import LARGEST, fill_holes, mark_holes
from maekit.data.reader import SampleReader
from maekit.datasets.images import Images
from maekit.errors import DataError
from maekit.maskers.random import Random
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment
from maekit.tokens import Mask


def picture(folder: Path, name: str, value: float, at: tuple[int, int] = (0, 0)) -> None:
    rng = np.random.default_rng(len(list(folder.iterdir())))
    pixels = rng.normal(size=(32, 32, 1)).astype(np.float32)
    pixels[at] = value
    np.save(folder / name, pixels)


def reader(folder: Path, nodata: float | None = None) -> SampleReader:
    return SampleReader(
        Images(Images.Options(path=folder, nodata=nodata)),
        spec=DataSpec(name="images"),
        augment=NoAugment(name="none"),
        views=(View("clip", (32, 32)),),
        channels=1,
        seed=0,
        purpose="pretrain",
        masker=Random(Random.Options(ratio=0.5)),
        grid=Grid(1, 4, 4),
        held_out=True,
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_pixels_are_filled_and_their_tokens_do_not_count(
    tmp_path: Path, workers: int
) -> None:
    picture(tmp_path, "a.npy", 0.5)
    picture(tmp_path, "b.npy", np.nan, (9, 17))
    picture(tmp_path, "c.npy", -np.inf, (31, 31))
    picture(tmp_path, "d.npy", -9999.0, (0, 8))
    batches = [[Key(0, index) for index in range(4)]]
    with Loader(reader(tmp_path, -9999.0), batches, workers=workers, timeout=60.0) as loader:
        (batch,) = loader
    assert not batch.bad
    assert np.isfinite(batch.views[0]).all()
    assert np.abs(batch.views[0]).max() < 10
    assert batch.known is not None
    unknown = [np.nonzero(~row)[0].tolist() for row in batch.known]
    assert unknown == [[], [6], [15], [1]]
    assert batch.hidden is not None
    mask = Mask.build(torch.from_numpy(batch.hidden), token_weight=torch.from_numpy(batch.known))
    hidden = [[place for place in row if batch.hidden[n][place]] for n, row in enumerate(unknown)]
    assert int(mask.weight.sum()) == 32 - sum(map(len, hidden))


def test_without_missing_pixels_nothing_is_carried(tmp_path: Path) -> None:
    picture(tmp_path, "a.npy", 0.5)
    assert reader(tmp_path).read(Key(0, 0)).known is None


@pytest.mark.parametrize("value", [-3.4e38, 2e18, -1e30])
def test_values_that_no_float32_can_square_make_a_bad_file(tmp_path: Path, value: float) -> None:
    picture(tmp_path, "a.npy", value)
    bad = reader(tmp_path).read(Key(0, 0)).bad
    assert bad is not None
    assert "square" in bad.reason
    assert f"nodata={np.float32(value).item()!r}" in bad.reason
    assert reader(tmp_path, value).read(Key(0, 0)).bad is None


def test_more_than_one_percent_missing_makes_a_bad_file() -> None:
    pixels = np.zeros((100, 100, 3), np.float32)
    pixels[0, :, 1] = np.nan
    assert np.isnan(mark_holes(pixels, None, "x")).sum() == 100
    pixels[1, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"1\.0% of its pixels hold no data"):
        mark_holes(pixels, None, "x")


def test_filling_is_the_mean_of_the_channel() -> None:
    clip = np.array([[[[1.0, 5.0], [3.0, np.nan]]]], np.float32)
    filled, holes = fill_holes(clip)
    assert filled.tolist() == [[[[1.0, 5.0], [3.0, 5.0]]]]
    assert holes is not None
    assert holes.tolist() == [[[False, True]]]
    whole = np.full((1, 2, 2, 1), LARGEST, np.float32)
    assert fill_holes(whole)[0] is whole
