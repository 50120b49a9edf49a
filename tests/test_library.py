"""maekit in someone's own code: models, masks, files, batches, reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numerics import close
from PIL import Image
from small_recipes import (
    IMAGES,
    VIDEOS,
    draw_sides,
    draw_smooth,
    sets,
    write_noise,
    write_recipe,
)

import maekit
from maekit.engine.run_folder import read_lines
from maekit.errors import DataError, MaekitError


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "pictures"
    draw_smooth(folder / "train", 20, seed=0)
    draw_smooth(folder / "val", 4, seed=1)
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "own.yaml", IMAGES, sets(folder))


def test_a_loop_of_ones_own_has_the_losses_of_the_run(small: str) -> None:
    maekit.run(small, out="run")  # 3 steps of 8, whose first has no learning rate yet
    first = next(line["loss"] for line in read_lines(Path("run/metrics.jsonl")) if "loss" in line)
    loader = maekit.loader(small)
    assert len(loader) == 2  # of 20 samples
    batch = next(iter(loader))
    assert batch.pixels.shape == (8, 3, 1, 16, 24)
    assert batch.hidden.shape == (8, 6)
    assert batch.hidden.sum(1).tolist() == [3] * 8
    assert len(set(batch.names)) == 8
    assert Path(batch.names[0]).suffix == ".png"
    loss = loader.model(batch.pixels, batch.hidden).loss
    close([loss.item()], [first], terms=10_000)


def test_of_repeats_each_row_has_its_name_and_label(small: str) -> None:
    """The rows of one sample are side by side: what belongs to each is told row by row."""
    batch = next(iter(maekit.loader(small, ["pretrain.repeats=2", "data.workers=0"])))
    rows = len(batch.pixels)
    assert [len(each) for each in (batch.hidden, batch.weight, batch.labels, batch.names)] == [
        rows
    ] * 4
    assert batch.names[0::2] == batch.names[1::2]
    assert len(set(batch.names)) == rows // 2
    assert not torch.equal(batch.pixels[0], batch.pixels[1])


def test_epochs_differ_and_can_be_drawn_again(small: str) -> None:
    loader = maekit.loader(small, ["pretrain.batch.accumulation=2"])
    assert len(loader) == 4
    first, second = list(loader), list(loader)
    assert [len(batch.names) for batch in first] == [4] * 4
    assert [batch.names for batch in first] != [batch.names for batch in second]
    loader.epoch = 0
    for batch, again in zip(first, loader, strict=True):
        assert batch.names == again.names
        assert torch.equal(batch.pixels, again.pixels)
        assert torch.equal(batch.hidden, again.hidden)
    other = maekit.loader(small, ["pretrain.batch.accumulation=2"], model=loader.model, workers=1)
    assert torch.equal(next(iter(other)).pixels, first[0].pixels)


def test_labels_and_bad_files(tmp_path: Path) -> None:
    draw_sides(tmp_path / "set", 16, seed=0)
    bad = min((tmp_path / "set").rglob("*.png"))
    bad.write_bytes(b"none")
    recipe = write_recipe(tmp_path / "own.yaml", IMAGES, {"data": {
        "train": {"path": str(tmp_path / "set")}, "val": None,
    }})  # fmt: skip
    (whole,) = list(maekit.loader(recipe, ["pretrain.batch.global=16"]))
    assert sorted(set(whole.labels) - {None}) == [0, 1]
    place = next(number for number, name in enumerate(whole.names) if name.endswith(bad.name))
    assert whole.weight.tolist().count(0) == 1
    assert whole.weight[place] == 0
    bad.unlink()
    for path in (tmp_path / "set").rglob("*.png"):
        path.write_bytes(b"none")
    with pytest.raises(DataError, match="no sample of a batch can be read"):
        list(maekit.loader(recipe))


def test_a_model_from_a_recipe_needs_no_data(small: str) -> None:
    words = ["data.train.path=nowhere", "model.backbone.depth=1"]
    model = maekit.build(small, words)
    assert len(model.backbone.blocks()) == 1
    same, other = maekit.build(small, words), maekit.build(small, [*words, "seed=1"])
    weights = [next(iter(each.decoder.parameters())) for each in (model, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("masker", "options", "hidden"), [
    ("random", {"ratio": 0.5}, 3), ("random", {"ratio": 0.75}, 5), ("grid", {"cell": [2, 3]}, 5),
])  # fmt: skip
def test_masks_hide_as_many_as_asked(
    masker: str, options: dict[str, object], hidden: int, small: str
) -> None:
    drawn = maekit.masks(masker, maekit.build(small), 4, **options)
    assert (drawn.dtype, drawn.shape) == (torch.bool, (4, 6))
    assert drawn.sum(1).tolist() == [hidden] * 4
    assert torch.equal(drawn, maekit.masks(masker, maekit.build(small), 4, **options))
    with pytest.raises(MaekitError, match="nonsense"):
        maekit.masks(masker, maekit.build(small), nonsense=1)


def test_reconstructions_of_a_picture_are_arrays(small: str) -> None:
    model = maekit.build(small)
    path = min(Path("pictures/val").rglob("*.png"))
    whole = maekit.read(path)
    assert np.array_equal(whole[0], np.asarray(Image.open(path).convert("RGB")))
    found = model.reconstruct(maekit.read(path, model), seed=3)
    assert [each.shape for each in found] == [(16, 24, 3)] * 3 + [(16, 24)]
    assert found.hidden.reshape(2, 8, 3, 8).all((1, 3)).sum() == found.hidden.sum() / 64
    assert np.array_equal(found.original[~found.hidden], found.prediction[~found.hidden])
    assert (found.masked[found.hidden] == 0.5).all()
    assert not np.array_equal(found.original[found.hidden], found.prediction[found.hidden])
    again = model.reconstruct(found.original, seed=3)  # an array of the model's own size
    close(again.prediction, found.prediction, terms=1000)
    mine = np.array([True, False, False, False, False, True])
    own = model.reconstruct(whole[0], hidden=mine).hidden
    assert np.array_equal(own[::8, ::8].reshape(-1), mine)
    # An array of any size is shown as the file would be, a float64 one as its float32.
    from_file = model.reconstruct(maekit.read(path, model), seed=3)
    from_array = model.reconstruct(whole[0], seed=3)
    assert all(np.array_equal(*pair) for pair in zip(from_file, from_array, strict=True))
    assert model.reconstruct(np.zeros((20, 30, 3))).original.shape == (16, 24, 3)
    gray = model.reconstruct(Image.open(path).convert("L"), ratio=0.5)
    assert gray.original.shape == (16, 24, 3)
    with pytest.raises(ValueError, match="hidden has 5 values"):
        model.reconstruct(whole, hidden=[True] * 5)
    with pytest.raises(ValueError, match=r"an image is \[H, W, C\]"):
        model.reconstruct(np.zeros((2, 2, 2, 2, 2)))
    with pytest.raises(ValueError, match=r"\[B, C, T, H, W\], these are \[2, 3, 16, 24\]"):
        model.encode(torch.zeros(2, 3, 16, 24))


def test_reconstructions_of_clips(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.mp4", 9)
    recipe = write_recipe(tmp_path / "own.yaml", VIDEOS)
    model = maekit.build(recipe)
    seen = maekit.read(tmp_path / "a.mp4", model)
    assert seen.shape == (1, 3, 4, 16, 16)
    assert maekit.read(tmp_path / "a.mp4").shape[0] == 9
    found = model.reconstruct(seen, ratio=0.75)
    assert [each.shape for each in found] == [(4, 16, 16, 3)] * 3 + [(4, 16, 16)]
    assert np.array_equal(found.hidden[0], found.hidden[3])  # a tube
    assert model.reconstruct(np.zeros((16, 16, 3), np.uint8), ratio=0.5).original.shape[0] == 4
    with pytest.raises(ValueError, match="takes one clip of 3 channels and 4 frames"):
        model.reconstruct(np.zeros((5, 16, 16, 3), np.uint8))
